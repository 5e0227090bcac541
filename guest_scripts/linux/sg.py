"""SCSI commands from a Linux program, by the SG_IO ioctl on a disk node.

Standard library only; imports nothing of ours. Next: `odx.py` builds the commands of a token copy.
The structure is `struct sg_io_hdr` of <scsi/sg.h>.
"""

from __future__ import annotations

import ctypes
import fcntl
import mmap
import os
from typing import ClassVar

SG_IO = 0x2285
SG_DXFER_NONE = -1
SG_DXFER_TO_DEV = -2
SG_DXFER_FROM_DEV = -3
SENSE_LENGTH = 96
TIMEOUT_MS = 60_000

SENSE_KEYS = {  # SPC-4 table 48
    2: "NOT READY",
    3: "MEDIUM ERROR",
    4: "HARDWARE ERROR",
    5: "ILLEGAL REQUEST",
    6: "UNIT ATTENTION",
    7: "DATA PROTECT",
    10: "COPY ABORTED",
    11: "ABORTED COMMAND",
}
UNIT_ATTENTION = 6


class SgIoHdr(ctypes.Structure):
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


class ScsiError(Exception):
    """A command did not end with GOOD.

    Attributes:
        key: sense key, 0 if the device gave no sense data.
    """

    def __init__(self, text: str, key: int = 0) -> None:
        super().__init__(text)
        self.key = key


class ScsiDisk:
    """A disk node opened for SCSI commands; counts the data bytes that cross the ring.

    Attributes:
        ring_bytes: data-in and data-out bytes of all commands so far.
    """

    def __init__(self, node: str) -> None:
        self.node = node
        self.ring_bytes = 0
        self._fd = os.open(node, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)

    def read(self, cdb: bytes, length: int) -> bytes:
        """Issue a command that returns at most `length` bytes; what came."""
        buffer = mmap.mmap(-1, length)
        residual = self._issue(cdb, SG_DXFER_FROM_DEV, buffer)
        self.ring_bytes += length - residual
        return buffer[: length - residual]

    def write(self, cdb: bytes, parameters: bytes) -> None:
        """Issue a command that sends `parameters`."""
        buffer = mmap.mmap(-1, len(parameters))
        buffer[:] = parameters
        self._issue(cdb, SG_DXFER_TO_DEV, buffer)
        self.ring_bytes += len(parameters)

    def _issue(self, cdb: bytes, direction: int, buffer: mmap.mmap) -> int:
        """Run one command, once more after a unit attention (the device tells news first); the residual."""
        try:
            return self._issue_once(cdb, direction, buffer)
        except ScsiError as error:
            if error.key != UNIT_ATTENTION:
                raise
            return self._issue_once(cdb, direction, buffer)

    def _issue_once(self, cdb: bytes, direction: int, buffer: mmap.mmap) -> int:
        command = (ctypes.c_ubyte * len(cdb))(*cdb)
        sense = (ctypes.c_ubyte * SENSE_LENGTH)()
        data = (ctypes.c_ubyte * len(buffer)).from_buffer(buffer)
        request = SgIoHdr(
            interface_id=ord("S"),
            dxfer_direction=direction,
            cmd_len=len(cdb),
            mx_sb_len=SENSE_LENGTH,
            dxfer_len=len(buffer),
            dxferp=ctypes.addressof(data),
            cmdp=ctypes.addressof(command),
            sbp=ctypes.addressof(sense),
            timeout=TIMEOUT_MS,
        )
        fcntl.ioctl(self._fd, SG_IO, request)
        if request.status or request.host_status or request.driver_status & 0x0F:
            raise _failure(self.node, cdb, request, bytes(sense)[: request.sb_len_wr])
        return max(int(request.resid), 0)

    def close(self) -> None:
        """Close the node."""
        os.close(self._fd)


def _failure(node: str, cdb: bytes, request: SgIoHdr, sense: bytes) -> ScsiError:
    name = f"command {cdb[0]:02X}h/{cdb[1] & 0x1F:02X}h on {node}"
    if request.host_status:
        return ScsiError(f"{name} did not reach the disk (host status {request.host_status:#x})")
    return command_error(name, request.status, sense)


def command_error(name: str, status: int, sense: bytes) -> ScsiError:
    """What a command that did not end with GOOD says about itself."""
    if len(sense) < 4:
        return ScsiError(f"{name} failed with status {status:02X}h and no sense data")
    key, code, qualifier = decode_sense(sense)
    words = SENSE_KEYS.get(key, f"sense key {key:X}h")
    return ScsiError(f"{name} was refused: {words}, {code:02X}h/{qualifier:02X}h", key)


def decode_sense(sense: bytes) -> tuple[int, int, int]:
    """Sense key, additional sense code and its qualifier, from either format (SPC-4 4.5.2 and 4.5.3)."""
    if sense[0] & 0x7F in {0x72, 0x73}:
        return sense[1] & 0x0F, sense[2], sense[3]
    padded = sense.ljust(14, b"\0")
    return padded[2] & 0x0F, padded[12], padded[13]
