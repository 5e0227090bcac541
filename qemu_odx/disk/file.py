"""A disk on an image file or a host block device.

May import the other modules of `disk`. Next: `virtio/blk.py` (through `dispatch.py`) and the SCSI target
read and write it; `target/execute.py` takes snapshots of it.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
import threading
from contextlib import contextmanager, nullcontext
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Literal

from qemu_odx.disk.before_write import BeforeWrite
from qemu_odx.disk.copying import Copier
from qemu_odx.disk.guard import Guard
from qemu_odx.disk.hostfile import total
from qemu_odx.disk.image import DiskError, Image, open_image
from qemu_odx.disk.legacy import open_side
from qemu_odx.disk.reflink import Reflink, reflink_works
from qemu_odx.disk.snapshots import CopyTarget, FileSnapshot, nobody

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from qemu_odx.disk.journal import DiskJournal, Legacy
    from qemu_odx.disk.port import Around, Change, CopyMethod, Extent, Io, Snapshot
    from qemu_odx.disk.snapshots import Fragment, VaultKeeper

__all__ = ["DiskError", "FileDisk", "open_disk"]

SnapshotPolicy = Literal["auto", "reflink", "copy-before-write"]

STALL = 0.02
"""Seconds of a write after which others are not to wait for the next one."""
RESPITE = 0.2
"""Seconds for which they are not."""
SERIAL_LENGTH = 20  # virtio 1.2, 5.2.6.1 VIRTIO_BLK_T_GET_ID: 20 bytes of ID string


def open_disk(
    name: str,
    path: str | os.PathLike[str],
    *,
    size: int | None = None,
    block_size: int = 512,
    physical_block_size: int | None = None,
    serial: str | None = None,
    readonly: bool = False,
    snapshots: SnapshotPolicy = "auto",
    journal: DiskJournal | None = None,
) -> FileDisk:
    """Open an image file or block device as a disk, and lock it.

    Args:
        name: the `id=` of the disk.
        path: the image; a missing one is created sparse if `size` is given.
        size: bytes; an existing image must have this size already.
        block_size: 512 or 4096.
        physical_block_size: what guests should align to, a power of two from `block_size` on.
        serial: 1 to 20 printable ASCII characters; made from name and path by default.
        readonly: open for reading only; several servers may do so at once.
        snapshots: how point-in-time data is held: "reflink" (XFS, btrfs), "copy-before-write" (everywhere)
            or "auto", the first of them that works.
        journal: where snapshots are noted that are to outlast the process; None: none does.

    Raises:
        DiskError: one sentence with the cure; nothing was left behind.
    """
    path = Path(path)
    serial = _default_serial(name, path) if serial is None else serial
    if not (0 < len(serial) <= SERIAL_LENGTH and serial.isascii() and serial.isprintable()):
        raise DiskError(
            f"serial={serial!r} of disk {name} is not possible: use 1 to 20 printable ASCII characters"
        )
    existed = path.exists()
    image = open_image(path, size=size, block_size=block_size, readonly=readonly)
    disk = FileDisk(
        name,
        image,
        serial=serial,
        block_size=block_size,
        physical_block_size=physical_block_size,
        readonly=readonly,
        snapshots=snapshots,
        journal=journal,
    )
    if snapshots == "reflink" and not isinstance(disk.vaults(), Reflink):
        disk.close()
        if not existed:
            path.unlink()
        raise DiskError(
            f"{path}: its file system has no reflink: use XFS or btrfs, or another snapshot policy"
        )
    return disk


class FileDisk(CopyTarget):
    """Implements `port.Disk` on an open image, which it owns.

    Attributes:
        recalled: snapshots of a predecessor by their numbers; whoever opened the disk takes or releases each.
        on_loss: called after snapshots were lost, from any thread.
    """

    def __init__(
        self,
        name: str,
        image: Image,
        *,
        serial: str = "",
        block_size: int = 512,
        physical_block_size: int | None = None,
        readonly: bool = False,
        snapshots: SnapshotPolicy = "auto",
        journal: DiskJournal | None = None,
    ) -> None:
        self.name = name
        self.serial = serial or _default_serial(name, Path(name))
        self.size = image.size
        self.block_size = block_size
        self.physical_block_size = physical_block_size
        self._file = image.file
        self._guard = Guard()
        self._journal = journal
        self._side, legacy = open_side(image, journal, writes=not readonly)
        self._copier = Copier(image.file)
        self._policy = snapshots
        self._vaults: VaultKeeper | None = None
        self._choosing = threading.Lock()
        self._stalled_until = 0.0
        self._opened_readonly = self._readonly = readonly
        self.on_loss: Callable[[], None] = nobody
        self.recalled: dict[int, Snapshot] = self._inherit(legacy) if legacy else {}

    @property
    def readonly(self) -> bool:
        """True if writes are refused; a disk that was opened read-only stays so."""
        return self._readonly

    @readonly.setter
    def readonly(self, value: bool) -> None:
        self._readonly = value or self._opened_readonly

    def before_keeping(self, ask: Callable[[int, int], None]) -> None:
        """Call `ask` with offset and length before old data of a snapshot are put aside; it may raise OSError."""
        self._side.before_keeping = ask

    @property
    def stalled(self) -> bool:
        """True for a while after a write that took long: the host may be behind with writing back."""
        return monotonic() < self._stalled_until

    def _time(self, start: float) -> None:
        now = monotonic()
        if now - start > STALL:
            self._stalled_until = now + RESPITE

    @property
    def descriptor(self) -> int:
        """The image itself: snapshots are kept apart from it."""
        return self._file.fd

    def try_read(self, offset: int, into: Sequence[memoryview]) -> bool:
        """Read what the page cache has; False: call `read` on a worker."""
        length = total(into)
        self._check(offset, length)
        return self._file.try_read(offset, into, length)

    def try_batch(self, batch: Sequence[Io]) -> Sequence[int]:
        """Do what needs not wait: cached reads, writes that touch no snapshot. The places of all others."""
        ranges = [(offset, offset + length) for is_write, offset, length, _ in batch if is_write]
        if not ranges:
            return self._file.try_batch(batch)
        tickets = None if self._readonly or self.stalled else self._guard.try_begin(ranges)
        if tickets is None:
            return range(len(batch))
        start = monotonic()
        try:
            if max(end for _, end in ranges) > self.size:  # made smaller meanwhile, see `_begin`
                return range(len(batch))
            return self._file.try_batch(batch)
        finally:
            self._guard.end_all(tickets)
            self._time(start)

    def read(self, offset: int, into: Sequence[memoryview]) -> None:
        """Fill the buffers from `offset` on. Raises OSError."""
        length = total(into)
        self._check(offset, length)
        self._file.read(offset, into, length)

    def write(self, offset: int, data: Sequence[memoryview | bytes]) -> None:
        """Write the buffers from `offset` on, preserving what snapshots protect. Raises OSError."""
        length = total(data)
        start = monotonic()
        ticket = self._begin(offset, length)
        try:
            self._overwrite(offset, data, length)
        finally:
            self._guard.end(ticket)
            self._time(start)

    def update(self, offset: int, length: int, change: Change, around: Around = nullcontext) -> bool:
        """Read the range and write what `change` makes of it, no other write in between. Raises OSError."""
        self._check_writable(offset, length)
        with self._guard.alone(offset, offset + length):
            old = memoryview(bytearray(length))
            self._file.read(offset, [old], length)
            new = change(bytes(old))
            if new is not None:
                with around():
                    self._overwrite(offset, [new], length)
        return new is not None

    def resize(self, size: int) -> None:
        """Change the capacity; what snapshots protect beyond a new, smaller end is kept first.

        Raises:
            ValueError: not a positive multiple of the block size.
            OSError: the image cannot change its size (EOPNOTSUPP: it is a block device), or it is read-only.
        """
        if size <= 0 or size % self.block_size:
            raise ValueError(f"size={size} is no multiple of the block size {self.block_size}: choose one")
        self._check_writable(0, 0)
        if not stat.S_ISREG(os.fstat(self._file.fd).st_mode):
            raise OSError(errno.EOPNOTSUPP, f"disk {self.name} is a block device: resize that instead")
        old, self.size = self.size, min(self.size, size)  # from here on, nothing begins beyond the new end
        with self._guard.alone(size, max(old, size)):
            try:
                os.ftruncate(self._file.fd, size)
            except OSError:
                self.size = old
                raise
        self.size = size

    def follow_growth(self) -> int:
        """Show the size of the image if somebody has made that larger; the image's size in whole blocks.

        A smaller one is not followed: the guest knows the larger size, and what it had there is lost. Raises OSError.
        """
        actual = os.lseek(self._file.fd, 0, os.SEEK_END)  # block devices have no st_size
        actual -= actual % self.block_size
        self.size = max(self.size, actual)
        return actual

    def flush(self) -> None:
        """Put every completed write on stable storage. Raises OSError."""
        self._file.flush()

    def discard(self, offset: int, length: int) -> None:
        """Give the range back to the file system; it reads as zeroes after. Raises OSError."""
        ticket = self._begin(offset, length)
        try:
            self._or_make_room(lambda: self._file.punch(offset, length))
        finally:
            self._guard.end(ticket)

    def write_zeroes(self, offset: int, length: int, *, unmap: bool) -> None:
        """Zero the range; `unmap` allows freeing the space. Raises OSError."""
        if unmap:
            self.discard(offset, length)
            return
        ticket = self._begin(offset, length)
        try:
            self._or_make_room(lambda: self._file.zero(offset, length))
        finally:
            self._guard.end(ticket)

    def allocated(self, offset: int, length: int) -> list[tuple[Extent, bool]]:
        """The range cut into extents that are mapped (True) or holes (False)."""
        self._check(offset, length)
        return self._file.allocated(offset, length)

    def snapshot(self, extents: Sequence[Extent]) -> Snapshot:
        """Freeze the extents as they are now. Raises OSError if that is not possible."""
        for extent in extents:
            self._check(extent.offset, extent.length)
        snapshot = FileSnapshot(extents, self.vaults().take(extents))
        if any(extent.end > self.size for extent in extents):  # made smaller meanwhile
            snapshot.release()
            raise _outside(self.name)
        return snapshot

    @contextmanager
    def overwriting(self, offset: int, length: int) -> Iterator[Callable[[Fragment, int], CopyMethod]]:
        """A write in flight of the range: inside, fragments may be copied to offsets in it."""
        ticket = self._begin(offset, length)
        try:
            yield lambda fragment, to: self._copier.copy(fragment.file, fragment.offset, to, fragment.length)
        finally:
            self._guard.end(ticket)

    def vaults(self) -> VaultKeeper:
        """What holds the snapshots of this disk; chosen at the first call. Raises OSError."""
        with self._choosing:
            if self._vaults is None:
                reflink = self._policy != "copy-before-write" and reflink_works(self._file, self._side)
                self._vaults = self._keeper(reflink=reflink)
            return self._vaults

    def _keeper(self, *, reflink: bool) -> VaultKeeper:
        kind = Reflink if reflink else BeforeWrite
        keeper = kind(self._file, self._guard, self._side, self._journal, self._tell_loss)
        if self._journal:
            self._journal.adopt(self._file.fd, self._side.mark, keeper.method)
        return keeper

    def _tell_loss(self) -> None:
        self.on_loss()

    def _inherit(self, legacy: Legacy) -> dict[int, Snapshot]:
        """Go on with a predecessor's snapshots: those by number that can still be kept."""
        self._vaults = self._keeper(reflink=legacy.method == Reflink.method)
        vaults = self._vaults.inherit(legacy)
        recalled: dict[int, Snapshot] = {}
        for item in legacy.held:
            snapshot = FileSnapshot(item.extents, vaults[item.number])
            if any(extent.end > self.size for extent in item.extents):  # made smaller by somebody meanwhile
                snapshot.release()
            else:
                recalled[item.number] = snapshot
        return recalled

    def close(self) -> None:
        """Flush, release the lock and every file. Idempotent."""
        if self._file.fd < 0:
            return
        self._side.close(keep=self._vaults is not None and self._vaults.occupied)
        try:
            if not self._opened_readonly:
                self._file.flush()
        finally:
            if self._journal:
                self._journal.closed(self._file.fd)
            self._file.close()

    def _overwrite(self, offset: int, data: Sequence[memoryview | bytes], length: int) -> None:
        """Write inside a write that the guard knows of."""
        self._or_make_room(lambda: self._file.write(offset, data, length))

    def _or_make_room(self, write: Callable[[], None]) -> None:
        """Write; for want of space once more, without the snapshots."""
        made = self._vaults.room.made if self._vaults else 0
        try:
            write()
        except OSError as error:
            if not self._made_room(error, made):
                raise
            write()

    def _made_room(self, error: OSError, made_before: int) -> bool:
        """Whether a write may be tried again: the guest's data goes before the snapshots' old data."""
        if error.errno not in {errno.ENOSPC, errno.EDQUOT} or self._vaults is None:
            return False
        self._vaults.sacrifice(error)
        return self._vaults.room.made != made_before  # by another writer perhaps, which was first

    def _begin(self, offset: int, length: int) -> int:
        if self._readonly:
            raise OSError(errno.EROFS, f"disk {self.name} is read-only")
        if not 0 <= offset <= offset + length <= self.size:
            raise _outside(self.name)
        ticket = self._guard.begin(offset, offset + length)
        if offset + length > self.size:  # made smaller meanwhile: this write would make the file longer again
            self._guard.end(ticket)
            raise _outside(self.name)
        return ticket

    def _check_writable(self, offset: int, length: int) -> None:
        if self._readonly:
            raise OSError(errno.EROFS, f"disk {self.name} is read-only")
        self._check(offset, length)

    def _check(self, offset: int, length: int) -> None:
        if not 0 <= offset <= offset + length <= self.size:
            raise _outside(self.name)


def _outside(name: str) -> OSError:
    return OSError(errno.EINVAL, f"outside of disk {name}")


def _default_serial(name: str, path: Path) -> str:
    """Stable as long as name and place are: some guests know their disks by it."""
    digest = hashlib.blake2b(f"{name}\0{path.absolute()}".encode(errors="surrogateescape"), digest_size=8)
    return f"ODX-{digest.hexdigest()}"
