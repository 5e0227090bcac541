"""WRITE BUFFER and READ BUFFER in vendor-specific mode, in which guests arm and release fault rules.

Imports `wire/scsi/fields`. Layouts: SPC-4 6.20 (READ BUFFER), 6.49 (WRITE BUFFER). What the buffer holds is
`docs/faults/guest-control.md`'s.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from qemu_odx.wire.scsi.fields import u24

WRITE_BUFFER: Final = 0x3B
READ_BUFFER: Final = 0x3C
VENDOR_SPECIFIC: Final = 0x01
"""MODE: the meaning of buffer identifier, offset and data is the vendor's."""


class BufferCdb(NamedTuple):
    """The fields of either CDB: MODE, BUFFER ID, BUFFER OFFSET, and the length of the list or the allocation."""

    mode: int
    buffer: int
    offset: int
    length: int


def buffer_cdb(cdb: bytes) -> BufferCdb:
    """Read the CDB of WRITE BUFFER or READ BUFFER."""
    return BufferCdb(cdb[1] & 0x1F, cdb[2], u24(cdb, 3), u24(cdb, 6))


def is_guest_control(cdb: bytes) -> bool:
    """True for either command in vendor-specific mode."""
    return cdb[0] in {WRITE_BUFFER, READ_BUFFER} and cdb[1] & 0x1F == VENDOR_SPECIFIC
