"""Worker threads for slow disk work: the `Runner` of `disk/port.py`.

Imports the storage port's types and `server/loop.py`. A hand-over and back costs some 55 µs, so callers send
only what may wait for a device. Completions run on the event loop.
"""

from __future__ import annotations

import functools
import logging
import os
import queue
import threading
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

    from qemu_odx.server.loop import Loop

log = logging.getLogger(__name__)

T = TypeVar("T")

DEFAULT_THREADS = min(16, 4 + (os.cpu_count() or 1))
"""More than the processors: workers mostly wait for the disk."""


class Workers:
    """A fixed number of threads taking jobs in order. The queue is bounded by the rings that feed it."""

    def __init__(self, loop: Loop, threads: int = DEFAULT_THREADS) -> None:
        self._loop = loop
        self._jobs: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._threads = [
            threading.Thread(target=self._work, name=f"odx-worker-{number}", daemon=True)
            for number in range(threads)
        ]
        for thread in self._threads:
            thread.start()

    def run(self, job: Callable[[], T], done: Callable[[T | BaseException], None]) -> None:
        """Run `job` on a worker; then call `done` on the event loop with its result or its exception."""
        self._jobs.put(functools.partial(self._run_one, job, done))

    def close(self) -> None:
        """Finish every job handed over, then end the threads. Their completions still need the loop."""
        for _ in self._threads:
            self._jobs.put(None)
        for thread in self._threads:
            thread.join()

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
        self._loop.call_soon(functools.partial(done, result))
