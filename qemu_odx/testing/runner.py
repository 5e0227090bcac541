"""Runners for tests: jobs run at once, or when the test says so; everything on the test's own thread.

May import `disk/port.py`. They stand in for `server/workers.py`.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

T = TypeVar("T")


class InlineRunner:
    """Runs each job before `run` returns."""

    def read(
        self, fd: int, offset: int, into: Sequence[memoryview], done: Callable[[int], None], *, apart: bool
    ) -> bool:
        """Never: everything is a job."""
        del fd, offset, into, done, apart
        return False

    def run(self, job: Callable[[], T], done: Callable[[T | BaseException], None]) -> None:
        """Run the job, then call `done` with its result or its exception."""
        try:
            result: T | BaseException = job()
        except BaseException as error:  # noqa: BLE001 - handed on, as a worker does
            result = error
        done(result)


class HeldRunner:
    """Keeps each job until the test lets it run, to look at the time between."""

    def __init__(self) -> None:
        self._jobs: deque[Callable[[], None]] = deque()

    def __len__(self) -> int:
        return len(self._jobs)

    def read(
        self, fd: int, offset: int, into: Sequence[memoryview], done: Callable[[int], None], *, apart: bool
    ) -> bool:
        """Never: everything is a job."""
        del fd, offset, into, done, apart
        return False

    def run(self, job: Callable[[], T], done: Callable[[T | BaseException], None]) -> None:
        """Put the job behind the others."""
        self._jobs.append(lambda: InlineRunner().run(job, done))

    def step(self) -> None:
        """Run the oldest job. Raises IndexError if there is none."""
        self._jobs.popleft()()

    def run_all(self) -> None:
        """Run jobs, also those that they cause, until none is left."""
        while self._jobs:
            self.step()
