"""A device under test behind Linux: disk nodes (`/dev/sgN`, `/dev/sdX`), reached by the SG_IO ioctl.

Standard library and `wire/scsi` only: part of the kit that is copied into guests. The request block is
`struct sg_io_hdr` of <scsi/sg.h>. Next: `bench.py`.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import mmap
import os
import struct
import time
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from qemu_odx.testing.conformance.bench import RESET, SECOND, TWO_SIZES, CheckSkippedError
from qemu_odx.testing.initiator import Answer
from qemu_odx.wire.scsi import opcodes
from qemu_odx.wire.scsi.cdb import block_cdb
from qemu_odx.wire.scsi.fields import u16, u32
from qemu_odx.wire.scsi.opcodes import Data

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType
    from typing import Self

SG_IO = 0x2285
SG_SCSI_RESET = 0x2284
SG_SCSI_RESET_DEVICE = 1
_NONE, _TO_DEVICE, _FROM_DEVICE = -1, -2, -3
_SENSE_ROOM = 96
_TIMEOUT_MS = 60_000
_PATIENCE = 90.0
_LENGTH_OF_GROUP = {0: 6, 1: 10, 2: 10, 4: 16, 5: 12}
"""CDB length by group code (SPC-4 4.2.5.1)."""
_SENSE_DRIVER_STATUS = 0x08
"""DRIVER_SENSE: there is sense data; no failure of the transport."""


class SgError(Exception):
    """The node cannot be used, or a command did not reach the device; the text names the cure."""


class _Header(ctypes.Structure):
    """The request block of SG_IO."""

    _fields_: ClassVar = [
        ("interface_id", ctypes.c_int),
        ("dxfer_direction", ctypes.c_int),
        ("cmd_len", ctypes.c_ubyte),
        ("mx_sb_len", ctypes.c_ubyte),
        ("iovec_count", ctypes.c_ushort),
        ("dxfer_len", ctypes.c_uint),
        ("dxferp", ctypes.c_void_p),
        ("cmdp", ctypes.c_void_p),
        ("sbp", ctypes.c_void_p),
        ("timeout", ctypes.c_uint),
        ("flags", ctypes.c_uint),
        ("pack_id", ctypes.c_int),
        ("usr_ptr", ctypes.c_void_p),
        ("status", ctypes.c_ubyte),
        ("masked_status", ctypes.c_ubyte),
        ("msg_status", ctypes.c_ubyte),
        ("sb_len_wr", ctypes.c_ubyte),
        ("host_status", ctypes.c_ushort),
        ("driver_status", ctypes.c_ushort),
        ("resid", ctypes.c_int),
        ("duration", ctypes.c_uint),
        ("info", ctypes.c_uint),
    ]


def cdb_length(cdb: bytes) -> int:
    """Bytes of a CDB, by its group code."""
    return _LENGTH_OF_GROUP.get(cdb[0] >> 5, 16)


def data_in_length(cdb: bytes, block_size: int) -> int:
    """Bytes that a command may bring: what its ALLOCATION LENGTH or its block count says, 0 for none."""
    operation = opcodes.find(cdb)
    if operation is None or operation.data is not Data.IN:
        return u32(cdb, 10) if cdb[0] == 0x84 else 0
    if operation.name.startswith("READ("):
        return block_cdb(cdb).count * block_size
    if operation.name == "READ CAPACITY(10)":
        return 8
    if operation.name == "INQUIRY":
        return u16(cdb, 3)
    by_length = {6: cdb[4], 10: u16(cdb, 7), 12: u32(cdb, 6), 16: u32(cdb, 10)}
    return by_length[operation.length]


class _Node:
    """An open disk node."""

    def __init__(self, path: str) -> None:
        self.path = path
        try:
            self.fd = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            raise SgError(
                f"{path}: {error.strerror}: run as root and give a node such as /dev/sg1"
            ) from error
        self.block_size = 512

    def send(self, cdb: bytes, data_out: bytes, room: int) -> Answer:
        """Issue one command; data goes one way only."""
        length = len(data_out) or room
        buffer = mmap.mmap(-1, max(length, 1))
        buffer[: len(data_out)] = data_out
        command = (ctypes.c_ubyte * len(cdb)).from_buffer_copy(cdb)
        sense = (ctypes.c_ubyte * _SENSE_ROOM)()
        data = (ctypes.c_ubyte * len(buffer)).from_buffer(buffer)
        request = _Header(
            interface_id=ord("S"),
            dxfer_direction=_TO_DEVICE if data_out else _FROM_DEVICE if room else _NONE,
            cmd_len=len(cdb),
            mx_sb_len=_SENSE_ROOM,
            dxfer_len=length,
            dxferp=ctypes.addressof(data) if length else None,
            cmdp=ctypes.addressof(command),
            sbp=ctypes.addressof(sense),
            timeout=_TIMEOUT_MS,
        )
        self._issue(request, cdb)
        came = max(0, room - max(0, int(request.resid))) if room and not data_out else 0
        return Answer(int(request.status), bytes(sense)[: request.sb_len_wr], bytes(data[:came]))

    def _issue(self, request: _Header, cdb: bytes) -> None:
        name = f"command {cdb[0]:02X}h/{cdb[1] & 0x1F:02X}h to {self.path}"
        try:
            fcntl.ioctl(self.fd, SG_IO, request)
        except OSError as error:
            raise SgError(f"{name}: {error.strerror}: is it a SCSI disk, and are you root?") from error
        if request.host_status or request.driver_status & 0x0F & ~_SENSE_DRIVER_STATUS:
            status = f"host status {request.host_status:#x}, driver status {request.driver_status:#x}"
            raise SgError(f"{name} did not reach the device ({status}): see the kernel's log")


class SgDevice:
    """One or more disk nodes of the same copy manager, the first of them under test.

    Raises:
        SgError: a node cannot be opened or is no SCSI disk.
    """

    def __init__(self, paths: Sequence[str], *, patience: float = _PATIENCE) -> None:
        self._nodes: list[_Node] = []
        self.luns = tuple(range(len(paths)))
        self.patience = patience
        try:
            self._open(paths)
        except BaseException:
            self.close()
            raise
        sizes = {node.block_size for node in self._nodes}
        features = (
            {RESET} | ({SECOND} if len(paths) > 1 else set()) | ({TWO_SIZES} if len(sizes) > 1 else set())
        )
        self.features = frozenset(features)

    def _open(self, paths: Sequence[str]) -> None:
        """All of them, before anything is sent to one."""
        for path in paths:
            self._nodes.append(_Node(path))
        for node in self._nodes:
            answer = self._capacity(node)
            if len(answer.data) >= 12:
                node.block_size = u32(answer.data, 8)

    def _capacity(self, node: _Node) -> Answer:
        cdb = bytes((0x9E, 0x10)) + bytes(8) + (32).to_bytes(4, "big") + bytes(2)
        for _ in range(4):  # unit attentions of a device that just came
            answer = node.send(cdb, b"", 32)
            if answer.good:
                break
        return answer

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Nothing: the nodes stay open from check to check; `close` closes them."""

    def close(self) -> None:
        """Close the nodes."""
        for node in self._nodes:
            os.close(node.fd)

    def carry(self, nexus: int, lun: int, cdb: bytes, data_out: bytes) -> Answer:
        """Send a command. All nodes of a guest are one I_T nexus, so there is only one."""
        del nexus
        node = self._nodes[lun]
        sent = cdb[: cdb_length(cdb)]
        return node.send(sent, data_out, data_in_length(cdb, node.block_size))

    def sleep(self, seconds: float) -> None:
        """Wait."""
        time.sleep(seconds)

    def idle(self) -> None:
        """Nothing: the device goes on by itself."""

    def reset(self, lun: int) -> None:
        """LOGICAL UNIT RESET, by the kernel."""
        kind = bytearray(struct.pack("i", SG_SCSI_RESET_DEVICE))
        try:
            fcntl.ioctl(self._nodes[lun].fd, SG_SCSI_RESET, kind)
        except OSError as error:
            raise CheckSkippedError(f"the kernel cannot reset the device: {error.strerror}") from error

    def lose_nexus(self, nexus: int) -> None:
        """Not possible from inside a guest; checks that need it are skipped."""
        raise NotImplementedError

    def protect(self, lun: int, *, on: bool) -> None:
        """Not possible here; checks that need it are skipped."""
        raise NotImplementedError

    def in_use(self) -> str | None:
        """The first node whose disk is mounted or otherwise taken, None if none is."""
        return next((node.path for node in self._nodes if _taken(node.path)), None)


def block_node(path: str) -> str | None:
    """The `/dev/sdX` that belongs to a `/dev/sgN` (or the path itself), None if there is none."""
    name = Path(path).resolve().name
    if not name.startswith("sg"):
        return path
    folder = Path("/sys/class/scsi_generic") / name / "device" / "block"
    names = sorted(item.name for item in folder.iterdir()) if folder.is_dir() else []
    return f"/dev/{names[0]}" if names else None


def _taken(path: str) -> bool:
    """True if the kernel refuses to give the block device away alone: a file system or a swap area is on it."""
    block = block_node(path)
    if block is None:
        return False
    try:
        os.close(os.open(block, os.O_RDONLY | os.O_EXCL | os.O_CLOEXEC))
    except OSError as error:
        return error.errno == errno.EBUSY
    return False
