"""A disk with a mailbox window in it: reads, writes and discards are cut at its edges.

Imports `wire/mailbox`, `virtio/{chain,mailbox}` and `disk/dispatch`, whose place it takes in `virtio/blk.py` if there
is a mailbox: parts outside the window go on to the disk, parts inside to the mailbox, one after the other.
"""

from __future__ import annotations

from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING

from qemu_odx.virtio.chain import split
from qemu_odx.wire.mailbox import WINDOW

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from qemu_odx.disk.dispatch import DiskQueue, Done
    from qemu_odx.disk.port import Io
    from qemu_odx.virtio.mailbox import Mailbox, Stamp

    Job = Callable[[Done], None]


class Window:
    """Requests to a disk and to the mailbox in it.

    Args:
        io: the disk's.
        mailbox: knows where its window is.
    """

    def __init__(self, io: DiskQueue, mailbox: Mailbox) -> None:
        self._io = io
        self._mailbox = mailbox
        self._start = mailbox.offset
        self._end = mailbox.offset + WINDOW

    # -- as disk/dispatch.DiskQueue ----------------------------------------------------------------

    def read(self, offset: int, into: list[memoryview], done: Done) -> None:
        """Fill the buffers from `offset` on."""
        self._transfer(self._io.read, self._mailbox.read, offset, into, done)

    def write(self, offset: int, data: list[memoryview], done: Done, stamp: Stamp | None = None) -> None:
        """Write the buffers from `offset` on; a request in them, known by `stamp`, is executed before `done`."""
        self._transfer(self._io.write, partial(self._mailbox.write, stamp=stamp), offset, data, done)

    def flush(self, done: Done) -> None:
        """Put every request that is done on stable storage."""
        self._io.flush(done)

    def discard(self, offset: int, length: int, done: Done) -> None:
        """Give the range back to the file system, except what lies in the window."""
        parts = self._cut(offset, length)
        _in_turn((partial(self._io.discard, at, size) for at, size, inside in parts if not inside), done)

    def write_zeroes(self, offset: int, length: int, done: Done, *, unmap: bool) -> None:
        """Zero the range, except what lies in the window."""
        zero = partial(self._io.write_zeroes, unmap=unmap)
        parts = self._cut(offset, length)
        _in_turn((partial(zero, at, size) for at, size, inside in parts if not inside), done)

    # -- as virtio/blk_express.BlkStore ------------------------------------------------------------

    @property
    def block_size(self) -> int:
        """The disk's."""
        return self._io.block_size

    @property
    def size(self) -> int:
        """The disk's."""
        return self._io.size

    def try_batch(self, batch: Sequence[Io]) -> Sequence[int]:
        """As the disk; a batch that touches the window goes the ordinary way as a whole."""
        if any(self._touches(offset, length) for _, offset, length, _ in batch):
            return range(len(batch))
        return self._io.try_batch(batch)

    def read_beside(self, offset: int, into: Sequence[memoryview], length: int, done: Done) -> bool:
        """As the disk's queue, outside of the window."""
        return not self._touches(offset, length) and self._io.read_beside(offset, into, length, done)

    def holds(self, offset: int, length: int) -> bool:
        """True if the whole range lies in the window."""
        return self._start <= offset <= offset + length <= self._end

    # -- inside ------------------------------------------------------------------------------------

    def _touches(self, offset: int, length: int) -> bool:
        return offset < self._end and self._start < offset + length

    def _cut(self, offset: int, length: int) -> Iterator[tuple[int, int, bool]]:
        """The range cut at the edges, ascending: offset, length, whether it lies inside the window."""
        end = offset + length
        edges = {offset, end, *(edge for edge in (self._start, self._end) if offset < edge < end)}
        for first, last in pairwise(sorted(edges)):
            yield first, last - first, self._start <= first < self._end

    def _transfer(
        self,
        disk: Callable[[int, list[memoryview], Done], None],
        mailbox: Callable[[int, list[memoryview], Done], None],
        offset: int,
        views: list[memoryview],
        done: Done,
    ) -> None:
        length = sum(map(len, views))
        if not self._touches(offset, length):
            disk(offset, views, done)
            return
        jobs: list[Job] = []
        for at, size, inside in self._cut(offset, length):
            part, views = split(views, size)
            jobs.append(partial(mailbox, at - self._start, part) if inside else partial(disk, at, part))
        _in_turn(iter(jobs), done)


def _in_turn(jobs: Iterator[Job], done: Done, error: int = 0) -> None:
    """Run each job when the one before is done; the first failure ends it."""
    job = None if error else next(jobs, None)
    if job is None:
        done(error)
    else:
        job(partial(_in_turn, jobs, done))
