"""The commands of a token copy: POPULATE TOKEN, RECEIVE ROD TOKEN INFORMATION, WRITE USING TOKEN.

Standard library only. Uses `sg.py` or `blk_mailbox.py` to send them. Clauses are those of SPC-4 and SBC-4.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from blk_mailbox import MailboxDisk
    from sg import ScsiDisk

    Disk = ScsiDisk | MailboxDisk

INQUIRY = 0x12
THIRD_PARTY_COPY_OUT = 0x83
THIRD_PARTY_COPY_IN = 0x84
POPULATE_TOKEN = 0x10
WRITE_USING_TOKEN = 0x11
RECEIVE_ROD_TOKEN_INFORMATION = 0x07

UNIT_SERIAL_NUMBER = 0x80
THIRD_PARTY_COPY = 0x8F
BLOCK_DEVICE_ROD_LIMITS = 0x0000  # descriptor type in page 8Fh, SBC-4 6.6.9

TOKEN_LENGTH = 512
TOKEN_DESCRIPTOR_LENGTH = 2 + TOKEN_LENGTH
ROD_INFORMATION_LENGTH = 32 + 255 + 4 + TOKEN_DESCRIPTOR_LENGTH  # header, longest sense data, one token
COMPLETED_WITHOUT_ERRORS = {0x01, 0x03}  # SPC-4 6.24, COPY OPERATION STATUS
DEFAULT_WRITE_BYTES = 64 << 20  # what Windows takes if the disk names no optimum
PATIENT_SECONDS = 300
"""How long a token should live without being used: a guest without KVM, on a busy host, takes its time."""


class OdxError(Exception):
    """The disk answered, and the answer breaks the rules of a token copy."""


@dataclass(frozen=True)
class Limits:
    """What the disk allows, in blocks; 0 means that it names no limit (page 8Fh). Times are in seconds."""

    maximum_token_transfer: int
    optimal_transfer: int
    maximum_inactivity: int

    def populate_blocks(self, wanted: int) -> int:
        """How many of `wanted` blocks one token may stand for."""
        return min(wanted, self.maximum_token_transfer or wanted)

    @property
    def inactivity_timeout(self) -> int:
        """Seconds to ask for, so that a slow guest's token lives long enough."""
        return min(PATIENT_SECONDS, self.maximum_inactivity)

    def write_blocks(self, wanted: int, block_size: int) -> int:
        """How many of `wanted` blocks to ask of one WRITE USING TOKEN."""
        optimum = self.optimal_transfer or DEFAULT_WRITE_BYTES // block_size
        return min(wanted, optimum, self.maximum_token_transfer or wanted)


@dataclass(frozen=True)
class Token:
    """512 bytes (`data`) that stand for `length` bytes of some disk as they were."""

    data: bytes
    length: int


def inquiry_page(disk: Disk, page: int, length: int = 1024) -> bytes:
    """A vital product data page, without its four bytes of header."""
    answer = disk.read(struct.pack(">BBBHB", INQUIRY, 0x01, page, length, 0), length)
    return answer[4 : 4 + int.from_bytes(answer[2:4], "big")]


def serial_number(disk: Disk) -> str:
    """The unit serial number."""
    return inquiry_page(disk, UNIT_SERIAL_NUMBER).decode("ascii", "replace").strip()


def limits(disk: Disk) -> Limits:
    """The limits of token copies. Raises OdxError if the disk does not offer them."""
    if THIRD_PARTY_COPY not in inquiry_page(disk, 0x00):
        raise OdxError(f"{disk.node} offers no token copy: page 8Fh is not in its list of pages")
    page = inquiry_page(disk, THIRD_PARTY_COPY)
    kind, length = struct.unpack_from(">HH", page)
    if kind != BLOCK_DEVICE_ROD_LIMITS or length != 0x20:
        raise OdxError(f"page 8Fh of {disk.node} does not begin with the limits of token copies")
    inactivity, maximum, optimal = struct.unpack_from(">I4xQQ", page, 12)
    return Limits(maximum, optimal, inactivity)


def populate_token(
    disk: Disk, list_identifier: int, lba: int, blocks: int, *, inactivity_timeout: int = 0
) -> bytes:
    """Have the disk make a token for `blocks` blocks from `lba` on, as they are now; its 512 bytes.

    Unused for `inactivity_timeout` seconds it expires; 0 stands for the disk's default.
    """
    ranges = _range(lba, blocks)
    header = struct.pack(">HBxIIxxH", 14 + len(ranges), 0, inactivity_timeout, 0, len(ranges))
    _copy_out(disk, POPULATE_TOKEN, list_identifier, header + ranges)
    token, transferred = _receive_token(disk, list_identifier)
    if transferred != blocks:
        raise OdxError(f"the token of {disk.node} stands for {transferred} blocks instead of {blocks}")
    return token


def write_using_token(
    disk: Disk, list_identifier: int, token: bytes, *, offset: int, lba: int, blocks: int
) -> None:
    """Have the disk write `blocks` blocks from `lba` on, taken from `offset` blocks into the token's data.

    All three are counted in blocks of the disk that is written (SBC-4 table 155, OFFSET INTO ROD).
    """
    ranges = _range(lba, blocks)
    header = struct.pack(">HB5xQ512s6xH", 534 + len(ranges), 0, offset, token, len(ranges))
    _copy_out(disk, WRITE_USING_TOKEN, list_identifier, header + ranges)


def _range(lba: int, blocks: int) -> bytes:
    """A block device range descriptor, SBC-4 table 46."""
    return struct.pack(">QI4x", lba, blocks)


def _copy_out(disk: Disk, action: int, list_identifier: int, parameters: bytes) -> None:
    disk.write(
        struct.pack(">BB4xIIBB", THIRD_PARTY_COPY_OUT, action, list_identifier, len(parameters), 0, 0),
        parameters,
    )


def _receive_token(disk: Disk, list_identifier: int) -> tuple[bytes, int]:
    """The token that the operation `list_identifier` made, and its TRANSFER COUNT in blocks."""
    cdb = struct.pack(
        ">BBI4xIBB",
        THIRD_PARTY_COPY_IN,
        RECEIVE_ROD_TOKEN_INFORMATION,
        list_identifier,
        ROD_INFORMATION_LENGTH,
        0,
        0,
    )
    answer = disk.read(cdb, ROD_INFORMATION_LENGTH)
    if len(answer) < 36 or answer[5] & 0x7F not in COMPLETED_WITHOUT_ERRORS:
        raise OdxError(f"{disk.node} made no token: copy operation status {answer[5:6].hex()}h")
    start = 32 + answer[13]
    (length,) = struct.unpack_from(">I", answer, start)
    token = answer[start + 6 : start + 6 + TOKEN_LENGTH]
    if length != TOKEN_DESCRIPTOR_LENGTH or len(token) != TOKEN_LENGTH:
        raise OdxError(f"{disk.node} returned {length} bytes of tokens instead of {TOKEN_DESCRIPTOR_LENGTH}")
    return token, int.from_bytes(answer[16:24], "big")
