"""The express lane of virtio-blk: a batch of plain reads and writes, done in one go.

Imports `wire/virtio/{ring,blk}`, `virtio/{express,port}` and the storage port. What it does not take (other shapes,
other commands, whatever is wrong, whatever would wait) is returned untouched and goes through `virtio/blk.py`, which
gives every answer; what it takes ends as there. A test compares the two. Clauses: VIRTIO 1.2, 5.2.6.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from qemu_odx.virtio.express import NEXT_WRITE, triples
from qemu_odx.wire.virtio.blk import HEADER, HEADER_SIZE, SECTOR, RequestType, Status
from qemu_odx.wire.virtio.ring import F_NEXT, F_WRITE

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from qemu_odx.disk.port import Disk, Io
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
        for head, triple in zip(heads, triples(heads, self._ring, window), strict=True):
            if triple is None:
                continue
            header, header_length, _, _, data, length, flags, _, status, status_length, last_flags, _ = triple
            header -= base
            data -= base
            status -= base
            if (
                header_length != HEADER_SIZE
                or status_length != 1
                or last_flags != F_WRITE
                or not 0 < length <= LIMIT
                or not (0 <= header <= last_header and 0 <= data <= size - length and 0 <= status < size)
            ):
                continue
            kind, _, sector = unpack(ram, header)
            offset = sector * SECTOR
            if (offset | length) & mask or offset + length > disk_size:
                continue
            if kind == _IN and flags == NEXT_WRITE:
                batch.append((False, offset, length, [ram[data : data + length]]))
                ends.append((head, length + 1, status))
            elif kind == _OUT and flags == F_NEXT and may_write:
                batch.append((True, offset, length, [ram[data : data + length]]))
                ends.append((head, 1, status))
        return batch, ends
