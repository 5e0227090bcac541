"""Expiry: an inactivity timeout ends a token, its use gives it a new one, and its death is remembered."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from qemu_odx.testing.conformance.bench import CheckSkippedError
from qemu_odx.testing.conformance.checks.family import Family
from qemu_odx.testing.conformance.checks.faults import TOKEN_EXPIRED

if TYPE_CHECKING:
    from collections.abc import Callable

    from qemu_odx.testing.conformance.bench import Bench
    from qemu_odx.testing.initiator import Answer

FAMILY = Family("expiry")
CLAUSE = "SPC-4 5.17.6.7"
TO = 400
_SHORT = 2
"""Seconds: long enough to be told from the time that commands take, short enough to wait for."""
_ATTEMPTS = 5


def _wait(b: Bench, seconds: float) -> None:
    if seconds > b.device.patience:
        raise CheckSkippedError(f"would wait for {seconds:.0f} s")
    b.device.sleep(seconds)


def _good_in_time(b: Bench, seconds: float, use: Callable[[], Answer]) -> None:
    """A use of a token ends with GOOD if all took less than so many seconds; else it is tried again.

    A host that stood still meanwhile, as virtual machines do, is not the device's fault.
    """
    for _ in range(_ATTEMPTS):
        began = time.monotonic()
        answer = use()
        if answer.good or time.monotonic() - began < seconds:
            break
    b.good(answer)


@FAMILY.add(CLAUSE, destructive=True)
def unused_token_expires(b: Bench) -> None:
    """A token not used for its INACTIVITY TIMEOUT has expired, and says so; no block moves."""
    unit = b.first
    old = b.fill(unit, TO, 4, "old")
    token = b.token(unit, (16, 4), timeout=_SHORT)
    _wait(b, _SHORT + 1)
    b.refused(b.write(unit, token, (TO, 4)), TOKEN_EXPIRED)
    b.holds(unit, TO, old, "what was there")


@FAMILY.add(CLAUSE, destructive=True)
def not_too_early(b: Bench) -> None:
    """Before that it can be used."""

    def use() -> Answer:
        token = b.token(b.first, (16, 4), timeout=2 * _SHORT)
        _wait(b, _SHORT)
        return b.write(b.first, token, (TO, 4))

    _good_in_time(b, 2 * _SHORT, use)


@FAMILY.add(CLAUSE, destructive=True)
def use_starts_the_timer_anew(b: Bench) -> None:
    """Each use starts the timer again; without use the token then expires."""
    pause, token = _SHORT * 0.75, b""

    def use() -> Answer:
        nonlocal token
        token = b.token(b.first, (16, 4), timeout=_SHORT)
        for _ in range(3):
            _wait(b, pause)
            answer = b.write(b.first, token, (TO, 4))
            if not answer.good:
                break
        return answer

    _good_in_time(b, 2 * pause + _SHORT, use)  # then no pause was too long
    _wait(b, _SHORT + 1)
    b.refused(b.write(b.first, token, (TO, 4)), TOKEN_EXPIRED)


@FAMILY.add(CLAUSE, destructive=True)
def each_token_has_its_own_time(b: Bench) -> None:
    """A token that expires takes no other with it."""

    def use() -> Answer:
        long, short = b.token(b.first, (16, 4), timeout=10 * _SHORT), b.token(b.first, (16, 4), timeout=1)
        _wait(b, _SHORT)
        b.refused(b.write(b.first, short, (TO, 4)), TOKEN_EXPIRED)
        return b.write(b.first, long, (TO, 4))

    _good_in_time(b, 10 * _SHORT, use)


@FAMILY.add("SPC-4 5.17.6.5", destructive=True)
def death_is_remembered(b: Bench) -> None:
    """As long after its death as it lived, the token is still known as expired, not as unknown."""
    token = b.token(b.first, (16, 4), timeout=_SHORT)
    _wait(b, 2 * _SHORT)
    b.refused(b.write(b.first, token, (TO, 4)), TOKEN_EXPIRED)


@FAMILY.add("SBC-5 5.12, 6.6.9", destructive=True)
def zero_asks_for_the_default(b: Bench) -> None:
    """INACTIVITY TIMEOUT 0 gives the DEFAULT INACTIVITY TIMER of VPD 8Fh, no more and no less."""
    default = b.first.default_inactivity
    if not default:
        raise CheckSkippedError("the device tells no DEFAULT INACTIVITY TIMER")
    token = b""

    def use() -> Answer:
        nonlocal token
        token = b.token(b.first, (16, 4))
        _wait(b, default * 0.75)
        return b.write(b.first, token, (TO, 4))

    _good_in_time(b, default, use)
    _wait(b, default + 1)
    b.refused(b.write(b.first, token, (TO, 4)), TOKEN_EXPIRED)
