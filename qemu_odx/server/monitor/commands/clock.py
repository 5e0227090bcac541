"""Commands on the clock.

Imports `server/clock.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

from qemu_odx.server.clock import VirtualClock
from qemu_odx.server.monitor.errors import MonitorError

if TYPE_CHECKING:
    from qemu_odx.server.backend import Backend

Kind: TypeAlias = Literal["real", "virtual"]
MOST_SECONDS = 10.0 * 366 * 86400
"""The furthest that one command advances."""


@dataclass(frozen=True, slots=True)
class ClockInfo:
    """A clock.

    Attributes:
        clock: `real`: the system's. `virtual`: it passes only when told to.
        now: seconds; from the server's start on if it is virtual.
        waiting: calls that are due at some later time; virtual only.
        next: seconds until the first of them; virtual only.
    """

    clock: Kind
    now: float
    waiting: int | None = None
    next: float | None = None


@dataclass(frozen=True, slots=True)
class Advanced:
    """What happened meanwhile.

    Attributes:
        now: seconds, after the advance.
        calls: how many delayed things came due.
    """

    now: float
    calls: int


def query(backend: Backend) -> ClockInfo:
    """The clock of token expiry, inactivity and every delay.

    Example:
        -> {"execute": "query-odx-clock"}
        <- {"return": {"clock": "virtual", "now": 12.5, "waiting": 1, "next": 47.5}}
    """
    clock = backend.clock
    if isinstance(clock, VirtualClock):
        return ClockInfo("virtual", clock(), clock.waiting, clock.next_due)
    return ClockInfo("real", clock())


def advance(backend: Backend, seconds: float = 0.0, milliseconds: int = 0) -> Advanced:
    """Lets time pass, with all that comes due on the way, in its order. Needs `qemu-odx serve --clock virtual`.

    Args:
        seconds: how long.
        milliseconds: these on top.

    Example:
        -> {"execute": "odx-clock-advance", "arguments": {"seconds": 60}}
        <- {"return": {"now": 72.5, "calls": 1}}
    """
    clock = backend.clock
    if not isinstance(clock, VirtualClock):
        raise MonitorError("the clock is the system's and passes by itself: start with --clock virtual")
    total = seconds + milliseconds / 1000
    if not 0 <= total <= MOST_SECONDS:
        raise MonitorError(f"'seconds' must be from 0 to {MOST_SECONDS:.0f}: time does not go back")
    return Advanced(calls=clock.advance(total), now=clock())
