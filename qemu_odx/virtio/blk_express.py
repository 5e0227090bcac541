"""The express lane of virtio-blk: a batch of plain reads and writes, done in one go.

Imports `wire/virtio/{ring,blk}`, `virtio/express` and the storage port. All other requests, and every error, are
`virtio/blk.py`'s. A test compares the two. Clauses: VIRTIO 1.2, 5.2.6.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from qemu_odx.virtio.express import LIMITS, NEXT_WRITE, TRIPLE, Lane, descriptors_of, gather
from qemu_odx.wire.virtio.blk import HEADER, HEADER_SIZE, SECTOR, RequestType, Status
from qemu_odx.wire.virtio.ring import F_NEXT, F_WRITE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from qemu_odx.disk.port import Disk, Io
    from qemu_odx.virtio.express import End, Flat
    from qemu_odx.virtio.memory import Window
    from qemu_odx.virtio.port import Ring

_IN: Final = int(RequestType.IN)
_OUT: Final = int(RequestType.OUT)


class BlkExpress(Lane):
    """The express lane of one queue.

    Args:
        disk: where the data are.
        ring: the queue's ring.
        may_write: whether a write is complete without a flush.
    """

    def __init__(self, disk: Disk, ring: Ring, may_write: Callable[[], bool]) -> None:
        super().__init__(ring, bytes([Status.OK]))
        self._disk = disk
        self._may_write = may_write

    def _parse(self, heads: Sequence[int], window: Window) -> Iterable[tuple[Disk, list[Io], list[End]]]:
        base, size, ram = window
        mask, disk_size, may_write = self._disk.block_size - 1, self._disk.size, self._may_write()
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
                ends.append((head, length + 1, status))
            elif kind == _OUT and flags == F_NEXT and may_write and length <= LIMITS[_OUT]:
                batch.append((True, offset, length, views))
                ends.append((head, 1, status))
        return ((self._disk, batch, ends),) if batch else ()


def _pieces(flat: Flat, window: Window) -> tuple[list[memoryview], int, int] | None:
    """Buffers, length and the flags of data in many pieces, if all have the same flags."""
    flags = set(flat[6:-4:4])
    found = gather(flat, 1, len(flat) // 4 - 1, window)
    if found is None or len(flags) != 1:
        return None
    return *found, flags.pop()
