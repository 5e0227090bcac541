"""A disk on an image file or a host block device.

May import the other modules of `disk`. Next: `virtio/blk.py` (through `dispatch.py`) and the SCSI target
read and write it; `target/execute.py` takes snapshots of it.
"""

from __future__ import annotations

import errno
import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

from qemu_odx.disk.guard import Guard
from qemu_odx.disk.hostfile import total
from qemu_odx.disk.image import DiskError, Image, open_image

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence

    from qemu_odx.disk.port import Extent, Snapshot

__all__ = ["DiskError", "FileDisk", "open_disk"]

SERIAL_LENGTH = 20  # virtio 1.2, 5.2.6.1 VIRTIO_BLK_T_GET_ID: 20 bytes of ID string


def open_disk(
    name: str,
    path: str | os.PathLike[str],
    *,
    size: int | None = None,
    block_size: int = 512,
    serial: str | None = None,
    readonly: bool = False,
) -> FileDisk:
    """Open an image file or block device as a disk, and lock it.

    Args:
        name: the `id=` of the disk.
        path: the image; a missing one is created sparse if `size` is given.
        size: bytes; an existing image must have this size already.
        block_size: 512 or 4096.
        serial: 1 to 20 printable ASCII characters; made from name and path by default.
        readonly: open for reading only; several servers may do so at once.

    Raises:
        DiskError: one sentence with the cure; nothing was left behind.
    """
    path = Path(path)
    serial = _default_serial(name, path) if serial is None else serial
    if not (0 < len(serial) <= SERIAL_LENGTH and serial.isascii() and serial.isprintable()):
        raise DiskError(
            f"serial={serial!r} of disk {name} is not possible: use 1 to 20 printable ASCII characters"
        )
    image = open_image(path, size=size, block_size=block_size, readonly=readonly)
    return FileDisk(name, image, serial=serial, block_size=block_size, readonly=readonly)


class FileDisk:
    """Implements `port.Disk` on an open image, which it owns."""

    def __init__(
        self, name: str, image: Image, *, serial: str = "", block_size: int = 512, readonly: bool = False
    ) -> None:
        self.name = name
        self.serial = serial or _default_serial(name, Path(name))
        self.size = image.size
        self.block_size = block_size
        self._file = image.file
        self._guard = Guard()
        self._opened_readonly = self._readonly = readonly

    @property
    def readonly(self) -> bool:
        """True if writes are refused; a disk that was opened read-only stays so."""
        return self._readonly

    @readonly.setter
    def readonly(self, value: bool) -> None:
        self._readonly = value or self._opened_readonly

    def try_read(self, offset: int, into: Sequence[memoryview]) -> bool:
        """Read what the page cache has; False: call `read` on a worker."""
        self._check(offset, total(into))
        return self._file.try_read(offset, into)

    def read(self, offset: int, into: Sequence[memoryview]) -> None:
        """Fill the buffers from `offset` on. Raises OSError."""
        self._check(offset, total(into))
        self._file.read(offset, into)

    def write(self, offset: int, data: Sequence[memoryview | bytes]) -> None:
        """Write the buffers from `offset` on, preserving what snapshots protect. Raises OSError."""
        ticket = self._begin(offset, total(data))
        try:
            self._file.write(offset, data)
        finally:
            self._guard.end(ticket)

    def flush(self) -> None:
        """Put every completed write on stable storage. Raises OSError."""
        self._file.flush()

    def discard(self, offset: int, length: int) -> None:
        """Give the range back to the file system; it reads as zeroes after. Raises OSError."""
        ticket = self._begin(offset, length)
        try:
            self._file.punch(offset, length)
        finally:
            self._guard.end(ticket)

    def write_zeroes(self, offset: int, length: int, *, unmap: bool) -> None:
        """Zero the range; `unmap` allows freeing the space. Raises OSError."""
        if unmap:
            self.discard(offset, length)
            return
        ticket = self._begin(offset, length)
        try:
            self._file.zero(offset, length)
        finally:
            self._guard.end(ticket)

    def allocated(self, offset: int, length: int) -> list[tuple[Extent, bool]]:
        """The range cut into extents that are mapped (True) or holes (False)."""
        self._check(offset, length)
        return self._file.allocated(offset, length)

    def snapshot(self, extents: Sequence[Extent]) -> Snapshot:
        """Freeze the extents as they are now. Raises OSError if that is not possible."""
        raise NotImplementedError

    def close(self) -> None:
        """Flush, release the lock and every file. Idempotent."""
        if self._file.fd < 0:
            return
        try:
            if not self._opened_readonly:
                self._file.flush()
        finally:
            self._file.close()

    def _begin(self, offset: int, length: int) -> int:
        if self._readonly:
            raise OSError(errno.EROFS, f"disk {self.name} is read-only")
        if not 0 <= offset <= offset + length <= self.size:
            raise _outside(self.name)
        return self._guard.begin(offset, offset + length)

    def _check(self, offset: int, length: int) -> None:
        if not 0 <= offset <= offset + length <= self.size:
            raise _outside(self.name)


def _outside(name: str) -> OSError:
    return OSError(errno.EINVAL, f"outside of disk {name}")


def _default_serial(name: str, path: Path) -> str:
    """Stable as long as name and place are: some guests know their disks by it."""
    digest = hashlib.blake2b(f"{name}\0{path.absolute()}".encode(errors="surrogateescape"), digest_size=8)
    return f"ODX-{digest.hexdigest()}"
