"""The clock of everything that expires or delays: the system's, or one that passes only when told to.

Imports `server/loop.py`. Handed to the copy manager and to whoever waits; a test with the virtual one sees in
milliseconds what takes hours, and the same every time.
"""

from __future__ import annotations

import heapq
import itertools
import math
import time
from typing import TYPE_CHECKING, Protocol

from qemu_odx.server.loop import Timer, guarded

if TYPE_CHECKING:
    from collections.abc import Callable

    from qemu_odx.server.loop import Loop

_NANOSECONDS = 1_000_000_000
_STEPS = 1 << 20
"""Steps in which a virtual second is seen: their sums with whole seconds are exact, so nothing ends a little late."""


class Clock(Protocol):
    """Seconds, monotonic, and calls that are due at some of them."""

    def __call__(self) -> float:
        """The time in seconds, from some beginning on."""

    def call_later(self, delay: float, callback: Callable[[], None]) -> Timer:
        """Run `callback` once on the event loop, `delay` seconds from now; `cancel` the timer any time."""


class RealClock:
    """The system's monotonic clock."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop

    def __call__(self) -> float:
        """Seconds."""
        return time.monotonic()

    def call_later(self, delay: float, callback: Callable[[], None]) -> Timer:
        """See `Clock`."""
        return self._loop.call_later(delay, callback)


def _nothing() -> None:
    """Nobody wants to know."""


class VirtualClock:
    """Begins at 0 and stands still but for `advance`. Counts whole nanoseconds: many small steps make no error.

    Attributes:
        moved: called when time has passed.
    """

    def __init__(self) -> None:
        self._now = 0
        self._timers: list[tuple[int, int, Timer]] = []
        self._sequence = itertools.count()
        self.moved: Callable[[], None] = _nothing

    def __call__(self) -> float:
        """Seconds."""
        return self._now * _STEPS // _NANOSECONDS / _STEPS

    def call_later(self, delay: float, callback: Callable[[], None]) -> Timer:
        """See `Clock`."""
        timer = Timer(callback)
        due = self._now + max(0, math.ceil(delay * _NANOSECONDS))
        heapq.heappush(self._timers, (due, next(self._sequence), timer))
        return timer

    def advance(self, seconds: float) -> int:
        """Let time pass: what is due on the way is called at its own time, in order; how many calls that were.

        What a call makes due within these seconds is called too. Do not call it from such a call.
        """
        end = self._now + round(seconds * _NANOSECONDS)
        calls = 0
        while self._timers and self._timers[0][0] <= end:
            due, _, timer = heapq.heappop(self._timers)
            self._now = max(self._now, due)
            callback, timer.callback = timer.callback, None
            if callback:
                calls += 1
                guarded(callback)
        self._now = end
        self.moved()
        return calls

    @property
    def waiting(self) -> int:
        """Calls that are still to come."""
        return sum(1 for _, _, timer in self._timers if timer.callback)

    @property
    def next_due(self) -> float | None:
        """Seconds until the next call; None if nothing waits."""
        due = [due for due, _, timer in self._timers if timer.callback]
        return (min(due) - self._now) / _NANOSECONDS if due else None
