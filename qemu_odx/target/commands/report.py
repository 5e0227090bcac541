"""REPORT LUNS, REPORT SUPPORTED OPERATION CODES, REPORT SUPPORTED TASK MANAGEMENT FUNCTIONS (SPC-4 6.33 to 6.36)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qemu_odx.target.request import cut
from qemu_odx.wire.scsi import opcodes, sense
from qemu_odx.wire.scsi.fields import put16, u16, u32, with_length

if TYPE_CHECKING:
    from collections.abc import Iterable

    from qemu_odx.target.plan import Plan
    from qemu_odx.target.request import Handler, Request
    from qemu_odx.wire.scsi.opcodes import Operation

_SELECT_REPORTS = frozenset({0x00, 0x01, 0x02, 0x10, 0x11, 0x12})
_EMPTY_REPORTS = frozenset({0x01, 0x10, 0x11, 0x12})
"""SELECT REPORT values about well known, administrative and subsidiary units: none here."""
_TIMEOUTS = bytes.fromhex("000a") + bytes(10)
"""A command timeouts descriptor that tells no times (SPC-4 6.35.4)."""
_SUPPORTED = 0x03


def report_luns(request: Request) -> Plan:
    """The logical unit inventory."""
    return report_luns_of(request.cdb, request.target.luns())


def report_luns_of(cdb: bytes, luns: Iterable[int]) -> Plan:
    """REPORT LUNS data, flat or peripheral addressing by size of the number (SAM-5 4.7)."""
    allocation = u32(cdb, 6)
    if cdb[2] not in _SELECT_REPORTS:
        return sense.INVALID_FIELD_IN_CDB.at(2, in_cdb=True)
    if allocation < 16:
        return sense.INVALID_FIELD_IN_CDB.at(6, in_cdb=True)
    listed = b"" if cdb[2] in _EMPTY_REPORTS else b"".join(_lun_field(lun) for lun in luns)
    return cut(len(listed).to_bytes(4, "big") + bytes(4) + listed, allocation)


def _lun_field(lun: int) -> bytes:
    method = 0 if lun < 256 else 0x4000
    return (method | lun).to_bytes(2, "big") + bytes(6)


def supported_operation_codes(request: Request) -> Plan:
    """All commands, or one with its CDB usage data."""
    cdb = request.cdb
    options, timeouts = cdb[2] & 0x07, bool(cdb[2] & 0x80)
    rows = [row for row in opcodes.OPERATIONS if request.target.supports(row)]
    if options == 0:
        listed = b"".join(_command_descriptor(row, timeouts=timeouts) for row in rows)
        return cut(with_length(listed, b"", 4), u32(cdb, 6))
    if options > 3:
        return sense.INVALID_FIELD_IN_CDB.at(2, in_cdb=True, bit=2)
    opcode, action = cdb[3], u16(cdb, 4)
    with_actions = any(row.opcode == opcode and row.service_action is not None for row in rows)
    if (options == 1 and with_actions) or (options == 2 and not with_actions):
        return sense.INVALID_FIELD_IN_CDB.at(2, in_cdb=True, bit=2)
    wanted = (opcode, action if with_actions else None)
    found = next((row for row in rows if (row.opcode, row.service_action) == wanted), None)
    return cut(_one_command(found, timeouts=timeouts), u32(cdb, 6))


def _command_descriptor(row: Operation, *, timeouts: bool) -> bytes:
    data = bytearray(8)
    data[0] = row.opcode
    put16(data, 2, row.service_action or 0)
    data[5] = (0x02 if timeouts else 0) | (row.service_action is not None)
    put16(data, 6, row.length)
    return bytes(data) + (_TIMEOUTS if timeouts else b"")


def _one_command(row: Operation | None, *, timeouts: bool) -> bytes:
    if row is None:
        return bytes((0, 0x01, 0, 0))
    head = bytes((0, _SUPPORTED | (0x80 if timeouts else 0)))
    return with_length(row.usage, head) + (_TIMEOUTS if timeouts else b"")


def supported_task_management(request: Request) -> Plan:
    """ABORT TASK, ABORT TASK SET, CLEAR TASK SET, LOGICAL UNIT RESET, QUERY TASK, QUERY TASK SET, I_T NEXUS RESET."""
    first, second = 0x80 | 0x40 | 0x10 | 0x08 | 0x01, 0x04 | 0x01
    data = bytes((first, second, 0, 0))
    if request.cdb[2] & 0x80:  # REPD: extended data
        data = bytes((first, second, 0, 0x0C)) + bytes(12)
    return cut(data, u32(request.cdb, 6))


HANDLERS: dict[str, Handler] = {
    "REPORT LUNS": report_luns,
    "REPORT SUPPORTED OPERATION CODES": supported_operation_codes,
    "REPORT SUPPORTED TASK MANAGEMENT FUNCTIONS": supported_task_management,
}
