"""virtio-scsi as bytes: command, task management and event structures, LUN addresses, feature bits.

Pure. Next: `virtio/scsi.py`. Clauses: VIRTIO 1.2, 5.6. Sizes are those of QEMU's fixed configuration: CDB 32,
sense 96 bytes (QEMU ends rather than let a guest change them).
"""

from __future__ import annotations

from enum import IntEnum
from struct import Struct
from typing import Final, NamedTuple

CONTROL_QUEUE: Final = 0
EVENT_QUEUE: Final = 1
FIRST_REQUEST_QUEUE: Final = 2
"""Queue numbers (5.6.2)."""

F_INOUT: Final = 1 << 0
F_HOTPLUG: Final = 1 << 1
F_CHANGE: Final = 1 << 2
FEATURE_NAMES: Final = {0: "INOUT", 1: "HOTPLUG", 2: "CHANGE", 3: "T10_PI"}
"""Bit number to name (5.6.3)."""

COMMAND: Final = Struct("<8sQBBB32s")
"""struct virtio_scsi_req_cmd, readable part: lun, tag, task_attr, prio, crn, cdb (5.6.6.1)."""
COMMAND_SIZE: Final = 51
RESPONSE: Final = Struct("<IIHBB96s")
"""Same, writable part: sense_len, residual, status_qualifier, status, response, sense."""
RESPONSE_SIZE: Final = 108
SENSE_SIZE: Final = 96

CONTROL_TYPE: Final = Struct("<I")
"""`type` of every control request (5.6.6.2)."""
TMF: Final = Struct("<II8sQ")
"""struct virtio_scsi_ctrl_tmf, readable part: type, subtype, lun, tag (5.6.6.2)."""
TMF_SIZE: Final = 24
AN_SIZE: Final = 16
"""struct virtio_scsi_ctrl_an, readable part: type u32, lun[8], event_requested u32 (5.6.6.2)."""
AN_RESPONSE: Final = Struct("<IB")
"""struct virtio_scsi_ctrl_an, writable part: event_actual, response (5.6.6.2)."""

EVENT: Final = Struct("<I8sI")
"""struct virtio_scsi_event: event, lun, reason (5.6.6.3)."""
EVENT_SIZE: Final = 16
EVENTS_MISSED: Final = 0x8000_0000
"""Bit of `event`: the driver had no buffer for at least one event (5.6.6.3)."""


class Response(IntEnum):
    """`response` of commands and control requests (5.6.6.1, 5.6.6.2)."""

    OK = 0
    OVERRUN = 1
    ABORTED = 2
    BAD_TARGET = 3
    RESET = 4
    BUSY = 5
    TRANSPORT_FAILURE = 6
    TARGET_FAILURE = 7
    NEXUS_FAILURE = 8
    FAILURE = 9
    FUNCTION_SUCCEEDED = 10
    FUNCTION_REJECTED = 11
    INCORRECT_LUN = 12


class Control(IntEnum):
    """`type` of a control request (5.6.6.2)."""

    TMF = 0
    AN_QUERY = 1
    AN_SUBSCRIBE = 2


class TaskManagement(IntEnum):
    """`subtype` of a task management request (5.6.6.2)."""

    ABORT_TASK = 0
    ABORT_TASK_SET = 1
    CLEAR_ACA = 2
    CLEAR_TASK_SET = 3
    I_T_NEXUS_RESET = 4
    LOGICAL_UNIT_RESET = 5
    QUERY_TASK = 6
    QUERY_TASK_SET = 7


class Event(IntEnum):
    """`event` (5.6.6.3)."""

    NO_EVENT = 0
    TRANSPORT_RESET = 1
    ASYNC_NOTIFY = 2
    PARAM_CHANGE = 3


class ResetReason(IntEnum):
    """`reason` of TRANSPORT_RESET (5.6.6.3)."""

    HARD = 0
    RESCAN = 1
    REMOVED = 2


def param_change(asc: int, ascq: int) -> int:
    """`reason` of PARAM_CHANGE: the additional sense code and its qualifier (5.6.6.3)."""
    return asc | ascq << 8


class Address(NamedTuple):
    """Where a request goes: target number, flat LUN; the REPORT LUNS well-known unit has `well_known`."""

    target: int
    lun: int
    well_known: bool = False


REPORT_LUNS_UNIT: Final = bytes.fromhex("c101000000000000")
"""The REPORT LUNS well-known logical unit (5.6.6.1; SPC-4 8.2)."""
MAX_LUN: Final = 0x3FFF


def decode_lun(field: bytes) -> Address | None:
    """Read the 8-byte `lun` field; None if it has no form that names a unit.

    The standard says: 01h, target, then a single-level LUN (5.6.6.1). Linux and SeaBIOS send LUNs in flat
    form (40h | LUN >> 8, LUN), Windows' vioscsi as peripheral addresses (00h, LUN). QEMU takes both.
    """
    if field == REPORT_LUNS_UNIT:
        return Address(0, 0, well_known=True)
    if field[0] != 1 or (field[2] and not 0x40 <= field[2] < 0x80):
        return None
    return Address(field[1], (field[2] << 8 | field[3]) & MAX_LUN)


def encode_lun(target: int, lun: int) -> bytes:
    """The `lun` field for an event: as REPORT LUNS spells it, or Linux does not find the device.

    LUNs below 256 are peripheral addresses (00h, LUN), others flat (SAM-5 4.6.7, 4.6.9).
    """
    high = 0x40 | lun >> 8 if lun > 0xFF else 0
    return bytes([1, target, high, lun & 0xFF, 0, 0, 0, 0])
