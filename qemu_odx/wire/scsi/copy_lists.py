"""EXTENDED COPY parameter lists, and the parameter data of its RECEIVE commands (SPC-4).

Imports `wire/scsi/fields`. What is wrong with a list is decided in `target/commands/extended_copy.py`.
"""

from __future__ import annotations

from dataclasses import dataclass

from qemu_odx.wire.scsi.fields import put16, put32, u16, u32, u64, with_length

CSCD_SIZE = 32
SEGMENT_SIZE = 28
IDENTIFICATION_CSCD = 0xE4
BLOCK_TO_BLOCK = 0x02
THIS_UNIT = 0xFFFF
"""CSCD descriptor ID of the logical unit that received the command (SPC-4 6.4)."""


@dataclass(frozen=True, slots=True)
class ListShape:
    """Where the fields of a LID1 or LID4 list are.

    Attributes:
        header: bytes before the CSCD descriptors.
        cscd_length, segment_length, inline_length: offset of each length field.
        segment_width: width of the segment and inline length fields.
    """

    header: int
    cscd_length: int
    segment_length: int
    inline_length: int
    segment_width: int


LID1 = ListShape(16, 2, 8, 12, 4)
LID4 = ListShape(48, 42, 44, 46, 2)


@dataclass(frozen=True, slots=True)
class Segment:
    """A block to block segment descriptor (type 02h).

    Attributes:
        kind: DESCRIPTOR TYPE CODE.
        length: DESCRIPTOR LENGTH field.
        destination_counts: DC: the count is in blocks of the destination.
        source, destination: CSCD descriptor IDs.
        blocks: BLOCK DEVICE NUMBER OF BLOCKS.
    """

    kind: int
    length: int
    destination_counts: bool
    source: int
    destination: int
    blocks: int
    source_lba: int
    destination_lba: int

    @classmethod
    def parse(cls, data: bytes) -> Segment:
        """Cut 28 bytes."""
        dc = bool(data[1] & 2)
        return cls(
            data[0], u16(data, 2), dc, u16(data, 4), u16(data, 6), u16(data, 10), u64(data, 12), u64(data, 20)
        )


@dataclass(frozen=True, slots=True)
class CopyList:
    """An EXTENDED COPY parameter list.

    Attributes:
        list_identifier: 8 or 32 bits.
        usage: LIST ID USAGE.
        immediate: IMMED (LID4 only).
        cscd_length, segment_length, inline_length: bytes, as the header says.
        body: what follows the header.
    """

    list_identifier: int
    usage: int
    immediate: bool
    cscd_length: int
    segment_length: int
    inline_length: int
    body: bytes

    @classmethod
    def parse(cls, data: bytes, shape: ListShape) -> CopyList:
        """Cut a list that is at least as long as its header."""

        def width(at: int) -> int:
            return int.from_bytes(data[at : at + shape.segment_width], "big")

        lid4 = shape is LID4
        return cls(
            list_identifier=u32(data, 20) if lid4 else data[0],
            usage=data[1] >> 3 & 3,
            immediate=lid4 and bool(data[15] & 1),
            cscd_length=u16(data, shape.cscd_length),
            segment_length=width(shape.segment_length),
            inline_length=width(shape.inline_length),
            body=data[shape.header :],
        )

    @property
    def described(self) -> int:
        """Bytes of body that the header announces."""
        return self.cscd_length + self.segment_length + self.inline_length

    def cscds(self) -> list[bytes]:
        """CSCD descriptors of 32 bytes."""
        return [self.body[at : at + CSCD_SIZE] for at in range(0, self.cscd_length, CSCD_SIZE)]

    def segments(self) -> list[Segment] | None:
        """Segment descriptors, or None if one is cut short or of a type other than block to block."""
        found, at, end = [], self.cscd_length, self.cscd_length + self.segment_length
        while at < end:
            if at + SEGMENT_SIZE > end or self.body[at] != BLOCK_TO_BLOCK:
                return None
            found.append(Segment.parse(self.body[at : at + SEGMENT_SIZE]))
            at += 4 + found[-1].length
        return found


def operating_parameters(max_cscd: int, max_segments: int, max_list: int, max_copies: int) -> bytes:
    """RECEIVE COPY OPERATING PARAMETERS data (SPC-4 6.22)."""
    data = bytearray(44)
    data[4] = 0x01  # SNLID: a list identifier is not needed
    put16(data, 8, max_cscd)
    put16(data, 10, max_segments)
    put32(data, 12, max_list)
    put16(data, 34, max_copies)
    data[36] = min(max_copies, 255)
    codes = bytes((BLOCK_TO_BLOCK, IDENTIFICATION_CSCD))
    data[43] = len(codes)
    body = bytes(data[4:]) + codes
    return with_length(body, b"", 4)


def status_lid1(status: int, segments: int, units: int, count: int) -> bytes:
    """RECEIVE COPY STATUS(LID1) data: status 0 in progress, 1 done, 2 done with errors."""
    data = bytearray(12)
    put32(data, 0, 8)
    data[4] = status
    put16(data, 5, segments)
    data[7] = units
    put32(data, 8, count)
    return bytes(data)


def failure_details(status: int, sense: bytes) -> bytes:
    """RECEIVE COPY FAILURE DETAILS(LID1) data: SAM status and sense of the failed copy."""
    data = bytearray(60)
    data[56] = status
    put16(data, 58, len(sense))
    put32(data, 0, len(data) + len(sense) - 4)
    return bytes(data) + sense
