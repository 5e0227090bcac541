"""PERSISTENT RESERVE commands of an initiator, for tests.

May import `testing/initiator` and `wire/scsi`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from qemu_odx.wire.scsi.persistent import Kind, ReserveOut

if TYPE_CHECKING:
    from qemu_odx.testing.initiator import Answer, Initiator

REGISTER, RESERVE, RELEASE, CLEAR, PREEMPT, PREEMPT_AND_ABORT, IGNORE = range(7)
"""Service actions of PERSISTENT RESERVE OUT (SPC-4 6.14.2)."""
KEYS, RESERVATION, CAPABILITIES, FULL_STATUS = range(4)
"""Service actions of PERSISTENT RESERVE IN (SPC-4 6.13)."""
WE, EA = Kind.WRITE_EXCLUSIVE, Kind.EXCLUSIVE_ACCESS
WE_RO, EA_RO = Kind.WRITE_EXCLUSIVE_REGISTRANTS_ONLY, Kind.EXCLUSIVE_ACCESS_REGISTRANTS_ONLY
WE_AR, EA_AR = Kind.WRITE_EXCLUSIVE_ALL_REGISTRANTS, Kind.EXCLUSIVE_ACCESS_ALL_REGISTRANTS
CONFLICT = 0x18


def out(
    who: Initiator, action: int, key: int = 0, new: int = 0, kind: int = 0, *, flags: int = 0, lun: int = 0
) -> Answer:
    """PERSISTENT RESERVE OUT."""
    data = ReserveOut(key, new, flags).packed()
    return who.command(lun, bytes((0x5F, action, kind, 0, 0, 0, 0, 0, len(data), 0)), data)


def told(who: Initiator, action: int, lun: int = 0) -> bytes:
    """The data of PERSISTENT RESERVE IN."""
    answer = who.command(lun, bytes((0x5E, action, 0, 0, 0, 0, 0, 4, 0, 0)))
    assert answer.good, answer  # noqa: S101 - a test helper
    return answer.data


def attentions(who: Initiator, lun: int = 0) -> list[tuple[int, int]]:
    """The unit attentions that are pending, by TEST UNIT READY; none after."""
    found = []
    while (fault := who.command(lun, "00").fault) is not None and fault[0] == 6:
        found.append(fault[1:])
    return found
