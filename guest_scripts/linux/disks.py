"""Finding disks by serial number, and reading and writing them past the page cache.

Standard library only. Uses `sg.py` and `odx.py` to ask SCSI disks for their serial numbers.
"""

from __future__ import annotations

import hashlib
import mmap
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

from odx import serial_number
from sg import ScsiDisk, ScsiError

if TYPE_CHECKING:
    from collections.abc import Callable

CHUNK = 1 << 20
LOOKS = 300
"""For a disk that is to come, a tenth of a second apart: counted, for a host may stand still for longer than that."""
SYS_BLOCK = Path("/sys/block")


class DiskError(Exception):
    """A disk is not there, or does not take or give what it should."""


def scsi_node(serial: str) -> str:
    """The node of the SCSI disk with this unit serial number (VPD page 80h)."""
    return _await_node("sd*", serial, _scsi_serial, "SCSI")


def blk_node(serial: str) -> str:
    """The node of the virtio-blk disk with this serial number (GET_ID)."""
    return _await_node("vd*", serial, lambda path: (path / "serial").read_text().strip(), "virtio-blk")


def _scsi_serial(path: Path) -> str:
    disk = ScsiDisk(f"/dev/{path.name}")
    try:
        return serial_number(disk)
    finally:
        disk.close()


def _await_node(pattern: str, serial: str, read_serial: Callable[[Path], str], kind: str) -> str:
    """Look until the disk is there: the kernel finds disks while the guest is already up."""
    for _ in range(LOOKS):
        for path in sorted(SYS_BLOCK.glob(pattern)):
            try:
                if read_serial(path) == serial:
                    return f"/dev/{path.name}"
            except (OSError, ScsiError):
                continue  # still being set up, or of a kind that does not answer
        time.sleep(0.1)
    raise DiskError(f"no {kind} disk has the serial number {serial}")


class DirectDisk:
    """A disk opened with O_DIRECT; counts the data bytes that cross the ring.

    Attributes:
        ring_bytes: bytes read and written so far.
        block_size: logical block size in bytes.
    """

    def __init__(self, node: str) -> None:
        self.node = node
        self.ring_bytes = 0
        name = node.rsplit("/", 1)[-1]
        self.block_size = int((SYS_BLOCK / name / "queue/logical_block_size").read_text())
        self._fd = os.open(node, os.O_RDWR | os.O_DIRECT | os.O_CLOEXEC)

    def read(self, offset: int, into: mmap.mmap) -> None:
        """Fill the page-aligned buffer from `offset` bytes on."""
        if os.preadv(self._fd, [into], offset) != len(into):
            raise DiskError(f"{self.node} gave too few bytes at offset {offset}")
        self.ring_bytes += len(into)

    def write(self, offset: int, data: mmap.mmap) -> None:
        """Write the page-aligned buffer at `offset` bytes."""
        if os.pwritev(self._fd, [data], offset) != len(data):
            raise DiskError(f"{self.node} took too few bytes at offset {offset}")
        self.ring_bytes += len(data)

    def sha256(self, offset: int, length: int, on_progress: Callable[[int], None]) -> str:
        """The SHA-256 of `length` bytes from `offset` on, as the disk gives them now."""
        digest = hashlib.sha256()
        buffer = mmap.mmap(-1, CHUNK)
        for position in range(0, length, CHUNK):
            self.read(offset + position, buffer)
            digest.update(buffer)
            on_progress(position + CHUNK)
        return digest.hexdigest()

    def close(self) -> None:
        """Close the node."""
        os.close(self._fd)
