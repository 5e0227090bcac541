"""Fields of the CDBs, by their place in each group of commands.

Imports `wire/scsi/fields`. Used by `target/commands/`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from qemu_odx.wire.scsi.fields import u16, u24, u32, u64

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass(frozen=True, slots=True)
class BlockCdb:
    """What READ, WRITE and their relatives say (SBC-3 clause 5).

    Attributes:
        lba: LOGICAL BLOCK ADDRESS.
        count: TRANSFER LENGTH, VERIFICATION LENGTH or NUMBER OF LOGICAL BLOCKS, in blocks.
        flags: byte 1 of the CDB (0 for the 6-byte forms).
        lba_at: where the LBA stands in the CDB, for a field pointer.
        count_at: where the count stands in the CDB.
    """

    lba: int
    count: int
    flags: int
    lba_at: int
    count_at: int

    @property
    def protect(self) -> int:
        """RDPROTECT, WRPROTECT, VRPROTECT or ORPROTECT: bits 7-5 of byte 1."""
        return self.flags >> 5

    @property
    def fua(self) -> bool:
        """FORCE UNIT ACCESS."""
        return bool(self.flags & 0x08)

    @property
    def bytchk(self) -> int:
        """BYTE CHECK of VERIFY and WRITE AND VERIFY."""
        return (self.flags >> 1) & 3


def _six(cdb: bytes) -> BlockCdb:
    return BlockCdb(u24(cdb, 1) & 0x1FFFFF, cdb[4] or 256, 0, 1, 4)


def _ten(cdb: bytes) -> BlockCdb:
    return BlockCdb(u32(cdb, 2), u16(cdb, 7), cdb[1], 2, 7)


def _twelve(cdb: bytes) -> BlockCdb:
    return BlockCdb(u32(cdb, 2), u32(cdb, 6), cdb[1], 2, 6)


def _sixteen(cdb: bytes) -> BlockCdb:
    return BlockCdb(u64(cdb, 2), u32(cdb, 10), cdb[1], 2, 10)


_GROUPS: dict[int, Callable[[bytes], BlockCdb]] = {0: _six, 1: _ten, 2: _ten, 4: _sixteen, 5: _twelve}


def block_cdb(cdb: bytes) -> BlockCdb:
    """LBA and block count of a 6, 10, 12 or 16 byte CDB, by its group code (SPC-4 4.2.5)."""
    return _GROUPS[cdb[0] >> 5](cdb)


def control_naca(cdb: bytes, length: int) -> bool:
    """The NACA bit of the CONTROL byte (SAM-5 5.2)."""
    return bool(cdb[length - 1] & 0x04)
