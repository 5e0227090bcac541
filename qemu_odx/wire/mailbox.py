"""The mailbox as bytes: head page, request and response of `docs/mailbox.md`, version 1.

Pure; all integers little-endian. Next: `virtio/mailbox.py` serves it, `testing/mailbox.py` uses it.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from struct import Struct
from typing import Final
from zlib import crc32

VERSION: Final = 1
DEFAULT_OFFSET: Final = 512 << 10
"""Where `mailbox=on` puts the window on a disk."""
ALIGNMENT: Final = 4096
"""The window's place is a multiple of it."""

SLOTS: Final = 16
AREA: Final = 8192
"""Bytes of a request area or a response area; the head page is two of them."""
HEAD_PAGE: Final = 2 * AREA
SLOT: Final = 2 * AREA
WINDOW: Final = HEAD_PAGE + SLOTS * SLOT
"""Length of the window."""
LEASE: Final = 30
"""Seconds after its last command for which a slot is its user's."""

HEADER: Final = 96
"""Bytes of a request's or a response's header."""
MAX_DATA: Final = AREA - HEADER
MIN_CDB: Final = 6
MAX_CDB: Final = 32
MAX_SENSE: Final = 32

_HEAD_MAGIC: Final = b"QEMU-ODX-MAILBOX"
_REQUEST_MAGIC: Final = b"ODXQ"
_RESPONSE_MAGIC: Final = b"ODXA"
_HEAD: Final = Struct("<16s8IQQ16s20s20xI")
"""Everything but the checksum behind it."""
_REQUEST: Final = Struct("<4sHHQQIIII8x32s16x")
_RESPONSE: Final = Struct("<4sHHQQ6I32s16x")
_IDENTITY: Final = Struct("<8xQQ")
_CHECKSUM: Final = Struct("<I")
_REQUEST_CHECKSUM_AT: Final = 36
_RESPONSE_CHECKSUM_AT: Final = 44
_GEOMETRY: Final = (SLOTS, SLOT, HEAD_PAGE, AREA, MAX_DATA, MAX_DATA)


class Result(IntEnum):
    """What became of a request, before any SCSI status."""

    EXECUTED = 0
    BAD_MAGIC = 1
    BAD_VERSION = 2
    BAD_LENGTH = 3
    BAD_CHECKSUM = 4
    BAD_SEQUENCE = 5
    SLOT_TAKEN = 6
    BAD_USER = 7


class MailboxFormatError(ValueError):
    """Bytes that are no head page or no response; the text says what is wrong."""


@dataclass(frozen=True, slots=True)
class Head:
    """The fields of the head page that differ from disk to disk.

    Attributes:
        offset: of the window on the disk, in bytes.
        block_size: logical block size of the disk.
        naa: 16-byte NAA designator of the logical unit.
        serial: unit serial number, at most 20 ASCII characters.
    """

    offset: int
    block_size: int
    naa: bytes
    serial: str

    def packed(self) -> bytes:
        """The 128 bytes."""
        serial = self.serial.encode("ascii")
        geometry = (VERSION, *_GEOMETRY, self.block_size)
        body = _HEAD.pack(_HEAD_MAGIC, *geometry, self.offset, WINDOW, self.naa, serial, LEASE)
        return body + _CHECKSUM.pack(crc32(body))

    @classmethod
    def parse(cls, data: bytes) -> Head:
        """The head at the start of `data`.

        Raises:
            MailboxFormatError: there is none of this version and geometry.
        """
        if len(data) < _HEAD.size + _CHECKSUM.size or not data.startswith(_HEAD_MAGIC):
            raise MailboxFormatError("no mailbox begins here")
        _, version, *geometry, block, offset, length, naa, serial, lease = _HEAD.unpack_from(data)
        if _CHECKSUM.unpack_from(data, _HEAD.size) != (crc32(data[: _HEAD.size]),):
            raise MailboxFormatError("the head of the mailbox has a wrong checksum")
        if (version, *geometry, length, lease) != (VERSION, *_GEOMETRY, WINDOW, LEASE):
            raise MailboxFormatError(f"a mailbox of version {version} and geometry {geometry} is not known")
        return cls(offset, block, naa, serial.rstrip(b"\0").decode("ascii"))


@dataclass(frozen=True, slots=True)
class Request:
    """A command on its way in.

    Attributes:
        sequence: greater than that of the user's last request in the slot.
        user: who sends it, not 0.
        cdb: 6 to 32 bytes.
        data_out: at most `MAX_DATA` bytes.
        wanted: most data-in bytes to return.
    """

    sequence: int
    user: int
    cdb: bytes
    data_out: bytes = b""
    wanted: int = 0

    def packed(self) -> bytes:
        """Header and data-out; fill up to whole sectors with anything."""
        lengths = (len(self.cdb), len(self.data_out), self.wanted)
        header = _REQUEST.pack(
            _REQUEST_MAGIC, VERSION, HEADER, self.sequence, self.user, *lengths, 0, self.cdb
        )
        return _sealed(header + self.data_out, _REQUEST_CHECKSUM_AT)

    @classmethod
    def parse(cls, page: bytes) -> Request:
        """The request in a page in which `fault` finds nothing."""
        _, _, _, sequence, user, cdb, out, wanted, _, padded = _REQUEST.unpack_from(page)
        return cls(sequence, user, padded[:cdb], page[HEADER : HEADER + out], wanted)


def identity(page: bytes) -> tuple[int, int]:
    """Sequence and user as a request page (at least a sector) has them, whatever else is wrong with it."""
    sequence, user = _IDENTITY.unpack_from(page)
    return sequence, user


def fault(page: bytes) -> Result:
    """What the bytes of a request page alone say against it; EXECUTED if nothing.

    Args:
        page: what was written, from the first byte of the slot on, at least one sector.
    """
    magic, version, header, _, user, cdb, out, wanted, checksum, _ = _REQUEST.unpack_from(page)
    if magic != _REQUEST_MAGIC:
        return Result.BAD_MAGIC
    if (version, header) != (VERSION, HEADER):
        return Result.BAD_VERSION
    if not MIN_CDB <= cdb <= MAX_CDB or out > min(MAX_DATA, len(page) - HEADER) or wanted > MAX_DATA:
        return Result.BAD_LENGTH
    if checksum != _checksum(page[: HEADER + out], _REQUEST_CHECKSUM_AT):
        return Result.BAD_CHECKSUM
    return Result.EXECUTED if user else Result.BAD_USER


@dataclass(frozen=True, slots=True)
class Response:
    """The end of a request.

    Attributes:
        sequence: that of the request.
        user: that of the request.
        result: whether the command was executed at all.
        status: SCSI status.
        sense: fixed format, at most `MAX_SENSE` bytes.
        data_in: at most `MAX_DATA` bytes.
        offered: data-in bytes before they were cut to what was wanted.
    """

    sequence: int
    user: int
    result: int
    status: int = 0
    sense: bytes = b""
    data_in: bytes = b""
    offered: int = 0

    def packed(self) -> bytes:
        """Header and data-in."""
        lengths = (len(self.sense), len(self.data_in), self.offered)
        header = _RESPONSE.pack(
            *(_RESPONSE_MAGIC, VERSION, HEADER, self.sequence, self.user),
            *(self.result, self.status, *lengths, 0, self.sense),
        )
        return _sealed(header + self.data_in, _RESPONSE_CHECKSUM_AT)

    @classmethod
    def parse(cls, page: bytes) -> Response:
        """The response at the start of a response area; sequence and user are the caller's to compare.

        Raises:
            MailboxFormatError: there is none, or it is damaged.
        """
        if len(page) < HEADER or not page.startswith(_RESPONSE_MAGIC):
            raise MailboxFormatError("the slot has no response")
        _, version, header, sequence, user, result, status, *rest = _RESPONSE.unpack_from(page)
        sense, length, offered, checksum, padded = rest
        if (version, header) != (VERSION, HEADER) or sense > MAX_SENSE or length > len(page) - HEADER:
            raise MailboxFormatError("the response has an unknown version or impossible lengths")
        if checksum != _checksum(page[: HEADER + length], _RESPONSE_CHECKSUM_AT):
            raise MailboxFormatError("the response has a wrong checksum")
        data = page[HEADER : HEADER + length]
        return cls(sequence, user, result, status, padded[:sense], data, offered)


def _checksum(message: bytes, at: int) -> int:
    """CRC-32 of a message, its own field taken as 0."""
    after = at + _CHECKSUM.size
    return crc32(message[after:], crc32(bytes(_CHECKSUM.size), crc32(message[:at])))


def _sealed(message: bytes, at: int) -> bytes:
    return message[:at] + _CHECKSUM.pack(_checksum(message, at)) + message[at + _CHECKSUM.size :]
