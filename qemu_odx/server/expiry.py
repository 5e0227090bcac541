"""Ends tokens when their time is over, at the moment and not before somebody asks.

Imports the copy manager and the clock. Without tokens nothing is due and the loop sleeps.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from qemu_odx.server.clock import Clock
    from qemu_odx.server.loop import Timer
    from qemu_odx.target.manager import CopyManager


class Expiry:
    """Calls the copy manager's `tick` at every deadline of its tokens."""

    def __init__(self, manager: CopyManager, clock: Clock) -> None:
        self._manager = manager
        self._clock = clock
        self._due: float | None = None
        self._timer: Timer | None = None
        manager.tokens.rescheduled = self._arm
        self._arm()

    def _arm(self) -> None:
        due = self._manager.tokens.next_deadline()
        if due is None or (self._due is not None and self._due <= due):
            return
        if self._timer:
            self._timer.cancel()
        self._due = due
        self._timer = self._clock.call_later(max(0.0, due - self._clock()), self._ring)

    def _ring(self) -> None:
        self._due = self._timer = None
        self._manager.tick()
        self._arm()
