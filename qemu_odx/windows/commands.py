"""The CDBs and parameter lists of token copy, as Windows sends them.

Imports `wire`. IMMED, RTV and ROD TYPE are always 0; every reserved byte is 0 (class.c, xferpkt.c).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from qemu_odx.wire.scsi.token_lists import (
    POPULATE_HEADER,
    RANGE_SIZE,
    WRITE_HEADER,
    PopulateToken,
    Range,
    WriteUsingToken,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

POPULATE, WRITE, RECEIVE = b"\x83\x10", b"\x83\x11", b"\x84\x07"
_LIST_LENGTH_FIELD = 2
LEAST_MAXIMUM = 256
"""MIN_TOKEN_LIST_IDENTIFIERS: a smaller MaximumListIdentifier of the registry is ignored (classp.h)."""


@dataclass(slots=True)
class ListIdentifiers:
    """The counter of list identifiers: one for all disks of the machine, for reads and writes.

    Attributes:
        upcoming: the next one; the first ever is 0.
        maximum: the last before it starts at 0 again.
    """

    upcoming: int = 0
    maximum: int = 0xFFFFFFFF

    @classmethod
    def by_registry(cls, maximum: int) -> ListIdentifiers:
        """With the registry's MaximumListIdentifier (key Control/DISK of the current control set)."""
        return cls(maximum=maximum) if maximum >= LEAST_MAXIMUM else cls()

    def take(self) -> int:
        """The identifier of a new operation."""
        taken = self.upcoming
        self.upcoming = 0 if taken == self.maximum else taken + 1 & 0xFFFFFFFF
        return taken


def populate_token(ranges: Sequence[Range], time_to_live: int) -> bytes:
    """POPULATE TOKEN parameter list; the time goes in as it came."""
    length = RANGE_SIZE * len(ranges)
    whole = POPULATE_HEADER + length - _LIST_LENGTH_FIELD
    return PopulateToken(whole, False, None, time_to_live, length, tuple(ranges)).packed()


def write_using_token(ranges: Sequence[Range], token: bytes, offset: int) -> bytes:
    """WRITE USING TOKEN parameter list; `offset` in blocks."""
    length = RANGE_SIZE * len(ranges)
    whole = WRITE_HEADER + length - _LIST_LENGTH_FIELD
    return WriteUsingToken(whole, False, False, offset, token, length, tuple(ranges)).packed()


def originating_cdb(code: bytes, identifier: int, length: int) -> bytes:
    """CDB of POPULATE TOKEN or WRITE USING TOKEN."""
    return code + bytes(4) + identifier.to_bytes(4, "big") + length.to_bytes(4, "big") + bytes(2)


def receiving_cdb(identifier: int, allocation: int) -> bytes:
    """CDB of RECEIVE ROD TOKEN INFORMATION."""
    return RECEIVE + identifier.to_bytes(4, "big") + bytes(4) + allocation.to_bytes(4, "big") + bytes(2)
