"""Life of a token: minted, used, expired, deleted, remembered, forgotten."""

from __future__ import annotations

import itertools
import random
from dataclasses import replace

import pytest

from qemu_odx.testing.clock import VirtualClock
from qemu_odx.tokens.limits import Quotas
from qemu_odx.tokens.registry import REMEMBERED_AT_LEAST, TokenRegistry, real_type
from qemu_odx.tokens.token import Fault, Token
from qemu_odx.wire.scsi import rod_token
from qemu_odx.wire.scsi.rod_token import RodType, TokenHeader


class Fixture:
    """A registry with its clock and the payloads that came back."""

    def __init__(self, **quotas: int) -> None:
        self.clock = VirtualClock()
        self.released: list[str] = []
        chance = random.Random(7)
        self.lost: set[str] = set()
        self.registry = TokenRegistry[str](
            self.clock, chance.randbytes, Quotas(**quotas), self.released.append, self.lost.__contains__
        )
        self._names = (f"payload {number}" for number in itertools.count())

    def mint(self, *, owner: str = "I0", creator: str = "d0", timeout: float = 60) -> Token[str]:
        """A token of 4096 bytes."""
        header = TokenHeader(
            RodType.POINT_IN_TIME_DEFAULT,
            self.registry.next_identifier(),
            bytes(32),
            4096,
            512,
            bytes(3),
            b"",
        )
        return self.registry.mint(
            header,
            next(self._names),
            creator=creator,
            owner=owner,
            inactivity_timeout=timeout,
            lifetime=86400,
        )


@pytest.fixture
def life() -> Fixture:
    """A registry with default quotas."""
    return Fixture()


def test_a_fresh_token_resolves_many_times(life: Fixture) -> None:
    """Windows writes one token in many pieces."""
    token = life.mint()
    assert [life.registry.resolve(token.data) for _ in range(3)] == [token] * 3


def test_identifiers_are_not_used_again(life: Fixture) -> None:
    """50,000 more tokens at least must come before an identifier may come back (SPC-4 5.17.6.4)."""
    assert len({life.registry.next_identifier() for _ in range(60_000)}) == 60_000


def test_secrets_differ_and_fill_256_bytes(life: Fixture) -> None:
    """The unguessable part is new for every token."""
    first, second = life.mint().data, life.mint().data
    assert first[256:] != second[256:]
    assert len(set(first[256:])) > 100


def test_management_tokens_show_no_secret(life: Fixture) -> None:
    """REPORT ALL ROD TOKENS ends before the secret."""
    token = life.mint()
    assert life.registry.management_tokens() == [token.data[:96]]


@pytest.mark.parametrize(
    ("at", "value", "fault"),
    [
        (7, 0xF0, Fault.LENGTH),
        (0, 0x12, Fault.UNSUPPORTED_TYPE),
        (15, 0xFF, Fault.UNKNOWN),
        (300, 0x00, Fault.UNKNOWN),
        (511, 0x00, Fault.UNKNOWN),
        (63, 0x01, Fault.CORRUPT),
        (3, 0x01, Fault.CORRUPT),
        (200, 0x01, Fault.CORRUPT),
    ],
)
def test_a_changed_byte_is_told_apart(life: Fixture, at: int, value: int, fault: Fault) -> None:
    """Length, type, identifier or secret, header: each has its cause."""
    data = bytearray(life.mint().data)
    data[at] = value if data[at] != value else value ^ 1
    assert life.registry.resolve(bytes(data)) is fault


def test_inactivity_ends_a_token_and_gives_its_payload_back(life: Fixture) -> None:
    """23/07 from the moment on when the time-out has passed."""
    token = life.mint(timeout=30)
    life.clock.advance(29.9)
    assert life.registry.resolve(token.data) is token
    life.clock.advance(0.1)
    assert life.registry.resolve(token.data) is Fault.EXPIRED
    assert life.released == ["payload 0"]


def test_the_end_of_a_copy_restarts_the_timer(life: Fixture) -> None:
    """The timer is one of inactivity; while a copy runs it stands still."""
    token = life.mint(timeout=30)
    life.registry.hold(token)
    life.clock.advance(1000)
    assert life.registry.resolve(token.data) is token
    life.registry.let_go(token)
    life.clock.advance(29)
    assert life.registry.resolve(token.data) is token
    life.clock.advance(1)
    assert life.registry.resolve(token.data) is Fault.EXPIRED


def test_lifetime_ends_a_token_that_is_used_all_the_time(life: Fixture) -> None:
    """Use does not carry a token past its lifetime."""
    token = life.mint(timeout=600)
    for _ in range(200):
        life.clock.advance(500)
        if life.registry.resolve(token.data) is not token:
            break
        life.registry.hold(token)
        life.registry.let_go(token)
    assert life.clock.now == 86500
    assert life.registry.resolve(token.data) is Fault.EXPIRED


@pytest.mark.parametrize("cause", [Fault.DELETED, Fault.CANCELLED, Fault.REVOKED])
def test_the_cause_of_death_is_remembered_then_forgotten(life: Fixture, cause: Fault) -> None:
    """A tombstone tells why, until its time is over."""
    token = life.mint()
    life.registry.kill(token, cause)
    life.clock.advance(REMEMBERED_AT_LEAST - 1)
    assert life.registry.resolve(token.data) is cause
    life.clock.advance(2)
    assert life.registry.resolve(token.data) is Fault.UNKNOWN


def test_a_forged_dead_token_stays_unknown(life: Fixture) -> None:
    """A tombstone gives nothing away to one who does not hold the secret."""
    token = life.mint()
    life.registry.kill(token, Fault.DELETED)
    forged = bytearray(token.data)
    forged[400] ^= 1
    assert life.registry.resolve(bytes(forged)) is Fault.UNKNOWN


def test_a_killed_token_keeps_its_payload_while_a_copy_uses_it(life: Fixture) -> None:
    """The copy that runs ends well; nobody else may start."""
    token = life.mint()
    life.registry.hold(token)
    life.registry.kill(token, Fault.REVOKED)
    assert life.registry.resolve(token.data) is Fault.REVOKED
    assert life.released == []
    life.registry.let_go(token)
    assert life.released == ["payload 0"]


def test_tokens_of_a_removed_disk_are_cancelled(life: Fixture) -> None:
    """Only those made from it."""
    gone, kept = life.mint(creator="d0"), life.mint(creator="d1")
    assert life.registry.kill_made_from("d0", Fault.CANCELLED) == 1
    assert life.registry.resolve(gone.data) is Fault.CANCELLED
    assert life.registry.resolve(kept.data) is kept


class Deaths:
    """Notes which tokens end, and of what."""

    def __init__(self) -> None:
        self.seen: list[tuple[Token[str], Fault]] = []

    def minted(self, token: Token[str]) -> None:
        """Nothing."""

    def ended(self, token: Token[str], cause: Fault) -> None:
        """Note it."""
        self.seen.append((token, cause))


def test_tokens_whose_payload_is_lost_are_cancelled_once(life: Fixture) -> None:
    """When that is said, and only those; one that a copy uses dies when that has ended, of the same."""
    deaths = Deaths()
    life.registry.observers.append(deaths)
    lost, used, kept = life.mint(), life.mint(), life.mint()
    life.registry.hold(used)
    life.lost |= {lost.payload, used.payload}
    for _ in range(2):
        life.registry.cancel_lost()
    assert deaths.seen == [(lost, Fault.CANCELLED)]
    assert life.registry.resolve(used.data) is Fault.CANCELLED
    life.registry.let_go(used)
    life.clock.advance(61)
    life.registry.expire()
    assert deaths.seen == [(lost, Fault.CANCELLED), (used, Fault.CANCELLED), (kept, Fault.EXPIRED)]
    assert life.released == [lost.payload, used.payload, kept.payload]


def test_a_lost_token_whose_time_is_up_first_has_not_expired(life: Fixture) -> None:
    """It died of the loss, told of or not."""
    token = life.mint()
    life.lost.add(token.payload)
    life.clock.advance(61)
    assert life.registry.resolve(token.data) is Fault.CANCELLED


def test_a_payload_may_be_lost_before_its_token_is_made(life: Fixture) -> None:
    """Nobody will say so again."""
    deaths = Deaths()
    life.registry.observers.append(deaths)
    life.lost.add("payload 0")
    token = life.mint()
    assert deaths.seen == [(token, Fault.CANCELLED)]
    assert life.registry.resolve(token.data) is Fault.CANCELLED


def test_quotas_bound_tokens_and_tombstones() -> None:
    """Per nexus, in all, and the dead."""
    life = Fixture(tokens=3, tokens_per_nexus=2, tombstones=2)
    tokens = [life.mint(owner="I0"), life.mint(owner="I0")]
    assert not life.registry.room("I0", 1)
    assert life.registry.room("I1", 1)
    tokens.append(life.mint(owner="I1"))
    assert not life.registry.room("I2", 1)
    for token in tokens:
        life.registry.kill(token, Fault.DELETED)
    assert life.registry.room("I0", 1)


def test_the_bytes_that_tokens_of_a_nexus_stand_for_are_bounded() -> None:
    """An upper bound of the old data that they can pin."""
    life = Fixture(pinned_bytes=10_000)
    token = life.mint()
    assert life.registry.room("I0", 10_000 - 4096)
    assert not life.registry.room("I0", 10_000 - 4095)
    assert life.registry.room("I1", 10_000)
    life.registry.kill(token, Fault.DELETED)
    assert life.registry.room("I0", 10_000)


def test_one_nexus_cannot_push_out_the_tombstones_of_another() -> None:
    """Each has its own number of them; the oldest of its own goes first."""
    life = Fixture(tombstones=2)
    victim = life.mint(owner="I0")
    flood = [life.mint(owner="I1") for _ in range(5)]
    for token in (victim, *flood):
        life.registry.kill(token, Fault.DELETED)
    assert life.registry.resolve(victim.data) is Fault.DELETED
    assert [life.registry.resolve(token.data) for token in flood] == [Fault.UNKNOWN] * 3 + [Fault.DELETED] * 2


def test_nothing_is_left_of_a_nexus_that_is_gone(life: Fixture) -> None:
    """Its account ends with its last tombstone."""
    life.registry.kill(life.mint(owner="gone"), Fault.DELETED)
    life.clock.advance(REMEMBERED_AT_LEAST + 1)
    life.registry.expire()
    assert not life.registry._accounts
    assert not life.registry._deadlines


def test_many_deadlines_do_not_pile_up(life: Fixture) -> None:
    """A token used again and again leaves no trail of old deadlines."""
    token = life.mint()
    for _ in range(10_000):
        life.registry.hold(token)
        life.registry.let_go(token)
    assert len(life.registry._deadlines) < 200


@pytest.mark.parametrize(
    ("asked", "given"),
    [
        (None, RodType.POINT_IN_TIME_DEFAULT),
        (0x00800001, RodType.POINT_IN_TIME_CHANGE_VULNERABLE),
        (0x0080FFFF, RodType.POINT_IN_TIME_PERSISTENT),
        (0x00010000, None),
        (0xFFFF0001, None),
        (0, None),
    ],
)
def test_types_that_can_be_populated(asked: int | None, given: RodType | None) -> None:
    """Point in time only, and never "any" itself."""
    assert real_type(asked) is given


def test_the_zero_token_is_known_by_type_and_length() -> None:
    """The rest of it does not matter."""
    token = bytearray(rod_token.zero_token())
    assert rod_token.is_zero_token(token)
    token[300] = 9
    assert rod_token.is_zero_token(token)
    token[7] = 0x11
    assert not rod_token.is_zero_token(token)


def test_a_doomed_token_whose_copies_do_not_come_back(life: Fixture) -> None:
    """A predecessor's copy ran on it: it ends at its deadline, of what had doomed it."""
    token = life.mint()
    life.registry.hold(token)
    life.registry.kill(token, Fault.REVOKED)
    assert life.registry.resolve(token.data, begun=True) is token
    successor = Fixture()
    successor.registry.restore([replace(token, users=0)], {})
    assert successor.registry.resolve(token.data) is Fault.REVOKED
    assert len(successor.registry) == 1
    successor.clock.advance(60)
    assert successor.registry.resolve(token.data) is Fault.REVOKED
    assert len(successor.registry) == 0
