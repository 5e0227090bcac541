"""What each command wants, for the reservation conflict tables (SPC-4 5.13.1, SBC-3 4.17).

Imports `reservations` and `wire/scsi/opcodes`. A test sees that no row of the opcode table is left out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from qemu_odx.target.reservations import Access
from qemu_odx.wire.scsi.opcodes import OPERATIONS

if TYPE_CHECKING:
    from qemu_odx.wire.scsi.opcodes import Operation

_SIZES = (6, 10, 12, 16)


def _sized(name: str) -> frozenset[str]:
    return frozenset(f"{name}({size})" for size in _SIZES)


_WANTS: dict[Access, frozenset[str]] = {
    Access.ALWAYS: frozenset({"INQUIRY", "REPORT LUNS", "REQUEST SENSE", "READ BUFFER", "WRITE BUFFER"})
    | _sized("RESERVE")
    | _sized("RELEASE"),
    Access.FREE: frozenset(
        {
            "TEST UNIT READY",
            "RECEIVE COPY STATUS(LID1)",
            "RECEIVE COPY OPERATING PARAMETERS",
            "RECEIVE COPY FAILURE DETAILS(LID1)",
            "RECEIVE COPY STATUS(LID4)",
            "RECEIVE ROD TOKEN INFORMATION",
            "REPORT ALL ROD TOKENS",
            "REPORT SUPPORTED OPERATION CODES",
            "REPORT SUPPORTED TASK MANAGEMENT FUNCTIONS",
        }
    )
    | _sized("READ CAPACITY"),
    Access.READ: frozenset({"GET LBA STATUS", "POPULATE TOKEN"}).union(
        *map(_sized, ("READ", "VERIFY", "PRE-FETCH", "MODE SENSE", "READ DEFECT DATA"))
    ),
    Access.WRITE: frozenset(
        {
            "COMPARE AND WRITE",
            "COPY OPERATION ABORT",
            "EXTENDED COPY(LID1)",
            "EXTENDED COPY(LID4)",
            "SANITIZE",
            "UNMAP",
            "WRITE USING TOKEN",
        }
    ).union(
        *map(
            _sized, ("MODE SELECT", "ORWRITE", "SYNCHRONIZE CACHE", "WRITE", "WRITE AND VERIFY", "WRITE SAME")
        )
    ),
    Access.PERSISTENT: frozenset(row.name for row in OPERATIONS if row.name.startswith("PERSISTENT RESERVE")),
}
BY_NAME: dict[str, Access] = {name: access for access, names in _WANTS.items() for name in names}
DEPENDS_ON_FIELDS = frozenset({"START STOP UNIT", "PREVENT ALLOW MEDIUM REMOVAL"})


def wanted(operation: Operation, cdb: bytes) -> Access:
    """What a command wants. Starting the unit and allowing removal hurt nobody (SBC-3 4.17)."""
    if operation.name == "START STOP UNIT":
        return Access.FREE if cdb[4] & 0xF1 == 0x01 else Access.WRITE
    if operation.name == "PREVENT ALLOW MEDIUM REMOVAL":
        return Access.WRITE if cdb[4] & 0x03 else Access.FREE
    return BY_NAME[operation.name]
