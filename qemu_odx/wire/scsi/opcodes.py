"""The opcode table: one row per command, for parsing, REPORT SUPPORTED OPERATION CODES, VPD 8Fh and traces.

Imports nothing of ours. `find` turns a CDB into its row; `target/dispatch.py` finds the handler by the row's
name. CDB usage data (SPC-4, REPORT SUPPORTED OPERATION CODES) is the mask of CDB bits that are looked at.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Data(Enum):
    """Which way a command's data goes."""

    NONE = "none"
    IN = "in"
    OUT = "out"


@dataclass(frozen=True, slots=True)
class Operation:
    """A SCSI command.

    Attributes:
        name: the standard's name.
        opcode: operation code.
        service_action: service action, or None if the opcode has none.
        usage: CDB usage data; its length is the CDB's length.
        data: direction of its data.
        clause: the document that defines it, with the clause where it was read.
    """

    name: str
    opcode: int
    service_action: int | None
    usage: bytes
    data: Data
    clause: str

    @property
    def length(self) -> int:
        """CDB length in bytes."""
        return len(self.usage)


def _row(name: str, code: str, usage: str, data: Data, clause: str) -> Operation:
    opcode, _, action = code.partition("/")
    mask = bytes.fromhex(usage)
    return Operation(name, int(opcode, 16), int(action, 16) if action else None, mask, data, clause)


_IN, _OUT, _NO = Data.IN, Data.OUT, Data.NONE

OPERATIONS: tuple[Operation, ...] = (
    _row("TEST UNIT READY", "00", "00 00 00 00 00 04", _NO, "SPC-4"),
    _row("REQUEST SENSE", "03", "03 01 00 00 ff 04", _IN, "SPC-4"),
    _row("READ(6)", "08", "08 1f ff ff ff 04", _IN, "SBC-3"),
    _row("WRITE(6)", "0a", "0a 1f ff ff ff 04", _OUT, "SBC-3"),
    _row("INQUIRY", "12", "12 01 ff ff ff 04", _IN, "SPC-4"),
    _row("MODE SELECT(6)", "15", "15 11 00 00 ff 04", _OUT, "SPC-4"),
    _row("RESERVE(6)", "16", "16 00 00 00 00 04", _NO, "SPC-2"),
    _row("RELEASE(6)", "17", "17 00 00 00 00 04", _NO, "SPC-2"),
    _row("MODE SENSE(6)", "1a", "1a 08 ff ff ff 04", _IN, "SPC-4"),
    _row("START STOP UNIT", "1b", "1b 01 00 0f f7 04", _NO, "SBC-3"),
    _row("PREVENT ALLOW MEDIUM REMOVAL", "1e", "1e 00 00 00 03 04", _NO, "SBC-3"),
    _row("READ CAPACITY(10)", "25", "25 00 00 00 00 00 00 00 00 04", _IN, "SBC-3"),
    _row("READ(10)", "28", "28 18 ff ff ff ff 3f ff ff 04", _IN, "SBC-3"),
    _row("WRITE(10)", "2a", "2a 18 ff ff ff ff 3f ff ff 04", _OUT, "SBC-3"),
    _row("WRITE AND VERIFY(10)", "2e", "2e 16 ff ff ff ff 3f ff ff 04", _OUT, "SBC-3"),
    _row("VERIFY(10)", "2f", "2f 16 ff ff ff ff 3f ff ff 04", _OUT, "SBC-3"),
    _row("PRE-FETCH(10)", "34", "34 02 ff ff ff ff 3f ff ff 04", _NO, "SBC-3"),
    _row("SYNCHRONIZE CACHE(10)", "35", "35 02 ff ff ff ff 3f ff ff 04", _NO, "SBC-3"),
    _row("READ DEFECT DATA(10)", "37", "37 00 1f 00 00 00 00 ff ff 04", _IN, "SBC-3"),
    _row("WRITE BUFFER", "3b", "3b 1f ff ff ff ff ff ff ff 04", _OUT, "SPC-4 6.49"),
    _row("READ BUFFER", "3c", "3c 1f ff ff ff ff ff ff ff 04", _IN, "SPC-4 6.20"),
    _row("WRITE SAME(10)", "41", "41 18 ff ff ff ff 3f ff ff 04", _OUT, "SBC-3"),
    _row("UNMAP", "42", "42 00 00 00 00 00 3f ff ff 04", _OUT, "SBC-3"),
    _row("SANITIZE", "48", "48 9f 00 00 00 00 00 ff ff 04", _OUT, "SBC-3"),
    _row("MODE SELECT(10)", "55", "55 11 00 00 00 00 00 ff ff 04", _OUT, "SPC-4"),
    _row("RESERVE(10)", "56", "56 00 00 00 00 00 00 00 00 04", _NO, "SPC-2"),
    _row("RELEASE(10)", "57", "57 00 00 00 00 00 00 00 00 04", _NO, "SPC-2"),
    _row("MODE SENSE(10)", "5a", "5a 18 ff ff 00 00 00 ff ff 04", _IN, "SPC-4"),
    _row("PERSISTENT RESERVE IN READ KEYS", "5e/00", "5e 1f 00 00 00 00 00 ff ff 04", _IN, "SPC-4"),
    _row(
        "PERSISTENT RESERVE IN READ RESERVATION",
        "5e/01",
        "5e 1f 00 00 00 00 00 ff ff 04",
        _IN,
        "SPC-4",
    ),
    _row(
        "PERSISTENT RESERVE IN REPORT CAPABILITIES",
        "5e/02",
        "5e 1f 00 00 00 00 00 ff ff 04",
        _IN,
        "SPC-4",
    ),
    _row(
        "PERSISTENT RESERVE IN READ FULL STATUS",
        "5e/03",
        "5e 1f 00 00 00 00 00 ff ff 04",
        _IN,
        "SPC-4",
    ),
    _row("PERSISTENT RESERVE OUT REGISTER", "5f/00", "5f 1f ff 00 00 ff ff ff ff 04", _OUT, "SPC-4"),
    _row("PERSISTENT RESERVE OUT RESERVE", "5f/01", "5f 1f ff 00 00 ff ff ff ff 04", _OUT, "SPC-4"),
    _row("PERSISTENT RESERVE OUT RELEASE", "5f/02", "5f 1f ff 00 00 ff ff ff ff 04", _OUT, "SPC-4"),
    _row("PERSISTENT RESERVE OUT CLEAR", "5f/03", "5f 1f ff 00 00 ff ff ff ff 04", _OUT, "SPC-4"),
    _row("PERSISTENT RESERVE OUT PREEMPT", "5f/04", "5f 1f ff 00 00 ff ff ff ff 04", _OUT, "SPC-4"),
    _row(
        "PERSISTENT RESERVE OUT PREEMPT AND ABORT",
        "5f/05",
        "5f 1f ff 00 00 ff ff ff ff 04",
        _OUT,
        "SPC-4",
    ),
    _row(
        "PERSISTENT RESERVE OUT REGISTER AND IGNORE EXISTING KEY",
        "5f/06",
        "5f 1f ff 00 00 ff ff ff ff 04",
        _OUT,
        "SPC-4",
    ),
    _row("EXTENDED COPY(LID1)", "83/00", "83 1f 00 00 00 00 00 00 00 00 ff ff ff ff 00 04", _OUT, "SPC-4"),
    _row("EXTENDED COPY(LID4)", "83/01", "83 1f 00 00 00 00 00 00 00 00 ff ff ff ff 00 04", _OUT, "SPC-4"),
    _row(
        "POPULATE TOKEN",
        "83/10",
        "83 1f 00 00 00 00 ff ff ff ff ff ff ff ff 3f 04",
        _OUT,
        "SBC-5 5.12",
    ),
    _row(
        "WRITE USING TOKEN",
        "83/11",
        "83 1f 00 00 00 00 ff ff ff ff ff ff ff ff 3f 04",
        _OUT,
        "SBC-5 5.59",
    ),
    _row(
        "COPY OPERATION ABORT", "83/1c", "83 1f ff ff ff ff 00 00 00 00 00 00 00 00 00 04", _NO, "SPC-4 6.3"
    ),
    _row(
        "RECEIVE COPY STATUS(LID1)",
        "84/00",
        "84 1f ff 00 00 00 00 00 00 00 ff ff ff ff 00 04",
        _IN,
        "SPC-4",
    ),
    _row(
        "RECEIVE COPY OPERATING PARAMETERS",
        "84/03",
        "84 1f 00 00 00 00 00 00 00 00 ff ff ff ff 00 04",
        _IN,
        "SPC-4 6.22",
    ),
    _row(
        "RECEIVE COPY FAILURE DETAILS(LID1)",
        "84/04",
        "84 1f ff 00 00 00 00 00 00 00 ff ff ff ff 00 04",
        _IN,
        "SPC-4",
    ),
    _row(
        "RECEIVE COPY STATUS(LID4)",
        "84/05",
        "84 1f ff ff ff ff 00 00 00 00 ff ff ff ff 00 04",
        _IN,
        "SPC-4 6.24",
    ),
    _row(
        "RECEIVE ROD TOKEN INFORMATION",
        "84/07",
        "84 1f ff ff ff ff 00 00 00 00 ff ff ff ff 00 04",
        _IN,
        "SPC-4 6.26, SBC-5 5.25",
    ),
    _row("REPORT ALL ROD TOKENS", "84/08", "84 1f 00 00 00 00 00 00 00 00 ff ff ff ff 00 04", _IN, "SPC-4"),
    _row("READ(16)", "88", "88 18 ff ff ff ff ff ff ff ff ff ff ff ff 3f 04", _IN, "SBC-3"),
    _row("COMPARE AND WRITE", "89", "89 18 ff ff ff ff ff ff ff ff 00 00 00 ff 3f 04", _OUT, "SBC-3"),
    _row("WRITE(16)", "8a", "8a 18 ff ff ff ff ff ff ff ff ff ff ff ff 3f 04", _OUT, "SBC-3"),
    _row("ORWRITE(16)", "8b", "8b 18 ff ff ff ff ff ff ff ff ff ff ff ff 3f 04", _OUT, "SBC-3"),
    _row("WRITE AND VERIFY(16)", "8e", "8e 16 ff ff ff ff ff ff ff ff ff ff ff ff 3f 04", _OUT, "SBC-3"),
    _row("VERIFY(16)", "8f", "8f 16 ff ff ff ff ff ff ff ff ff ff ff ff 3f 04", _OUT, "SBC-3"),
    _row("PRE-FETCH(16)", "90", "90 02 ff ff ff ff ff ff ff ff ff ff ff ff 3f 04", _NO, "SBC-3"),
    _row("SYNCHRONIZE CACHE(16)", "91", "91 02 ff ff ff ff ff ff ff ff ff ff ff ff 3f 04", _NO, "SBC-3"),
    _row("WRITE SAME(16)", "93", "93 19 ff ff ff ff ff ff ff ff ff ff ff ff 3f 04", _OUT, "SBC-3"),
    _row("READ CAPACITY(16)", "9e/10", "9e 1f 00 00 00 00 00 00 00 00 ff ff ff ff 00 04", _IN, "SBC-3"),
    _row("GET LBA STATUS", "9e/12", "9e 1f ff ff ff ff ff ff ff ff ff ff ff ff 00 04", _IN, "SBC-3"),
    _row("REPORT LUNS", "a0", "a0 00 ff 00 00 00 ff ff ff ff 00 04", _IN, "SPC-4"),
    _row("REPORT SUPPORTED OPERATION CODES", "a3/0c", "a3 1f 87 ff ff ff ff ff ff ff 00 04", _IN, "SPC-4"),
    _row(
        "REPORT SUPPORTED TASK MANAGEMENT FUNCTIONS",
        "a3/0d",
        "a3 1f 80 00 00 00 ff ff ff ff 00 04",
        _IN,
        "SPC-4",
    ),
    _row("READ(12)", "a8", "a8 18 ff ff ff ff ff ff ff ff 3f 04", _IN, "SBC-3"),
    _row("WRITE(12)", "aa", "aa 18 ff ff ff ff ff ff ff ff 3f 04", _OUT, "SBC-3"),
    _row("READ DEFECT DATA(12)", "b7", "b7 1f ff ff ff ff ff ff ff ff 00 04", _IN, "SBC-3"),
    _row("WRITE AND VERIFY(12)", "ae", "ae 16 ff ff ff ff ff ff ff ff 3f 04", _OUT, "SBC-3"),
    _row("VERIFY(12)", "af", "af 16 ff ff ff ff ff ff ff ff 3f 04", _OUT, "SBC-3"),
)

BY_NAME = {row.name: row for row in OPERATIONS}
_BY_CODE = {(row.opcode, row.service_action): row for row in OPERATIONS}
OPCODES_WITH_SERVICE_ACTION = frozenset(row.opcode for row in OPERATIONS if row.service_action is not None)


def find(cdb: bytes) -> Operation | None:
    """The row of a CDB, or None if no row has its opcode (and service action)."""
    opcode = cdb[0]
    action = cdb[1] & 0x1F if opcode in OPCODES_WITH_SERVICE_ACTION else None
    return _BY_CODE.get((opcode, action))


def lookup(opcode: int, service_action: int | None) -> Operation | None:
    """The row for an opcode and service action."""
    return _BY_CODE.get((opcode, service_action))
