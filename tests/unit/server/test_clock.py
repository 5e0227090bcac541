"""A clock that passes only when told to."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qemu_odx.server.clock import VirtualClock
from qemu_odx.server.expiry import Expiry
from qemu_odx.target.manager import CopyManager
from qemu_odx.testing.runner import InlineRunner
from qemu_odx.tokens.token import Fault, Token
from qemu_odx.wire.scsi.rod_token import RodType, TokenHeader


def test_calls_come_in_their_order_at_their_time() -> None:
    """Also those that a call makes due; what was cancelled never comes."""
    clock, seen = VirtualClock(), []

    def note(name: str) -> None:
        seen.append((name, clock()))
        if name == "b":
            clock.call_later(0.5, lambda: note("between"))

    clock.call_later(3, lambda: note("c"))
    clock.call_later(1, lambda: note("b"))
    clock.call_later(1, lambda: note("b2"))
    clock.call_later(2, lambda: note("never")).cancel()
    assert (clock.waiting, clock.next_due) == (3, 1)
    assert clock.advance(0.999) == 0
    assert clock.advance(1.001) == 3
    assert seen == [("b", 1), ("b2", 1), ("between", 1.5)]
    assert clock() == 2
    assert clock.advance(10) == 1
    assert (clock(), clock.waiting, clock.next_due) == (12, 0, None)


def test_a_call_that_fails_does_not_stop_time() -> None:
    """It is logged, as on the event loop."""
    clock, seen = VirtualClock(), []
    clock.call_later(1, lambda: 1 // 0)
    clock.call_later(2, lambda: seen.append(clock()))
    clock.advance(5)
    assert (seen, clock()) == ([2], 5)


def test_a_thousand_milliseconds_are_a_second() -> None:
    """Exactly."""
    clock = VirtualClock()
    for _ in range(1000):
        clock.advance(0.001)
    assert clock() == 1


def mint(manager: CopyManager, timeout: float, lifetime: float = 1e6) -> Token[object]:
    """A token of nothing."""
    identifier = manager.tokens.next_identifier()
    header = TokenHeader(RodType.POINT_IN_TIME_DEFAULT, identifier, bytes(32), 512, 512, bytes(3), b"")
    return manager.tokens.mint(
        header, Payload(), creator="d0", owner="me", inactivity_timeout=timeout, lifetime=lifetime
    )


class Payload:
    """What a token stands for."""

    released = 0
    lost = False

    def release(self) -> None:
        """Count."""
        Payload.released += 1


class Deaths:
    """Notes when tokens end."""

    def __init__(self, clock: VirtualClock) -> None:
        self._clock = clock
        self.at: list[tuple[float, Fault]] = []

    def minted(self, _token: object) -> None:
        """Nothing."""

    def ended(self, _token: object, cause: Fault) -> None:
        """Note it."""
        self.at.append((self._clock(), cause))


@given(
    st.lists(st.tuples(st.integers(0, 5000), st.integers(1, 600)), min_size=1, max_size=8),
    st.lists(st.integers(1, 90_000), min_size=1, max_size=20),
)
def test_every_token_ends_at_its_own_time(births: list[tuple[int, int]], steps: list[int]) -> None:
    """However time is cut: not a moment before, none after; nobody needs to ask."""
    clock = VirtualClock()
    manager = CopyManager(InlineRunner(), clock)
    Expiry(manager, clock)
    deaths = Deaths(clock)
    manager.tokens.observers.append(deaths)
    expected = []
    for milliseconds, timeout in births:
        clock.call_later(milliseconds / 1000, lambda timeout=timeout: mint(manager, timeout))
        expected.append(milliseconds / 1000 + timeout)
    for step in (*steps, 1_000_000):
        clock.advance(step / 1000)
    assert all(cause is Fault.EXPIRED for _, cause in deaths.at)
    ended = [time for time, _ in deaths.at]
    assert len(ended) == len(expected)
    assert all(abs(one - other) < 2e-6 for one, other in zip(ended, sorted(expected), strict=True))


@pytest.mark.parametrize(("start", "seconds"), [(0.1, 60), (0.128, 1), (0.7, 3)])
def test_to_the_second_is_not_a_moment_late(start: float, seconds: int) -> None:
    """So many seconds after an odd time, when they are over; floats alone would round some of these the wrong way."""
    clock = VirtualClock()
    manager = CopyManager(InlineRunner(), clock)
    Expiry(manager, clock)
    clock.advance(start)
    token = mint(manager, seconds)
    clock.advance(seconds - 0.001)
    assert manager.tokens.resolve(token.data) is token
    clock.advance(0.001)
    assert len(manager.tokens) == 0


def test_nothing_waits_while_there_is_no_token() -> None:
    """An idle server sleeps."""
    clock = VirtualClock()
    manager = CopyManager(InlineRunner(), clock)
    Expiry(manager, clock)
    assert clock.waiting == 0
    mint(manager, 60)
    mint(manager, 10)
    assert (clock.waiting, clock.next_due) == (1, 10)
