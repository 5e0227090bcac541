"""The express lane of virtio-blk: a batch of plain reads and writes, done in one go.

Imports `wire/virtio/{ring,blk}`, `virtio/express` and the storage port. Reads of what the page cache lacks are begun
here, and end later. All other requests are `virtio/blk.py`'s, and whatever is wrong. A test compares the two.
Clauses: VIRTIO 1.2, 5.2.6.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final, Protocol

from qemu_odx.virtio.express import LIMITS, NEXT_WRITE, TRIPLE, Lane, Store, descriptors_of, gather
from qemu_odx.wire.virtio.blk import HEADER, HEADER_SIZE, SECTOR, RequestType, Status
from qemu_odx.wire.virtio.ring import F_NEXT, F_WRITE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from qemu_odx.disk.dispatch import Done
    from qemu_odx.disk.port import Io
    from qemu_odx.virtio.express import End, Flat
    from qemu_odx.virtio.memory import Window
    from qemu_odx.virtio.port import Begun, Ring

_IN: Final = int(RequestType.IN)
_OUT: Final = int(RequestType.OUT)


class BlkStore(Store, Protocol):
    """A disk with its ways of I/O: `disk/dispatch.DiskQueue`, or the mailbox's window in front of one."""

    @property
    def block_size(self) -> int:
        """Bytes of a logical block."""

    @property
    def size(self) -> int:
        """Capacity in bytes."""

    def read_beside(self, offset: int, into: Sequence[memoryview], length: int, done: Done) -> bool:
        """Read beside the event loop; False: that is not possible now."""


class BlkExpress(Lane):
    """The express lane of one queue.

    Args:
        store: where the data are.
        ring: the queue's ring.
        may_write: whether a write is complete without a flush.
    """

    def __init__(self, store: BlkStore, ring: Ring, may_write: Callable[[], bool]) -> None:
        super().__init__(ring, bytes([Status.OK]))
        self._store = store
        self._may_write = may_write

    def _parse(self, heads: Sequence[int], window: Window) -> Iterable[tuple[Store, list[Io], list[End]]]:
        base, size, ram = window
        mask, disk_size, may_write = self._store.block_size - 1, self._store.size, self._may_write()
        unpack, last_header = HEADER.unpack_from, size - HEADER_SIZE
        batch: list[Io] = []
        ends: list[End] = []
        for head, flat in zip(heads, descriptors_of(heads, self._ring, window), strict=True):
            if flat is None or flat[1] != HEADER_SIZE or flat[-3] != 1 or flat[-2] != F_WRITE:
                continue
            header, data, length, flags, status = (
                flat[0] - base,
                flat[4] - base,
                flat[5],
                flat[6],
                flat[-4] - base,
            )
            if len(flat) != TRIPLE:
                found = _pieces(flat, window)
                if found is None:
                    continue
                views, length, flags = found
            elif length and 0 <= data <= size - length:
                views = [ram[data : data + length]]
            else:
                continue
            if not (0 <= header <= last_header and 0 <= status < size):
                continue
            kind, _, sector = unpack(ram, header)
            offset = sector * SECTOR
            if (offset | length) & mask or offset + length > disk_size:
                continue
            if kind == _IN and flags == NEXT_WRITE and length <= LIMITS[_IN]:
                batch.append((False, offset, length, views))
                ends.append((head, length + 1, status, flat))
            elif kind == _OUT and flags == F_NEXT and may_write and length <= LIMITS[_OUT]:
                batch.append((True, offset, length, views))
                ends.append((head, 1, status, flat))
        return ((self._store, batch, ends),) if batch else ()

    def _begin(self, io: Io, end: End, ram: memoryview, begun: Begun) -> bool:
        is_write, offset, length, views = io
        done = partial(self._ended, end, ram, begun)
        if is_write or not self._store.read_beside(offset, views, length, done):  # type: ignore[arg-type]
            return False
        begun.begin(end[0])
        return True

    def _ended(self, end: End, ram: memoryview, begun: Begun, errno: int) -> None:
        head, written, status, flat = end
        ram[status] = Status.IOERR if errno else Status.OK
        mark = self._ring.memory.mark_written
        if mark is not None:  # a migration has begun meanwhile
            for address, length, flags in zip(flat[::4], flat[1::4], flat[2::4], strict=True):
                if flags & F_WRITE:
                    mark(address, length)
        begun.end(head, 0 if errno else written)


def _pieces(flat: Flat, window: Window) -> tuple[list[memoryview], int, int] | None:
    """Buffers, length and the flags of data in many pieces, if all have the same flags."""
    flags = set(flat[6:-4:4])
    found = gather(flat, 1, len(flat) // 4 - 1, window)
    if found is None or len(flags) != 1:
        return None
    return *found, flags.pop()
