"""Limits: what VPD 8Fh announces is granted, and one more is refused."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qemu_odx.testing.conformance.bench import CheckSkippedError, ranges
from qemu_odx.testing.conformance.checks.family import Family
from qemu_odx.testing.conformance.checks.faults import INVALID_LIST, OUT_OF_RANGE, TOO_MANY
from qemu_odx.wire.scsi.rod_token import zero_token

if TYPE_CHECKING:
    from qemu_odx.testing.conformance.bench import Bench, Unit

FAMILY = Family("limits")
PT, WUT = "SBC-5 5.12", "SBC-5 5.59"
_UNLIMITED = 0xFFFFFFFF


def _max_ranges(b: Bench) -> int:
    most = b.first.max_ranges
    if not most or most * 16 > 65535 - 536:
        raise CheckSkippedError("the device tells no MAXIMUM RANGE DESCRIPTORS that a list can pass")
    return most


def _max_blocks(unit: Unit) -> int:
    if not unit.max_token_blocks or unit.max_token_blocks >= min(unit.blocks, 1 << 32):
        raise CheckSkippedError("MAXIMUM TOKEN TRANSFER SIZE is not told or larger than the disk")
    return unit.max_token_blocks


def _single_blocks(count: int) -> list[tuple[int, int]]:
    return [(2 * number, 1) for number in range(count)]


@FAMILY.add(PT)
def as_many_ranges_as_told(b: Bench) -> None:
    """POPULATE TOKEN takes MAXIMUM RANGE DESCRIPTORS ranges."""
    most = _max_ranges(b)
    identifier = next(b.near.identifiers)
    b.good(b.near.populate(b.first.lun, ranges(_single_blocks(most)), identifier=identifier))
    b.equal("TRANSFER COUNT", b.finished(b.first, identifier).status.count, most)


@FAMILY.add(PT)
def too_many_ranges(b: Bench) -> None:
    """POPULATE TOKEN refuses one range more."""
    places = _single_blocks(_max_ranges(b) + 1)
    b.refused(b.near.populate(b.first.lun, ranges(places)), TOO_MANY)


@FAMILY.add(WUT, destructive=True)
def too_many_ranges_to_write(b: Bench) -> None:
    """WRITE USING TOKEN refuses one range more than MAXIMUM RANGE DESCRIPTORS, and writes nothing."""
    places = _single_blocks(_max_ranges(b) + 1)
    old = b.fill(b.first, 0, 1, "old")
    b.refused(b.write(b.first, zero_token(), *places), TOO_MANY)
    b.holds(b.first, 0, old, "what was there")


@FAMILY.add(PT)
def longest_timeout(b: Bench) -> None:
    """INACTIVITY TIMEOUT up to the maximum is taken."""
    if not b.first.max_inactivity:
        raise CheckSkippedError("the device tells no MAXIMUM INACTIVITY TIMER")
    b.good(b.near.populate(b.first.lun, ranges([(16, 1)]), timeout=b.first.max_inactivity))


@FAMILY.add(PT)
def too_long_timeout(b: Bench) -> None:
    """INACTIVITY TIMEOUT above the maximum is refused, not made shorter."""
    most = b.first.max_inactivity
    if most in {0, _UNLIMITED}:
        raise CheckSkippedError("the device tells no MAXIMUM INACTIVITY TIMER")
    b.refused(b.near.populate(b.first.lun, ranges([(16, 1)]), timeout=most + 1), INVALID_LIST)


@FAMILY.add(PT)
def largest_token(b: Bench) -> None:
    """A token of exactly MAXIMUM TOKEN TRANSFER SIZE can be made."""
    most = _max_blocks(b.first)
    identifier = next(b.near.identifiers)
    b.good(b.near.populate(b.first.lun, ranges([(0, most)]), identifier=identifier))
    b.equal("TRANSFER COUNT", b.finished(b.first, identifier).status.count, most)


@FAMILY.add(PT)
def too_large_token(b: Bench) -> None:
    """Ranges that add up to more than MAXIMUM TOKEN TRANSFER SIZE are refused."""
    most = _max_blocks(b.first)
    b.refused(b.near.populate(b.first.lun, ranges([(0, most), (most, 1)])), INVALID_LIST)


@FAMILY.add(WUT, destructive=True)
def too_large_write(b: Bench) -> None:
    """WRITE USING TOKEN refuses a larger sum too, and writes nothing."""
    most = _max_blocks(b.first)
    old = b.fill(b.first, 0, 1, "old")
    b.refused(b.write(b.first, zero_token(), (0, most), (most, 1)), INVALID_LIST)
    b.holds(b.first, 0, old, "what was there")


@FAMILY.add(PT)
def last_block(b: Bench) -> None:
    """The last block of the disk can be in a token, the one after it cannot."""
    end = b.first.blocks
    b.good(b.near.populate(b.first.lun, ranges([(end - 1, 1)])))
    b.refused(b.near.populate(b.first.lun, ranges([(end - 1, 2)])), OUT_OF_RANGE)


@FAMILY.add(PT)
def address_wraps(b: Bench) -> None:
    """LBA plus count past 2 to the power of 64 is out of range, not at the start of the disk."""
    b.refused(b.near.populate(b.first.lun, ranges([((1 << 64) - 1, 2)])), OUT_OF_RANGE)


@FAMILY.add(WUT, destructive=True)
def write_past_the_end(b: Bench) -> None:
    """A destination range past the end is refused, and nothing is written before it."""
    end = b.first.blocks
    old = b.fill(b.first, end - 1, 1, "old")
    b.refused(b.write(b.first, zero_token(), (end - 1, 2)), OUT_OF_RANGE)
    b.holds(b.first, end - 1, old, "what was there")
