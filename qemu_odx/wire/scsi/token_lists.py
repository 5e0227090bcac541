"""Parameter lists and parameter data of token copy: POPULATE TOKEN, WRITE USING TOKEN, the RECEIVE commands.

Imports `wire/scsi/fields` and `rod_token`. Parsing only cuts bytes into values; what is wrong with a value is
decided in `target/commands/copy.py`, in the order of the standard.
"""

from __future__ import annotations

from dataclasses import dataclass

from qemu_odx.wire.scsi.fields import put16, put32, put64, u16, u32, u64
from qemu_odx.wire.scsi.rod_token import TOKEN_SIZE

POPULATE_HEADER = 16
"""Bytes before the range descriptors of POPULATE TOKEN (SBC-5 5.12)."""
WRITE_HEADER = 536
"""Bytes before the range descriptors of WRITE USING TOKEN (SBC-5 5.59)."""
RANGE_SIZE = 16
BLOCKS_UNITS = 0xF1
"""TRANSFER COUNT UNITS: logical blocks (SPC-4 6.24)."""
DELAY_WHEN_DONE = 0xFFFFFFFE
"""ESTIMATED STATUS UPDATE DELAY of a finished copy (SPC-4 6.24)."""


@dataclass(frozen=True, slots=True)
class Range:
    """A block device range descriptor: LBA and NUMBER OF LOGICAL BLOCKS, which may be 0."""

    lba: int
    blocks: int

    @property
    def end(self) -> int:
        """The LBA after the last block."""
        return self.lba + self.blocks

    def packed(self) -> bytes:
        """The 16 bytes of the descriptor."""
        return self.lba.to_bytes(8, "big") + self.blocks.to_bytes(4, "big") + bytes(4)


def ranges(data: bytes, header: int, descriptor_length: int) -> tuple[Range, ...]:
    """The complete range descriptors after a header; an incomplete last one is ignored (SBC-5 5.12)."""
    usable = min(descriptor_length, len(data) - header) // RANGE_SIZE * RANGE_SIZE
    places = range(header, header + usable, RANGE_SIZE)
    return tuple(Range(u64(data, at), u32(data, at + 8)) for at in places)


@dataclass(frozen=True, slots=True)
class PopulateToken:
    """POPULATE TOKEN parameter list (SBC-5 5.12).

    Attributes:
        data_length: POPULATE TOKEN DATA LENGTH, total - 2.
        immediate: IMMED.
        rod_type: ROD TYPE, None unless RTV is set.
        inactivity_timeout: seconds, 0 for the default.
        descriptor_length: RANGE DESCRIPTOR LENGTH in bytes.
    """

    data_length: int
    immediate: bool
    rod_type: int | None
    inactivity_timeout: int
    descriptor_length: int
    ranges: tuple[Range, ...]

    @classmethod
    def parse(cls, data: bytes) -> PopulateToken:
        """Cut a list of at least 16 bytes."""
        kind = u32(data, 8) if data[2] & 2 else None
        length = u16(data, 14)
        ranged = ranges(data, POPULATE_HEADER, length)
        return cls(u16(data, 0), bool(data[2] & 1), kind, u32(data, 4), length, ranged)

    def packed(self) -> bytes:
        """The list as an initiator sends it."""
        data = bytearray(POPULATE_HEADER)
        put16(data, 0, self.data_length)
        data[2] = (2 if self.rod_type is not None else 0) | self.immediate
        put32(data, 4, self.inactivity_timeout)
        put32(data, 8, self.rod_type or 0)
        put16(data, 14, self.descriptor_length)
        return bytes(data) + b"".join(item.packed() for item in self.ranges)


@dataclass(frozen=True, slots=True)
class WriteUsingToken:
    """WRITE USING TOKEN parameter list (SBC-5 5.59).

    Attributes:
        data_length: WRITE USING TOKEN DATA LENGTH, total - 2.
        delete_token: DEL_TKN.
        immediate: IMMED.
        offset: OFFSET INTO ROD in blocks of the logical unit that is written.
        token: the 512 bytes of the ROD token.
        descriptor_length: RANGE DESCRIPTOR LENGTH in bytes.
    """

    data_length: int
    delete_token: bool
    immediate: bool
    offset: int
    token: bytes
    descriptor_length: int
    ranges: tuple[Range, ...]

    @classmethod
    def parse(cls, data: bytes) -> WriteUsingToken:
        """Cut a list of at least 536 bytes."""
        length = u16(data, 534)
        ranged = ranges(data, WRITE_HEADER, length)
        token = bytes(data[16 : 16 + TOKEN_SIZE])
        flags = data[2]
        return cls(u16(data, 0), bool(flags & 2), bool(flags & 1), u64(data, 8), token, length, ranged)

    def packed(self) -> bytes:
        """The list as an initiator sends it."""
        data = bytearray(WRITE_HEADER)
        put16(data, 0, self.data_length)
        data[2] = (self.delete_token << 1) | self.immediate
        put64(data, 8, self.offset)
        data[16 : 16 + TOKEN_SIZE] = self.token
        put16(data, 534, self.descriptor_length)
        return bytes(data) + b"".join(item.packed() for item in self.ranges)


@dataclass(frozen=True, slots=True)
class CopyStatus:
    """What RECEIVE COPY STATUS(LID4) and RECEIVE ROD TOKEN INFORMATION tell (SPC-4 6.24, 6.26).

    Attributes:
        service_action: of the command that started the copy.
        status: COPY OPERATION STATUS.
        counter: OPERATION COUNTER, 16 bits.
        delay: ESTIMATED STATUS UPDATE DELAY in ms.
        completion: EXTENDED COPY COMPLETION STATUS, a SAM status.
        sense: fixed-format sense data or nothing.
        units: TRANSFER COUNT UNITS.
        count: TRANSFER COUNT.
        segments: SEGMENTS PROCESSED (EXTENDED COPY only).
    """

    service_action: int
    status: int
    counter: int
    delay: int
    completion: int
    sense: bytes
    units: int
    count: int
    segments: int = 0

    def _body(self) -> bytes:
        data = bytearray(32)
        data[4], data[5] = self.service_action, self.status
        put16(data, 6, self.counter & 0xFFFF)
        put32(data, 8, self.delay)
        field = self.sense + bytes(-len(self.sense) % 4)
        data[12], data[13], data[14], data[15] = self.completion, len(field), len(self.sense), self.units
        put64(data, 16, self.count)
        put16(data, 24, self.segments)
        return bytes(data) + field

    def packed(self, tail: bytes = b"") -> bytes:
        """The parameter data with AVAILABLE DATA filled in; `tail` goes behind the sense data field."""
        data = bytearray(self._body() + tail)
        put32(data, 0, len(data) - 4)
        return bytes(data)

    def with_token(self, token: bytes | None) -> bytes:
        """RECEIVE ROD TOKEN INFORMATION data: the ROD token descriptors follow, none if `token` is None."""
        descriptors = bytes(2) + token if token else b""
        return self.packed(len(descriptors).to_bytes(4, "big") + descriptors)


@dataclass(frozen=True, slots=True)
class TokenInformation:
    """RECEIVE ROD TOKEN INFORMATION data as an initiator reads it."""

    status: CopyStatus
    token: bytes | None

    @classmethod
    def parse(cls, data: bytes) -> TokenInformation:
        """Cut at least 32 bytes of parameter data.

        Raises:
            ValueError: shorter than 32 bytes, or than its own lengths say.
        """
        if len(data) < 32:
            raise ValueError(f"copy status of {len(data)} bytes, at least 32 expected")
        field, real = data[13], data[14]
        status = CopyStatus(
            service_action=data[4] & 0x1F,
            status=data[5] & 0x7F,
            counter=u16(data, 6),
            delay=u32(data, 8),
            completion=data[12],
            sense=data[32 : 32 + real],
            units=data[15],
            count=u64(data, 16),
            segments=u16(data, 24),
        )
        at = 32 + field
        if len(data) < at + 4:
            return cls(status, None)
        descriptors = u32(data, at)
        token = data[at + 6 : at + 6 + TOKEN_SIZE]
        if descriptors == 0:
            return cls(status, None)
        if len(token) != TOKEN_SIZE:
            raise ValueError("the ROD token descriptor is cut off: ask with a larger ALLOCATION LENGTH")
        return cls(status, token)
