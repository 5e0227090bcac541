"""The parts of a replay: which requests raced, what is known of which byte, which token is which."""

from __future__ import annotations

import random

import pytest

from qemu_odx.replay.knowledge import Knowledge
from qemu_odx.replay.races import mark_races, writes
from qemu_odx.replay.script import Step
from qemu_odx.replay.token_map import TokenMap
from qemu_odx.wire.scsi import rod_token
from qemu_odx.wire.scsi.rod_token import RodType, TokenHeader

RANDOM = random.Random(5)


def step(name: str, *spans: tuple[int, int], start: float = 0.0, end: float = 0.0, **more: object) -> Step:
    """A request on d0, in blocks of 512."""
    record = {"name": name, "disk": "d0", "block_size": 512, "spans": spans, "started": start, **more}
    return Step(record, end)


@pytest.mark.parametrize(
    ("first", "second", "raced"),
    [
        (step("WRITE(16)", (0, 8), end=2), step("READ(16)", (7, 1), start=1, end=3), True),
        (step("READ(16)", (0, 8), end=2), step("WRITE USING TOKEN", (100, 1), (4, 1), start=1, end=3), True),
        (step("READ(16)", (0, 8), end=2), step("READ(16)", (0, 8), start=1, end=3), False),
        (step("OUT", (0, 8), end=1), step("READ(16)", (0, 8), start=1, end=3), False),
        (step("OUT", (0, 8), end=2), step("IN", (8, 8), start=1, end=3), False),
        (step("FLUSH", end=2), step("OUT", (0, 8), start=1, end=3), False),
    ],
)
def test_what_raced(first: Step, second: Step, *, raced: bool) -> None:
    """In flight together, a block in common, and one of them writes."""
    mark_races([first, second])
    assert (first.raced, second.raced) == (raced, raced)


def test_many_in_flight() -> None:
    """A long one meets all that come while it runs, and no later one."""
    steps = [step("WRITE USING TOKEN", (0, 100), end=10)]
    steps += [step("READ(16)", (n, 1), start=n, end=n + 0.5) for n in range(1, 20)]
    mark_races(steps)
    assert [item.raced for item in steps] == [True] * 10 + [False] * 10


@pytest.mark.parametrize(
    "name", ["WRITE(16)", "OUT", "UNMAP", "DISCARD", "WRITE_ZEROES", "COMPARE AND WRITE"]
)
def test_what_writes(name: str) -> None:
    """By its name."""
    assert writes(name)
    assert not writes("READ(16)")
    assert not writes("WRITE BUFFER")


def test_what_is_unknown_becomes_known_by_writing() -> None:
    """Only what was written."""
    known = Knowledge()
    known.forget("d0", 0, 1 << 20)
    known.after(step("WRITE(16)", (8, 8)))
    assert known.knows("d0", [(4096, 8192)])
    assert not known.knows("d0", [(4095, 8192)])
    assert not known.knows("d0", [(4096, 8193)])
    assert known.knows("d1", [(0, 4096)])
    known.after(step("READ(16)", (0, 8)))
    assert not known.knows("d0", [(0, 1)])
    known.lost(step("OUT", (9, 1)))
    assert not known.knows("d0", [(4608, 4609)])
    known.lost(step("READ(16)", (8, 1)))
    assert known.knows("d0", [(4096, 4608)])


def test_what_depends_on_the_unknown_stays_unknown() -> None:
    """COMPARE AND WRITE compared something that is not known here."""
    known = Knowledge()
    known.forget("d0", 0, 512)
    known.after(step("COMPARE AND WRITE", (0, 2)))
    assert not known.knows("d0", [(0, 512)])
    known.after(step("COMPARE AND WRITE", (1, 1)))
    assert known.knows("d0", [(512, 1024)])


def test_tokens_carry_what_is_unknown() -> None:
    """From the ranges they were made of to the ranges they are written to, with the offset."""
    known = Knowledge()
    known.forget("d0", 512, 1024)
    made = step("POPULATE TOKEN", (10, 2), (0, 4))
    known.name_token("t", known.unknown_of(made))  # unknown: block 3 of the ROD
    known.after(step("WRITE USING TOKEN", (100, 2), (200, 2), fields={"token": "t", "offset": 2}))
    assert known.knows("d0", [(100 * 512, 101 * 512), (200 * 512, 202 * 512)])
    assert not known.knows("d0", [(101 * 512, 102 * 512)])
    known.after(step("WRITE USING TOKEN", (101, 1), fields={"token": "t"}))
    assert known.knows("d0", [(101 * 512, 102 * 512)])
    made.raced = True
    assert list(known.unknown_of(made)) == [(0, 6 * 512)]


def token(identifier: int) -> bytes:
    """Some token."""
    header = TokenHeader(RodType.POINT_IN_TIME_DEFAULT, identifier, bytes(32), 4096, 512, bytes(3), b"")
    return header.token(RANDOM.randbytes(rod_token.SECRET_SIZE))


def test_tokens_are_told_apart() -> None:
    """Whole, damaged anywhere, the zero token, one that nobody made."""
    tokens = TokenMap()
    recorded, replayed, other = token(1), token(2), token(1 << 40)
    tokens.learn(recorded, replayed)
    tokens.learn(other, token(3))
    tokens.learn(recorded, b"something else")
    assert tokens.sent(recorded) == replayed
    assert tokens.named(f"{1:016x}") == replayed
    assert tokens.named("ffff") is None
    for at in (0, 6, 9, 100, 300, 511):
        damaged, expected = bytearray(recorded), bytearray(replayed)
        damaged[at] ^= 0x55
        expected[at] ^= 0x55
        assert tokens.sent(bytes(damaged)) == bytes(expected)
    assert tokens.sent(rod_token.zero_token()) == rod_token.zero_token()
    assert tokens.sent(token(77)) is None


def test_tokens_in_parameter_data() -> None:
    """Whole ones, and management tokens without their secret."""
    tokens = TokenMap()
    recorded, replayed = token(1), token(2)
    tokens.learn(recorded, replayed)
    assert tokens.expected(b"head" + recorded + b"tail") == b"head" + replayed + b"tail"
    assert tokens.expected(b"head" + recorded[:96]) == b"head" + replayed[:96]
