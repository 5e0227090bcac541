"""Which blocks of its logical unit a command names, whatever its form.

Imports `wire/scsi`. For those who watch or disturb commands by place: traces, faults, statistics. Commands decide by
the fields themselves, in `target/commands/`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from qemu_odx.wire.scsi import opcodes
from qemu_odx.wire.scsi.cdb import block_cdb
from qemu_odx.wire.scsi.fields import u32, u64
from qemu_odx.wire.scsi.token_lists import POPULATE_HEADER, WRITE_HEADER, PopulateToken, WriteUsingToken

if TYPE_CHECKING:
    from collections.abc import Iterable

    from qemu_odx.wire.scsi.opcodes import Operation

_BLOCK_NAMES: Final = (
    "READ",
    "WRITE",
    "WRITE AND VERIFY",
    "VERIFY",
    "PRE-FETCH",
    "SYNCHRONIZE CACHE",
    "WRITE SAME",
)
BLOCK_COMMANDS: Final = frozenset(
    row.name
    for row in opcodes.OPERATIONS
    if row.name.partition("(")[0] in _BLOCK_NAMES or row.name == "ORWRITE(16)"
)
"""Commands whose CDB has LBA and block count in the places of its group (SBC-3 clause 5)."""
_UNMAP_HEADER: Final = 8
_UNMAP_DESCRIPTOR: Final = 16
"""Bytes of an UNMAP block descriptor: LBA and number of blocks (SBC-3 5.28.2)."""


class Span(NamedTuple):
    """Some blocks in a row. `blocks` is 0 where the command does not say how many."""

    lba: int
    blocks: int

    def meets(self, other: Span) -> bool:
        """True if they share a block; one of no blocks meets what its first block lies in."""
        return self.lba < other.lba + max(other.blocks, 1) and other.lba < self.lba + max(self.blocks, 1)


def in_parameter_list(operation: Operation | None) -> bool:
    """True if the blocks stand in the parameter list and not in the CDB."""
    return operation is not None and operation.name in _LISTS


def spans(cdb: bytes, parameters: bytes = b"") -> tuple[Span, ...]:
    """The blocks a command names, in its order; none for a command that names none, or not soundly.

    Args:
        cdb: the whole CDB.
        parameters: its parameter list, looked at only if `in_parameter_list`.
    """
    operation = opcodes.find(cdb)
    if operation is None or len(cdb) < operation.length:
        return ()
    name = operation.name
    if name in BLOCK_COMMANDS:
        fields = block_cdb(cdb)
        return (Span(fields.lba, fields.count),)
    if name == "COMPARE AND WRITE":
        return (Span(u64(cdb, 2), cdb[13]),)
    if name == "GET LBA STATUS":
        return (Span(u64(cdb, 2), 0),)
    return tuple(_LISTS[name](parameters)) if name in _LISTS else ()


def _populate(data: bytes) -> Iterable[Span]:
    parsed = PopulateToken.parse(data).ranges if len(data) >= POPULATE_HEADER else ()
    return (Span(item.lba, item.blocks) for item in parsed)


def _write(data: bytes) -> Iterable[Span]:
    parsed = WriteUsingToken.parse(data).ranges if len(data) >= WRITE_HEADER else ()
    return (Span(item.lba, item.blocks) for item in parsed)


def _unmap(data: bytes) -> Iterable[Span]:
    whole = (len(data) - _UNMAP_HEADER) // _UNMAP_DESCRIPTOR * _UNMAP_DESCRIPTOR
    places = range(_UNMAP_HEADER, _UNMAP_HEADER + whole, _UNMAP_DESCRIPTOR)
    return (Span(u64(data, at), u32(data, at + 8)) for at in places)


_LISTS: Final = {"POPULATE TOKEN": _populate, "WRITE USING TOKEN": _write, "UNMAP": _unmap}
