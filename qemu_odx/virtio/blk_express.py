"""The express lane of virtio-blk: a batch of plain reads and writes, done in one go.

Imports `wire/virtio/{ring,blk}`, `virtio/{express,port}` and the storage port. What it does not take (other shapes,
other commands, whatever is wrong, whatever would wait) is returned untouched and goes through `virtio/blk.py`, which
gives every answer; what it takes ends as there. A test compares the two. Clauses: VIRTIO 1.2, 5.2.6.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from qemu_odx.virtio.express import NEXT_WRITE, TRIPLE, descriptors_of, gather
from qemu_odx.wire.virtio.blk import HEADER, HEADER_SIZE, SECTOR, RequestType, Status
from qemu_odx.wire.virtio.ring import F_NEXT, F_WRITE

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from qemu_odx.disk.port import Disk, Io
    from qemu_odx.virtio.express import Flat
    from qemu_odx.virtio.memory import Window
    from qemu_odx.virtio.port import Ring

LIMIT: Final = 256 << 10
"""Bytes of the longest request that is done here: longer ones would keep the other queues waiting."""
_IN, _OUT, _OK = int(RequestType.IN), int(RequestType.OUT), int(Status.OK)


class BlkExpress:
    """The express lane of one queue.

    Args:
        disk: where the data are.
        ring: the queue's ring.
        may_write: whether a write is complete without a flush.
    """

    def __init__(self, disk: Disk, ring: Ring, may_write: Callable[[], bool]) -> None:
        self._disk = disk
        self._ring = ring
        self._may_write = may_write

    def __call__(self, heads: Sequence[int], done: list[int]) -> Sequence[int]:
        """Execute what is plain; see `virtio/queue.Express`."""
        memory = self._ring.memory
        if memory.mark_written is not None:
            return heads
        ram = memory.recent[2]
        batch, ends = self._parse(heads)
        left = self._disk.try_batch(batch) if batch else ()
        for place in reversed(left):
            del ends[place]
        for head, written, status in ends:
            ram[status] = _OK
            done += (head, written)
        if len(ends) == len(heads):
            return ()
        served = {head for head, _, _ in ends}
        return [head for head in heads if head not in served]

    def _parse(self, heads: Sequence[int]) -> tuple[list[Io], list[tuple[int, int, int]]]:
        """The plain requests as I/O, and of each: its head, used length, and place of the status byte in the window.

        Everything is compared in the copy that was made: what the guest writes meanwhile changes nothing.
        """
        window = base, size, ram = self._ring.memory.recent
        mask, disk_size, may_write = self._disk.block_size - 1, self._disk.size, self._may_write()
        unpack, last_header = HEADER.unpack_from, size - HEADER_SIZE
        batch: list[Io] = []
        ends: list[tuple[int, int, int]] = []
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
            if length > LIMIT or not (0 <= header <= last_header and 0 <= status < size):
                continue
            kind, _, sector = unpack(ram, header)
            offset = sector * SECTOR
            if (offset | length) & mask or offset + length > disk_size:
                continue
            if kind == _IN and flags == NEXT_WRITE:
                batch.append((False, offset, length, views))
                ends.append((head, length + 1, status))
            elif kind == _OUT and flags == F_NEXT and may_write:
                batch.append((True, offset, length, views))
                ends.append((head, 1, status))
        return batch, ends


def _pieces(flat: Flat, window: Window) -> tuple[list[memoryview], int, int] | None:
    """Buffers, length and the flags of data in many pieces, if all have the same flags."""
    flags = set(flat[6:-4:4])
    found = gather(flat, 1, len(flat) // 4 - 1, window)
    if found is None or len(flags) != 1:
        return None
    return *found, flags.pop()
