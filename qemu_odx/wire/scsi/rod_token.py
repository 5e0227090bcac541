"""The 512-byte ROD token (SPC-4 5.17.6.4, block device specifics SBC-5 4.28.3) and the types of ROD.

Imports `wire/scsi/fields`. Minted and checked in `tokens/`, carried by `wire/scsi/token_lists`.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING

from qemu_odx.wire.scsi.fields import put16, put32, u16, u32, u64

if TYPE_CHECKING:
    from qemu_odx.wire.scsi.fields import Buffer

TOKEN_SIZE = 512
ROD_TOKEN_LENGTH = 0x1F8
"""ROD TOKEN LENGTH, bytes 6-7: what follows them."""
MANAGEMENT_SIZE = 96
"""Bytes 0-95, the ROD management token: all that REPORT ALL ROD TOKENS may show."""
SECRET_OFFSET = 256
SECRET_SIZE = TOKEN_SIZE - SECRET_OFFSET
"""EXTENDED ROD TOKEN DATA; at least 256 bits of it random (SPC-4 5.17.6.4)."""
CSCD_SIZE = 32


class RodType(IntEnum):
    """ROD types (SPC-4 5.17.6, SBC-5 4.28)."""

    FROM_TOKEN = 0x00000000
    ACCESS_UPON_REFERENCE = 0x00010000
    POINT_IN_TIME_DEFAULT = 0x00800000
    POINT_IN_TIME_CHANGE_VULNERABLE = 0x00800001
    POINT_IN_TIME_PERSISTENT = 0x00800002
    POINT_IN_TIME_ANY = 0x0080FFFF
    BLOCK_ZERO = 0xFFFF0001


MINTED_TYPES = frozenset(
    {
        RodType.POINT_IN_TIME_DEFAULT,
        RodType.POINT_IN_TIME_CHANGE_VULNERABLE,
        RodType.POINT_IN_TIME_PERSISTENT,
    }
)
"""What a token made here may say; "any" is only a request."""


@dataclass(frozen=True, slots=True)
class TokenHeader:
    """The readable part of a token, bytes 0-255.

    Attributes:
        rod_type: ROD TOKEN TYPE.
        identifier: COPY MANAGER ROD TOKEN IDENTIFIER, 64 bits.
        creator: CREATOR LOGICAL UNIT DESCRIPTOR, 32 bytes, an E4h CSCD descriptor.
        length: NUMBER OF BYTES REPRESENTED.
        block_size: LOGICAL BLOCK LENGTH IN BYTES of the creator.
        provisioning: bytes 101-103: P_I_EXPONENT and LBPPBE, then LBPME, LBPRZ and lowest aligned LBA.
        target: TARGET DEVICE DESCRIPTOR, a designation descriptor, at most 128 bytes.
    """

    rod_type: int
    identifier: int
    creator: bytes
    length: int
    block_size: int
    provisioning: bytes
    target: bytes

    def token(self, secret: bytes) -> bytes:
        """The 512 bytes of the token with `secret` (256 bytes) at its end."""
        data = bytearray(TOKEN_SIZE)
        put32(data, 0, self.rod_type)
        put16(data, 6, ROD_TOKEN_LENGTH)
        data[8:16] = self.identifier.to_bytes(8, "big")
        data[16:48] = self.creator.ljust(CSCD_SIZE, b"\0")
        data[48:64] = self.length.to_bytes(16, "big")
        put32(data, 96, self.block_size)
        data[101:104] = self.provisioning
        data[128 : 128 + len(self.target)] = self.target
        data[SECRET_OFFSET:] = secret
        return bytes(data)


def rod_type(token: Buffer) -> int:
    """ROD TOKEN TYPE."""
    return u32(token, 0)


def identifier(token: Buffer) -> int:
    """COPY MANAGER ROD TOKEN IDENTIFIER."""
    return u64(token, 8)


def length_field(token: Buffer) -> int:
    """ROD TOKEN LENGTH; anything but 01F8h is wrong."""
    return u16(token, 6)


def bytes_represented(token: Buffer) -> int:
    """NUMBER OF BYTES REPRESENTED, 128 bits."""
    return int.from_bytes(token[48:64], "big")


def zero_token() -> bytes:
    """The block device zero ROD token: well known, never minted (SBC-5 4.28.3)."""
    data = bytearray(TOKEN_SIZE)
    put32(data, 0, RodType.BLOCK_ZERO)
    put16(data, 6, ROD_TOKEN_LENGTH)
    return bytes(data)


def is_zero_token(token: Buffer) -> bool:
    """True for the block device zero token; early drafts gave it ROD TOKEN LENGTH 0, which is taken too."""
    return rod_type(token) == RodType.BLOCK_ZERO and length_field(token) in {0, ROD_TOKEN_LENGTH}


def identification_cscd(designator: bytes, block_size: int) -> bytes:
    """An identification descriptor CSCD (type E4h, SPC-4) for a disk named by a NAA designator.

    Args:
        designator: 8 or 16 bytes of NAA designator.
        block_size: DISK BLOCK LENGTH in bytes.
    """
    body = bytes((0x01, 0x03, 0x00, len(designator))) + designator.ljust(20, b"\0")
    return bytes((0xE4, 0, 0, 0)) + body + bytes(1) + block_size.to_bytes(3, "big")
