"""Isolation: a token stands for the data as it was at POPULATE TOKEN, whatever is written afterwards.

A copy manager may cancel a token instead of keeping old data (23/08); it may never hand out changed data.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from qemu_odx.testing.conformance.bench import CheckFailedError, CheckSkippedError
from qemu_odx.testing.conformance.checks.family import Family
from qemu_odx.testing.conformance.checks.faults import (
    INVALID_CDB,
    INVALID_OPCODE,
    TOKEN_CANCELLED,
)
from qemu_odx.wire.scsi.rod_token import zero_token
from qemu_odx.wire.scsi.token_lists import Range

if TYPE_CHECKING:
    from qemu_odx.testing.conformance.bench import Bench

FAMILY = Family("isolation")
CLAUSE = "SPC-4 5.17.6.2, SBC-5 5.12"
FROM, TO = 16, 400


def _arrives(b: Bench, token: bytes, wanted: bytes, *, may_be_cancelled: bool = True) -> None:
    """The token brings `wanted`, or it was cancelled."""
    answer = b.write(b.first, token, (TO, len(wanted) // b.first.block_size))
    if answer.fault == TOKEN_CANCELLED and may_be_cancelled:
        raise CheckSkippedError("the device cancels tokens whose source is written (23/08), which is allowed")
    b.good(answer)
    b.holds(b.first, TO, wanted, "the data as it was")


@FAMILY.add(CLAUSE, destructive=True)
def source_overwritten(b: Bench) -> None:
    """WRITE to the source after POPULATE TOKEN does not change what the token brings."""
    old = b.fill(b.first, FROM, 8, "old")
    token = b.token(b.first, (FROM, 8))
    b.fill(b.first, FROM, 8, "new")
    _arrives(b, token, old)


@FAMILY.add(CLAUSE, destructive=True)
def source_overwritten_in_part(b: Bench) -> None:
    """So it is with a write to one block in the middle, and one that only touches the edges."""
    old = b.fill(b.first, FROM, 8, "old")
    token = b.token(b.first, (FROM, 8))
    b.fill(b.first, FROM + 3, 1, "new")
    b.fill(b.first, FROM - 2, 3, "new")
    b.fill(b.first, FROM + 7, 3, "new")
    _arrives(b, token, old)


@FAMILY.add("SPC-4 5.17.6.2", destructive=True)
def persistent_token_survives(b: Bench) -> None:
    """A persistent token (00800002h) keeps the old data and may not be cancelled by a write."""
    old = b.fill(b.first, FROM, 8, "old")
    answer = b.near.populate(b.first.lun, [Range(FROM, 8)], rod_type=0x00800002)
    if not answer.good:
        raise CheckSkippedError("the device makes no persistent tokens")
    token = b.token(b.first, (FROM, 8), rod_type=0x00800002)
    b.fill(b.first, FROM, 8, "new")
    _arrives(b, token, old, may_be_cancelled=False)


@FAMILY.add(CLAUSE, destructive=True)
def source_unmapped(b: Bench) -> None:
    """UNMAP of the source does not change what the token brings."""
    old = b.fill(b.first, FROM, 8, "old")
    token = b.token(b.first, (FROM, 8))
    answer = b.near.unmap(b.first.lun, [Range(FROM, 8)])
    if answer.fault in {INVALID_OPCODE, INVALID_CDB}:
        raise CheckSkippedError("the device has no UNMAP")
    b.good(answer)
    _arrives(b, token, old)


@FAMILY.add(CLAUSE, destructive=True)
def source_written_the_same(b: Bench) -> None:
    """WRITE SAME over the source does not change what the token brings."""
    old = b.fill(b.first, FROM, 8, "old")
    token = b.token(b.first, (FROM, 8))
    answer = b.near.write_same(b.first.lun, FROM, 8, b"\xa5" * b.first.block_size)
    if answer.fault in {INVALID_OPCODE, INVALID_CDB}:
        raise CheckSkippedError("the device has no WRITE SAME(16)")
    b.good(answer)
    _arrives(b, token, old)


@FAMILY.add(CLAUSE, destructive=True)
def source_written_by_another_token(b: Bench) -> None:
    """WRITE USING TOKEN over the source of another token does not change that one."""
    old = b.fill(b.first, FROM, 8, "old")
    b.fill(b.first, 100, 8, "other")
    token, other = b.token(b.first, (FROM, 8)), b.token(b.first, (100, 8))
    b.good(b.write(b.first, other, (FROM, 8)))
    _arrives(b, token, old)


@FAMILY.add(CLAUSE, destructive=True)
def source_zeroed_by_token(b: Bench) -> None:
    """The zero token written over the source does not change what the token brings."""
    old = b.fill(b.first, FROM, 8, "old")
    token = b.token(b.first, (FROM, 8))
    b.good(b.write(b.first, zero_token(), (FROM, 8)))
    _arrives(b, token, old)


@FAMILY.add("SBC-5 5.59", destructive=True)
def destination_overlaps_the_source(b: Bench) -> None:
    """A token written over its own source brings the old data, forwards and backwards."""
    for shift in (4, -4):
        old = b.fill(b.first, FROM, 8, f"old{shift}")
        token = b.token(b.first, (FROM, 8))
        b.good(b.write(b.first, token, (FROM + shift, 8)))
        b.holds(b.first, FROM + shift, old, "the data as it was")
        again = b.write(b.first, token, (TO, 8))
        if again.fault != TOKEN_CANCELLED:
            b.good(again)
            b.holds(b.first, TO, old, "the same once more")


@FAMILY.add(CLAUSE, destructive=True)
def what_was_written_before_is_in(b: Bench) -> None:
    """A write that was answered before POPULATE TOKEN is in the token."""
    b.fill(b.first, FROM, 8, "older")
    newest = b.fill(b.first, FROM, 8, "newer")
    _arrives(b, b.token(b.first, (FROM, 8)), newest)


@FAMILY.add(CLAUSE, destructive=True)
def two_moments(b: Bench) -> None:
    """Two tokens of the same blocks, a write between them: each brings its own moment."""
    first = b.fill(b.first, FROM, 8, "first")
    one = b.token(b.first, (FROM, 8))
    second = b.fill(b.first, FROM, 8, "second")
    two = b.token(b.first, (FROM, 8))
    b.fill(b.first, FROM, 8, "third")
    for token, wanted in ((one, first), (two, second), (one, first)):
        _arrives(b, token, wanted)


@FAMILY.add(CLAUSE, destructive=True)
def changed_data_never_leaves(b: Bench) -> None:
    """After writes, a change vulnerable token brings old data or is cancelled: never anything else."""
    old = b.fill(b.first, FROM, 8, "old")
    if not b.near.populate(b.first.lun, [Range(FROM, 8)], rod_type=0x00800001).good:
        raise CheckSkippedError("the device makes no change vulnerable tokens")
    token = b.token(b.first, (FROM, 8), rod_type=0x00800001)
    b.fill(b.first, FROM + 2, 2, "new")
    before = b.fill(b.first, TO, 8, "before")
    answer = b.write(b.first, token, (TO, 8))
    if answer.fault == TOKEN_CANCELLED:
        b.holds(b.first, TO, before, "what was there")
        return
    if not answer.good:
        raise CheckFailedError("the token is neither good nor cancelled")
    b.holds(b.first, TO, old, "the data as it was")
