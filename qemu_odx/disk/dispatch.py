"""Where the I/O of one device runs: small and cached on the event loop, the rest beside it.

A thread hand-off costs ten times a cached 4 KiB read, so only what may wait for the host goes to the runner, and long
reads, which others can copy meanwhile.
May import `port.py`. Next: `done` of the device writes the status and the used ring.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from qemu_odx.disk.hostfile import total

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from qemu_odx.disk.port import Disk, Io, Runner

    Done = Callable[[int], None]
    """Called once, on the event loop's thread, with 0 or an errno; perhaps before the call returns."""

INLINE_LIMIT = 1 << 20
"""Bytes of the longest transfer on the event loop. Copying so many takes some 100 µs; threads, which have to take
turns with the interpreter, move less in the same time on two processors."""
LONG_READ = 1 << 18
"""Bytes of the shortest read that the runner does apart, if it can, without a try at the page cache: copying so
many costs more than the way there and back."""
TRY_AGAIN = 64
"""Reads that are done beside the loop, at once, after one that was not cached."""


class DiskQueue:
    """The requests of one device queue to one disk; all its methods are called on the event loop's thread."""

    def __init__(self, disk: Disk, runner: Runner, *, inline_limit: int = INLINE_LIMIT) -> None:
        self.disk = disk
        self._runner = runner
        self._inline_limit = inline_limit
        self._pending = 0
        self._misses = 0
        self._on_idle: list[Callable[[], None]] = []

    @property
    def block_size(self) -> int:
        """The disk's."""
        return self.disk.block_size

    @property
    def size(self) -> int:
        """The disk's."""
        return self.disk.size

    @property
    def idle(self) -> bool:
        """True if no request is on a worker."""
        return self._pending == 0

    def drain(self, callback: Callable[[], None]) -> None:
        """Call `callback` once no request is on a worker: at once, or after the last `done`."""
        if self._pending:
            self._on_idle.append(callback)
        else:
            callback()

    def read(self, offset: int, into: Sequence[memoryview], done: Done) -> None:
        """Fill the buffers from `offset` on."""
        length = total(into)
        if length >= LONG_READ and self.read_beside(offset, into, length, done):
            return
        if length > self._inline_limit:
            self._submit(lambda: self.disk.read(offset, into), done)
            return
        if self._misses:  # these come in rows: spare most of the vain tries
            self._misses -= 1
        else:
            try:
                found = self.disk.try_read(offset, into)
            except OSError as error:
                done(_errno(error))
                return
            if found:
                done(0)
                return
            self._misses = TRY_AGAIN
        if not self.read_beside(offset, into, length, done):
            self._submit(lambda: self.disk.read(offset, into), done)

    def write(self, offset: int, data: Sequence[memoryview | bytes], done: Done) -> None:
        """Write the buffers from `offset` on."""
        if total(data) > self._inline_limit or self.disk.stalled:
            self._submit(lambda: self.disk.write(offset, data), done)
            return
        try:
            self.disk.write(offset, data)
        except OSError as error:
            done(_errno(error))
            return
        done(0)

    def flush(self, done: Done) -> None:
        """Put every request that is done on stable storage."""
        self._submit(self.disk.flush, done)

    def discard(self, offset: int, length: int, done: Done) -> None:
        """Give the range back to the file system."""
        self._submit(lambda: self.disk.discard(offset, length), done)

    def write_zeroes(self, offset: int, length: int, done: Done, *, unmap: bool) -> None:
        """Zero the range; `unmap` allows freeing the space."""
        self._submit(lambda: self.disk.write_zeroes(offset, length, unmap=unmap), done)

    def try_batch(self, batch: Sequence[Io]) -> Sequence[int]:
        """As the disk's; what is left of reads is best done by `read_beside`."""
        if not self._misses:
            left = self.disk.try_batch(batch)
            if self.disk.descriptor is not None and any(not batch[place][0] for place in left):
                self._misses = TRY_AGAIN
            return left
        writes = [place for place, io in enumerate(batch) if io[0]]
        self._misses = max(0, self._misses - len(batch) + len(writes))
        done = set(writes)
        if writes:
            done.difference_update(writes[n] for n in self.disk.try_batch([batch[place] for place in writes]))
        return [place for place in range(len(batch)) if place not in done]

    def read_beside(self, offset: int, into: Sequence[memoryview], length: int, done: Done) -> bool:
        """By the runner's own means, and if that ends badly by a worker; False: it has none now."""

        def ended(result: int) -> None:
            self._pending -= 1
            if result == length:
                self._end(done, 0)
            else:
                self._submit(lambda: self.disk.read(offset, into), done)

        fd = self.disk.descriptor
        if fd is None or not self._runner.read(fd, offset, into, ended, apart=length >= LONG_READ):
            return False
        self._pending += 1
        return True

    def _submit(self, job: Callable[[], None], done: Done) -> None:
        def finished(result: BaseException | None) -> None:
            self._pending -= 1
            self._end(done, 0 if result is None else _errno(result))

        self._pending += 1
        self._runner.run(job, finished)

    def _end(self, done: Done, error: int) -> None:
        try:
            done(error)
        finally:
            if not self._pending:
                self._tell_idle()

    def _tell_idle(self) -> None:
        callbacks, self._on_idle = self._on_idle, []
        for callback in callbacks:
            callback()


def _errno(error: BaseException) -> int:
    """The errno of a failure; whatever else went wrong in a job is an I/O error to the guest."""
    return (isinstance(error, OSError) and error.errno) or errno.EIO
