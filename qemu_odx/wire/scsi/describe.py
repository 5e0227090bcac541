"""A CDB, a status and sense data in words: names and fields for traces and messages.

Imports `wire/scsi`. Parsing for execution is elsewhere; here nothing fails: what is cut or unknown is left out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from qemu_odx.wire.names import name_of
from qemu_odx.wire.scsi import opcodes, rod_token, sense
from qemu_odx.wire.scsi.cdb import block_cdb
from qemu_odx.wire.scsi.fields import u16, u32
from qemu_odx.wire.scsi.opcodes import Data
from qemu_odx.wire.scsi.rod_token import RodType
from qemu_odx.wire.scsi.sense import Key, Status
from qemu_odx.wire.scsi.spans import BLOCK_COMMANDS
from qemu_odx.wire.scsi.token_lists import POPULATE_HEADER, WRITE_HEADER, PopulateToken, WriteUsingToken

if TYPE_CHECKING:
    from qemu_odx.wire.scsi.opcodes import Operation

    Fields = dict[str, Any]

COPY_STATUS: Final = {
    0x01: "done",
    0x02: "error",
    0x03: "partial",
    0x10: "foreground or background",
    0x11: "foreground",
    0x12: "background",
    0x60: "terminated",
}
"""COPY OPERATION STATUS (SPC-4 6.24)."""
_HAS_IDENTIFIER_IN_MONITOR: Final = frozenset({"RECEIVE COPY STATUS(LID4)", "RECEIVE ROD TOKEN INFORMATION"})


def status_name(status: int) -> str:
    """The standard's name ("CHECK CONDITION"), or the number of one that has none."""
    return name_of(Status, status)


def sense_fields(data: bytes) -> Fields | None:
    """Sense data of either format in words; None if there is none."""
    found = sense.parse(data)
    if found is None:
        return None
    fields: Fields = {
        "key": name_of(Key, found.key, 1),
        "code": f"{found.asc:02X}/{found.ascq:02X}",
        "text": sense.TEXTS.get((found.asc, found.ascq), ""),
    }
    if found.information is not None:
        fields["information"] = found.information
    pointer = sense.pointer_of(data)
    if pointer is not None and found.key == Key.ILLEGAL_REQUEST:
        fields["field"] = f"{'CDB' if pointer.in_cdb else 'parameter list'} byte {pointer.byte}"
    return fields | {"hex": data.hex()}


def token_fields(token: bytes) -> Fields:
    """The readable parts of a ROD token; nothing of its secret."""
    if len(token) < rod_token.TOKEN_SIZE:
        return {}
    if rod_token.is_zero_token(token):
        return {"token": "zero"}
    kind = rod_token.rod_type(token)
    return {
        "token": f"{rod_token.identifier(token):016x}",
        "rod_type": name_of(RodType, kind, 8),
        "bytes": rod_token.bytes_represented(token),
    }


def cdb_fields(cdb: bytes, parameters: bytes = b"") -> Fields:
    """The fields of a CDB, and of the parameter list of a token command; LBAs and blocks are `spans`."""
    operation = opcodes.find(cdb)
    if operation is None or len(cdb) < operation.length:
        return {}
    if operation.name in BLOCK_COMMANDS:
        return _block(operation, cdb)
    if operation.name in _SPECIAL:
        return _SPECIAL[operation.name](cdb, parameters)
    if operation.name in _HAS_IDENTIFIER_IN_MONITOR:
        return {"list_identifier": u32(cdb, 2), "allocation_length": u32(cdb, 10)}
    return _lengths(operation, cdb)


def _block(operation: Operation, cdb: bytes) -> Fields:
    fields = block_cdb(cdb)
    found: Fields = {"lba": fields.lba, "blocks": fields.count}
    if operation.name.startswith(("READ", "WRITE(")) and fields.fua:
        found["fua"] = True
    if operation.name.startswith(("VERIFY", "WRITE AND VERIFY")) and fields.bytchk:
        found["bytchk"] = fields.bytchk
    if operation.name.startswith("WRITE SAME") and fields.flags & 0x08:
        found["unmap"] = True
    return found


def _populate(cdb: bytes, parameters: bytes) -> Fields:
    found: Fields = {"list_identifier": u32(cdb, 6)}
    if len(parameters) >= POPULATE_HEADER:
        parsed = PopulateToken.parse(parameters)
        found |= {"immediate": parsed.immediate, "inactivity_timeout": parsed.inactivity_timeout}
        if parsed.rod_type is not None:
            found["rod_type"] = name_of(RodType, parsed.rod_type, 8)
    return found


def _write_token(cdb: bytes, parameters: bytes) -> Fields:
    found: Fields = {"list_identifier": u32(cdb, 6)}
    if len(parameters) >= WRITE_HEADER:
        parsed = WriteUsingToken.parse(parameters)
        found |= {"immediate": parsed.immediate, "delete_token": parsed.delete_token, "offset": parsed.offset}
        found |= token_fields(parsed.token)
    return found


def _inquiry(cdb: bytes, _parameters: bytes) -> Fields:
    page: Fields = {"page": f"{cdb[2]:02X}h"} if cdb[1] & 1 else {}
    return page | {"allocation_length": u16(cdb, 3)}


def _mode_sense(cdb: bytes, _parameters: bytes) -> Fields:
    length = cdb[4] if len(cdb) == 6 else u16(cdb, 7)
    return {"page": f"{cdb[2] & 0x3F:02X}h", "subpage": f"{cdb[3]:02X}h", "allocation_length": length}


_SPECIAL: Final = {
    "POPULATE TOKEN": _populate,
    "WRITE USING TOKEN": _write_token,
    "COPY OPERATION ABORT": lambda cdb, _parameters: {"list_identifier": u32(cdb, 2)},
    "INQUIRY": _inquiry,
    "MODE SENSE(6)": _mode_sense,
    "MODE SENSE(10)": _mode_sense,
}


_LENGTH_PLACES: Final = {6: (4, 5), 10: (7, 9), 12: (6, 10)}
"""Bytes of a CDB -> first byte of the length in it, and the one behind; 10 to 13 of all others (SPC-4 4.2.5)."""


def _lengths(operation: Operation, cdb: bytes) -> Fields:
    """ALLOCATION LENGTH or PARAMETER LIST LENGTH, by its place in the group."""
    if operation.data is Data.NONE:
        return {}
    start, end = _LENGTH_PLACES.get(operation.length, (10, 14))
    value = int.from_bytes(cdb[start:end])
    return {"allocation_length" if operation.data is Data.IN else "parameter_list_length": value}
