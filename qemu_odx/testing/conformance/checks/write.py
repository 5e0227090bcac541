"""WRITE USING TOKEN: the right bytes in the right places, whole, in part, and across block sizes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qemu_odx.testing.conformance.bench import HELD, SECOND, SECOND_NEXUS, TWO_SIZES, ranges
from qemu_odx.testing.conformance.checks.family import Family
from qemu_odx.testing.conformance.checks.faults import TOKEN_DELETED, UNDERRUN, UNDERRUN_NOTHING
from qemu_odx.wire.scsi.fields import u32, u64
from qemu_odx.wire.scsi.rod_token import zero_token

if TYPE_CHECKING:
    from qemu_odx.testing.conformance.bench import Bench

FAMILY = Family("write")
SBC, LIFE = "SBC-5 5.59", "SPC-4 5.17.6"
TO = 400
"""Where the checks write to; what they read lies below it."""


@FAMILY.add(SBC, destructive=True)
def same_unit(b: Bench) -> None:
    """A copy within a logical unit; the blocks beside it stay as they are."""
    unit = b.first
    data = b.fill(unit, 16, 8, "source")
    around = b.fill(unit, TO - 1, 10, "around")
    size = unit.block_size
    b.good(b.write(unit, b.token(unit, (16, 8)), (TO, 8)))
    b.holds(unit, TO - 1, around[:size] + data + around[-size:], "the source between its neighbours")


@FAMILY.add(SBC, SECOND, destructive=True)
def across_units(b: Bench) -> None:
    """A token is taken by another logical unit of the copy manager."""
    source, target = b.first, b.second
    data = b.fill(source, 16, 8, "source")
    b.fill(target, TO, 8, "old")
    blocks = len(data) // target.block_size
    b.good(b.write(target, b.token(source, (16, 8)), (TO, blocks)))
    b.holds(target, TO, data[: blocks * target.block_size], "the source")


@FAMILY.add("SPC-4 5.17.6.5", SECOND_NEXUS, destructive=True)
def across_nexuses(b: Bench) -> None:
    """Whoever holds the token may use it: it is taken over another I_T nexus."""
    unit = b.first
    data = b.fill(unit, 16, 4, "source")
    token = b.token(unit, (16, 4))
    b.good(b.far.write_token(unit.lun, token, ranges([(TO, 4)])))
    b.holds(unit, TO, data, "the source")


@FAMILY.add(SBC, destructive=True)
def ranges_keep_their_order(b: Bench) -> None:
    """Data is gathered and scattered in the order of the descriptors, ascending or not."""
    unit = b.first
    data, size = b.fill(unit, 16, 32, "source"), unit.block_size
    token = b.token(unit, (40, 8), (16, 4))
    wanted = data[24 * size : 32 * size] + data[: 4 * size]
    b.good(b.write(unit, token, (TO + 20, 6), (TO, 6)))
    b.holds(unit, TO + 20, wanted[: 6 * size], "the first half")
    b.holds(unit, TO, wanted[6 * size :], "the second half")


@FAMILY.add(SBC, destructive=True)
def offset_into_rod(b: Bench) -> None:
    """A token is written in parts, by OFFSET INTO ROD, in any order."""
    unit = b.first
    data = b.fill(unit, 16, 8, "source")
    token = b.token(unit, (16, 8))
    b.good(b.write(unit, token, (TO + 5, 3), offset=5))
    b.good(b.write(unit, token, (TO, 5)))
    b.holds(unit, TO, data, "the source")


@FAMILY.add("SBC-5 4.28, 5.59", TWO_SIZES, destructive=True)
def offset_counts_destination_blocks(b: Bench) -> None:
    """OFFSET INTO ROD and TRANSFER COUNT are in blocks of the logical unit that is written."""
    small, large = b.two_sizes
    ratio = large.block_size // small.block_size
    data = b.fill(small, 16, 3 * ratio, "small")
    token = b.token(small, (16, 3 * ratio))
    identifier = next(b.near.identifiers)
    b.good(b.write(large, token, (40, 2), offset=1, identifier=identifier))
    b.equal("TRANSFER COUNT", b.information(large, identifier).status.count, 2)
    b.holds(large, 40, data[large.block_size :], "the source from its second large block on")


@FAMILY.add("SBC-5 5.59", TWO_SIZES, destructive=True)
def rest_of_the_last_block_is_zeros(b: Bench) -> None:
    """A last block that the ROD fills only in part is filled up with zeros."""
    small, large = b.two_sizes
    data = b.fill(small, 16, 3, "small")
    b.fill(large, 40, 1, "old")
    b.good(b.write(large, b.token(small, (16, 3)), (40, 1)))
    b.holds(large, 40, data.ljust(large.block_size, b"\0"), "three small blocks, then zeros")


@FAMILY.add("SBC-5 5.59", TWO_SIZES, destructive=True)
def large_blocks_to_small(b: Bench) -> None:
    """A large block is written as several small ones."""
    small, large = b.two_sizes
    data = b.fill(large, 40, 1, "large")
    ratio = large.block_size // small.block_size
    b.good(b.write(small, b.token(large, (40, 1)), (TO, ratio)))
    b.holds(small, TO, data, "the large block")


@FAMILY.add("SBC-5 4.28.3", destructive=True)
def zero_token_writes_zeros(b: Bench) -> None:
    """The well-known zero token writes zeros, whatever OFFSET INTO ROD says."""
    unit = b.first
    b.fill(unit, TO, 8, "old")
    b.good(b.write(unit, zero_token(), (TO, 4), (TO + 4, 4), offset=1 << 32))
    b.holds(unit, TO, bytes(8 * unit.block_size), "zeros")


@FAMILY.add(LIFE, destructive=True)
def used_many_times(b: Bench) -> None:
    """A token is good for any number of writes."""
    unit = b.first
    data = b.fill(unit, 16, 4, "source")
    token = b.token(unit, (16, 4))
    for turn in range(4):
        b.good(b.write(unit, token, (TO + 4 * turn, 4)))
    b.holds(unit, TO, data * 4, "the source four times")


@FAMILY.add("SBC-5 5.59, SPC-4 5.17.6.5", destructive=True)
def delete_token(b: Bench) -> None:
    """DEL_TKN=1: the write is done, then the token is gone and known as deleted."""
    unit = b.first
    data = b.fill(unit, 16, 4, "source")
    token = b.token(unit, (16, 4))
    b.good(b.write(unit, token, (TO, 4), delete=True))
    b.holds(unit, TO, data, "the source")
    b.refused(b.write(unit, token, (TO, 4)), TOKEN_DELETED)


@FAMILY.add("SBC-5 5.59", destructive=True)
def delete_without_writing(b: Bench) -> None:
    """DEL_TKN=1 with a range of no blocks deletes the token and writes nothing."""
    unit = b.first
    old = b.fill(unit, TO, 1, "old")
    token = b.token(unit, (16, 4))
    b.good(b.write(unit, token, (TO, 0), delete=True))
    b.refused(b.write(unit, token, (TO, 1)), TOKEN_DELETED)
    b.holds(unit, TO, old, "what was there")


@FAMILY.add("SPC-4 6.26, SBC-5 5.25", destructive=True)
def result_of_a_write(b: Bench) -> None:
    """RECEIVE ROD TOKEN INFORMATION after a write: 36 bytes, status 01h, the count, no token."""
    unit = b.first
    token = b.token(unit, (16, 8))
    identifier = next(b.near.identifiers)
    b.good(b.write(unit, token, (TO, 8), identifier=identifier))
    data = b.near.information(unit.lun, identifier).data
    b.equal("bytes of data-in", len(data), 36)
    b.equal("AVAILABLE DATA", u32(data, 0), 32)
    b.equal("RESPONSE TO SERVICE ACTION", data[4] & 0x1F, 0x11)
    b.equal("COPY OPERATION STATUS", data[5] & 0x7F, 0x01)
    b.equal("TRANSFER COUNT", u64(data, 16), 8)
    b.equal("ROD TOKEN DESCRIPTORS LENGTH", u32(data, 32), 0)


@FAMILY.add(SBC, destructive=True)
def empty_write_list(b: Bench) -> None:
    """PARAMETER LIST LENGTH 0: GOOD, nothing written."""
    old = b.fill(b.first, TO, 1, "old")
    b.good(b.near.command(b.first.lun, bytes((0x83, 0x11)) + bytes(4) + (0x77).to_bytes(4, "big")))
    b.holds(b.first, TO, old, "what was there")


@FAMILY.add("SBC-5 4.28.2", destructive=True)
def asking_for_too_much(b: Bench) -> None:
    """More blocks than the ROD has: refused whole, or a prefix is written and told with COPY ABORTED."""
    unit = b.first
    data = b.fill(unit, 16, 4, "source")
    old = b.fill(unit, TO, 20, "old")
    size = unit.block_size
    token = b.token(unit, (16, 4))
    answer = b.write(unit, token, (TO + 10, 3), (TO, 5))
    b.refused(answer, UNDERRUN, UNDERRUN_NOTHING)
    written = 4 if answer.fault == UNDERRUN else 0
    told = answer.full_sense.information if answer.full_sense else None
    b.equal("INFORMATION", told, written)
    first, second = data[: 3 * size], data[3 * size :]
    wanted = first + old[13 * size :] if written else old[10 * size :]
    b.holds(unit, TO + 10, wanted, "the first range")
    b.holds(unit, TO, (second + old[size : 5 * size]) if written else old[: 5 * size], "the second range")


@FAMILY.add("SBC-5 4.28.2", destructive=True)
def asking_for_too_much_in_the_background(b: Bench) -> None:
    """With IMMED=1 the same is told by status 03h or 60h with completion status and sense data inside."""
    unit = b.first
    data = b.fill(unit, 16, 4, "source")
    old = b.fill(unit, TO, 8, "old")
    token, identifier = b.token(unit, (16, 4)), next(b.near.identifiers)
    b.good(b.write(unit, token, (TO, 8), immediate=True, identifier=identifier))
    told = b.finished(unit, identifier).status
    b.expect("COPY OPERATION STATUS 03h or 60h", ok=told.status in {0x03, 0x60}, found=f"{told.status:02X}h")
    b.equal("TRANSFER COUNT", told.count, 4)
    b.equal("EXTENDED COPY COMPLETION STATUS", told.completion, 0x02)
    b.equal("sense key, ASC and ASCQ inside", (told.sense[2] & 15, *told.sense[12:14]), UNDERRUN)
    b.holds(unit, TO, data + old[len(data) :], "the source, then what was there")


@FAMILY.add("SBC-5 5.59", HELD, destructive=True)
def background_write_is_not_done_at_once(b: Bench) -> None:
    """IMMED=1: GOOD comes before the data is moved; status 12h until then."""
    unit = b.first
    data = b.fill(unit, 16, 4, "source")
    b.fill(unit, TO, 4, "old")
    token, identifier = b.token(unit, (16, 4)), next(b.near.identifiers)
    b.good(b.write(unit, token, (TO, 4), immediate=True, identifier=identifier))
    running = b.information(unit, identifier).status.status
    b.expect("COPY OPERATION STATUS 10h or 12h", ok=running in {0x10, 0x12}, found=f"{running:02X}h")
    b.equal("TRANSFER COUNT at the end", b.finished(unit, identifier).status.count, 4)
    b.holds(unit, TO, data, "the source")
