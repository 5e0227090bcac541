"""What faults hold requests with: places where they wait, deeds that are done on the way, one after the other.

Imports `tap/decision`. A hold belongs to one exchange; the tap says when that has ended. Next: `decide.py` puts
them into a `Decision`.
"""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from qemu_odx.faults.book import Entry
    from qemu_odx.tap.decision import Hold, Later


@dataclass(slots=True, eq=False)
class Parking:
    """Where the requests of one rule wait until it is released; what comes to it after that does not wait.

    Attributes:
        entry: the rule; `entry.held` is kept up to date.
    """

    entry: Entry
    _released: bool = False
    _waiting: dict[Parked, Callable[[], None]] = field(default_factory=dict)

    def enter(self, parked: Parked, go_on: Callable[[], None]) -> None:
        """One more waits, if the rule was not released since it hit."""
        if self._released:
            go_on()
            return
        self._waiting[parked] = go_on
        self.entry.held = len(self._waiting)

    def leave(self, parked: Parked) -> Callable[[], None] | None:
        """It waits no longer; what would let it go on, None if it did not wait."""
        go_on = self._waiting.pop(parked, None)
        self.entry.held = len(self._waiting)
        return go_on

    def release(self) -> None:
        """All go on, in the order in which they came."""
        self._released = True
        waiting, self._waiting = self._waiting, {}
        self.entry.held = 0
        for go_on in waiting.values():
            go_on()


@dataclass(slots=True, eq=False)
class Parked:
    """Waits in a parking.

    Attributes:
        outlasts_stop: see `tap/decision.Hold`: True for what is never to be answered.
    """

    parking: Parking
    outlasts_stop: bool = False

    def keep(self, go_on: Callable[[], None], later: Later) -> None:
        """Wait for the release."""
        del later
        self.parking.enter(self, go_on)

    def go_on(self) -> None:
        """Wait no longer."""
        if go_on := self.parking.leave(self):
            go_on()

    def end(self) -> None:
        """The exchange has ended."""
        self.parking.leave(self)


@dataclass(slots=True, eq=False)
class Deed:
    """Does something at once and goes on, if the process is still there."""

    do: Callable[[], None]
    outlasts_stop: bool = field(default=False, init=False)

    def keep(self, go_on: Callable[[], None], later: Later) -> None:
        """Do it."""
        del later
        self.do()
        go_on()


@dataclass(slots=True, eq=False)
class InTurn:
    """Several holds of one exchange, one after the other; none begins any more once that has ended."""

    holds: Sequence[Hold]
    outlasts_stop: bool = field(init=False)
    _over: bool = False

    def __post_init__(self) -> None:
        self.outlasts_stop = any(hold.outlasts_stop for hold in self.holds)

    def keep(self, go_on: Callable[[], None], later: Later) -> None:
        """Begin with the first."""
        self._from(0, go_on, later)

    def _from(self, place: int, go_on: Callable[[], None], later: Later) -> None:
        if self._over:
            return
        if place == len(self.holds):
            go_on()
        else:
            self.holds[place].keep(partial(self._from, place + 1, go_on, later), later)

    def end(self) -> None:
        """The exchange has ended."""
        self._over = True
        for hold in self.holds:
            if isinstance(hold, Parked):
                hold.end()


def kill_backend() -> None:
    """End this process as a crash would: no clean-up of any kind."""
    os.kill(os.getpid(), signal.SIGKILL)
