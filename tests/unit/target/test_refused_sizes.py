"""Lists and counts beyond what the pages announce; libiscsi's tests found all of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from qemu_odx.wire.scsi.fields import put16, put32, u16, u32

if TYPE_CHECKING:
    from qemu_odx.testing.conformance.reference import ReferenceTarget
    from qemu_odx.testing.initiator import Answer, Initiator

CSCD, SEGMENT = 32, 28


def extended_copy(initiator: Initiator, cscds: int, segments: int) -> Answer:
    """EXTENDED COPY(LID1) with that many descriptors of zeros."""
    data = bytearray(16 + cscds * CSCD + segments * SEGMENT)
    data[0] = 1
    put16(data, 2, cscds * CSCD)
    put32(data, 8, segments * SEGMENT)
    for at in range(16, 16 + cscds * CSCD, CSCD):
        data[at] = 0xE4
    for at in range(16 + cscds * CSCD, len(data), SEGMENT):
        data[at], data[at + 3] = 0x02, SEGMENT - 4
    return initiator.command(0, bytes((0x83,)) + bytes(9) + len(data).to_bytes(4, "big"), bytes(data))


def test_copy_list_beyond_its_greatest_length_is_a_length_error(initiator: Initiator) -> None:
    """If only one kind of descriptor is too many the sense says which (SPC-4 6.4)."""
    told = initiator.command(0, "84030000000000000000000000ff0000").data
    cscds, segments, longest = u16(told, 8), u16(told, 10), u32(told, 12)
    assert longest == cscds * CSCD + segments * SEGMENT
    assert extended_copy(initiator, cscds + 1, segments + 1).fault == (5, 0x1A, 0)
    assert extended_copy(initiator, cscds + 1, 1).fault == (5, 0x26, 6)
    assert extended_copy(initiator, 1, segments + 1).fault == (5, 0x26, 8)


def test_write_same_of_no_blocks_is_refused_as_page_b0_says(
    initiator: Initiator, reference: ReferenceTarget
) -> None:
    """WSNZ: one small command cannot overwrite the rest of a disk."""
    page_b0 = initiator.command(0, "1201b0004000").data
    assert page_b0[4] & 1
    assert initiator.write_same(0, 100, 0, bytes(512)).fault == (5, 0x24, 0)
    assert reference.read(0, 100, 1).startswith(b"L0B00000100")


@pytest.mark.parametrize("length", [0, 256, 511, 513, 1024, 4096])
def test_write_same_takes_just_one_block(
    initiator: Initiator, reference: ReferenceTarget, length: int
) -> None:
    """An initiator that takes the blocks for larger or smaller ones writes nothing."""
    assert initiator.write_same(0, 100, 1, b"x" * length).fault == (5, 0x24, 0)
    assert reference.read(0, 100, 1).startswith(b"L0B00000100")
    assert initiator.write_same(0, 100, 1, b"x" * 512).good
    assert reference.read(0, 100, 1) == b"x" * 512
