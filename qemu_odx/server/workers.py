"""Worker threads for slow disk work: the `Runner` of `disk/port.py`.

Imports `server/loop.py` and `server/uring.py`. A hand-over and back costs some 55 µs, so
callers send only what may wait for a device. Completions run on the event loop.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import queue
import threading
from typing import TYPE_CHECKING, TypeVar

from qemu_odx.server.uring import Uring

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from qemu_odx.server.loop import Loop

log = logging.getLogger(__name__)

T = TypeVar("T")

DEFAULT_THREADS = min(16, 4 + (os.cpu_count() or 1))
"""More than the processors: workers mostly wait for the disk."""


_BACK_OFF = 0.001


class Workers:
    """A fixed number of threads taking jobs in order. The queue is bounded by the rings that feed it."""

    def __init__(self, loop: Loop, threads: int = DEFAULT_THREADS, *, io_uring: bool = True) -> None:
        self._loop = loop
        self._jobs: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._threads = [
            threading.Thread(target=self._work, name=f"odx-worker-{number}", daemon=True)
            for number in range(threads)
        ]
        for thread in self._threads:
            thread.start()
        self._ring: Uring | None = None
        if io_uring:
            with contextlib.suppress(OSError):
                self._ring = Uring()
                loop.watch(self._ring.eventfd, self._reap)

    def read(
        self, fd: int, offset: int, into: Sequence[memoryview], done: Callable[[int], None], *, apart: bool
    ) -> bool:
        """By io_uring, where there is one: handed over at the end of the loop's turn, all in one call."""
        ring = self._ring
        if ring is None:
            return False
        first = not ring.queued
        started = ring.read(fd, offset, into, self._job_ended(done) if apart else done, apart=apart)
        if started and first:
            self._loop.at_turn_end(self._hand_over)
        self._loop.polling.jobs += started and apart
        return started

    def _job_ended(self, done: Callable[[int], None]) -> Callable[[int], None]:
        """`done`, and one job less."""

        def ended(result: int) -> None:
            self._loop.polling.jobs -= 1
            done(result)

        return ended

    def run(self, job: Callable[[], T], done: Callable[[T | BaseException], None]) -> None:
        """Run `job` on a worker; then call `done` on the event loop with its result or its exception."""
        self._loop.polling.jobs += 1
        self._jobs.put(functools.partial(self._run_one, job, done))

    def close(self) -> None:
        """Finish every job handed over, then end the threads. Their completions still need the loop."""
        for _ in self._threads:
            self._jobs.put(None)
        for thread in self._threads:
            thread.join()
        if self._ring:
            self._loop.unwatch(self._ring.eventfd)
            self._ring.close()
            self._ring = None

    def _hand_over(self) -> None:
        if self._ring and not self._ring.submit():
            self._loop.call_later(_BACK_OFF, self._hand_over)

    def _reap(self) -> None:
        """One failure of ours must not take the completions of the others with it."""
        for done, result in self._ring.reap() if self._ring else ():
            try:
                done(result)
            except Exception:
                log.exception("internal error: a completion failed")

    def _work(self) -> None:
        while (work := self._jobs.get()) is not None:
            work()
            del work  # A job holds guest memory: let go of it before waiting for the next one.

    def _run_one(self, job: Callable[[], T], done: Callable[[T | BaseException], None]) -> None:
        result: T | BaseException
        try:
            result = job()
        except BaseException as error:  # noqa: BLE001  # handed to whoever asked, whatever it is
            result = error
        self._loop.call_soon(functools.partial(self._ended, done, result))
        del result  # An exception knows this frame: together they would keep the job's memory mapped.

    def _ended(self, done: Callable[[T | BaseException], None], result: T | BaseException) -> None:
        self._loop.polling.jobs -= 1
        done(result)
