"""Sense data: what a logical unit says when a command did not end with GOOD.

Imports only `wire/scsi/fields`. A `Sense` is a value that commands return, never an exception; it goes from
`target/` into the response of `virtio/scsi.py`, or into the sense field of a copy result.
Layouts: SPC-4 4.5.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import IntEnum

from qemu_odx.wire.scsi.fields import u16, u32, u64

FIXED_LENGTH = 18
"""Bytes of fixed-format sense data. Windows keeps exactly these 18, so no longer format is ever sent."""


class Key(IntEnum):
    """Sense keys (SPC-4 4.5.6)."""

    NO_SENSE = 0x0
    RECOVERED_ERROR = 0x1
    NOT_READY = 0x2
    MEDIUM_ERROR = 0x3
    HARDWARE_ERROR = 0x4
    ILLEGAL_REQUEST = 0x5
    UNIT_ATTENTION = 0x6
    DATA_PROTECT = 0x7
    BLANK_CHECK = 0x8
    VENDOR_SPECIFIC = 0x9
    COPY_ABORTED = 0xA
    ABORTED_COMMAND = 0xB
    VOLUME_OVERFLOW = 0xD
    MISCOMPARE = 0xE
    COMPLETED = 0xF


@dataclass(frozen=True, slots=True)
class Pointer:
    """A field pointer (SPC-4 4.5.2.4.2): the first byte in error, and its top bit if known."""

    byte: int
    in_cdb: bool
    bit: int | None = None


@dataclass(frozen=True, slots=True)
class Sense:
    """Sense key, additional sense code and qualifier, and what may go with them.

    Attributes:
        information: the INFORMATION field (an LBA, or the transfer count of a token copy).
        command_specific: the COMMAND-SPECIFIC INFORMATION field.
        pointer: the field in error.
        progress: PROGRESS INDICATION, 0..65535, with key NOT READY or NO SENSE.
    """

    key: int
    asc: int
    ascq: int
    information: int | None = None
    command_specific: int = 0
    pointer: Pointer | None = None
    progress: int | None = None

    def fixed(self) -> bytes:
        """The 18 bytes of fixed-format sense data (SPC-4 4.5.3)."""
        data = bytearray(FIXED_LENGTH)
        data[0] = 0x70
        data[2] = self.key
        if self.information is not None and self.information <= 0xFFFFFFFF:
            data[0] |= 0x80
            data[3:7] = self.information.to_bytes(4, "big")
        data[7] = FIXED_LENGTH - 8
        data[8:12] = self.command_specific.to_bytes(4, "big")
        data[12], data[13] = self.asc, self.ascq
        data[15:18] = self._key_specific()
        return bytes(data)

    def _key_specific(self) -> bytes:
        if self.progress is not None:
            return b"\x80" + self.progress.to_bytes(2, "big")
        if self.pointer is None:
            return bytes(3)
        head = 0x80 | (0x40 if self.pointer.in_cdb else 0)
        if self.pointer.bit is not None:
            head |= 0x08 | self.pointer.bit
        return bytes((head,)) + self.pointer.byte.to_bytes(2, "big")

    @property
    def name(self) -> str:
        """For people: "ILLEGAL REQUEST 24/00 INVALID FIELD IN CDB"."""
        text = TEXTS.get((self.asc, self.ascq), "")
        return f"{Key(self.key).name.replace('_', ' ')} {self.asc:02X}/{self.ascq:02X} {text}".rstrip()

    def at(self, byte: int, *, in_cdb: bool = False, bit: int | None = None) -> Sense:
        """The same sense, pointing at a field of the parameter list (or of the CDB)."""
        return replace(self, pointer=Pointer(byte, in_cdb, bit))

    def told(self, information: int) -> Sense:
        """The same sense with an INFORMATION field."""
        return replace(self, information=information)


def parse(data: bytes) -> Sense | None:
    """Sense data of either format; None if it is none (too short or an unknown response code)."""
    code = data[0] & 0x7F if data else 0
    if code in {0x70, 0x71} and len(data) >= 14:
        valid = bool(data[0] & 0x80)
        return Sense(data[2] & 0x0F, data[12], data[13], u32(data, 3) if valid else None, u32(data, 8))
    if code in {0x72, 0x73} and len(data) >= 8:
        return Sense(data[1] & 0x0F, data[2], data[3], _descriptor_information(data))
    return None


def _descriptor_information(data: bytes) -> int | None:
    """INFORMATION of the information sense descriptor (type 00h, SPC-4 4.5.2.2), if there is a valid one."""
    at = 8
    while at + 2 <= len(data):
        if data[at] == 0 and at + 12 <= len(data) and data[at + 2] & 0x80:
            return u64(data, at + 4)
        at += 2 + data[at + 1]
    return None


def pointer_of(data: bytes) -> Pointer | None:
    """The field pointer of fixed-format sense data, if there is one."""
    if len(data) < FIXED_LENGTH or data[0] & 0x7F != 0x70 or not data[15] & 0x80:
        return None
    return Pointer(u16(data, 16), bool(data[15] & 0x40), data[15] & 7 if data[15] & 8 else None)


TEXTS: dict[tuple[int, int], str] = {
    (0x00, 0x00): "NO ADDITIONAL SENSE INFORMATION",
    (0x00, 0x06): "I/O PROCESS TERMINATED",
    (0x00, 0x16): "OPERATION IN PROGRESS",
    (0x04, 0x00): "LOGICAL UNIT NOT READY, CAUSE NOT REPORTABLE",
    (0x04, 0x01): "LOGICAL UNIT IS IN PROCESS OF BECOMING READY",
    (0x04, 0x02): "LOGICAL UNIT NOT READY, INITIALIZING COMMAND REQUIRED",
    (0x04, 0x03): "LOGICAL UNIT NOT READY, MANUAL INTERVENTION REQUIRED",
    (0x04, 0x14): "LOGICAL UNIT NOT READY, SPACE ALLOCATION IN PROGRESS",
    (0x08, 0x03): "LOGICAL UNIT COMMUNICATION CRC ERROR (ULTRA-DMA/32)",
    (0x08, 0x04): "UNREACHABLE COPY TARGET",
    (0x0C, 0x00): "WRITE ERROR",
    (0x0D, 0x01): "THIRD PARTY DEVICE FAILURE",
    (0x0D, 0x02): "COPY TARGET DEVICE NOT REACHABLE",
    (0x0D, 0x03): "INCORRECT COPY TARGET DEVICE TYPE",
    (0x0D, 0x04): "COPY TARGET DEVICE DATA UNDERRUN",
    (0x0D, 0x05): "COPY TARGET DEVICE DATA OVERRUN",
    (0x10, 0x01): "LOGICAL BLOCK GUARD CHECK FAILED",
    (0x11, 0x00): "UNRECOVERED READ ERROR",
    (0x11, 0x01): "READ RETRIES EXHAUSTED",
    (0x14, 0x01): "RECORD NOT FOUND",
    (0x17, 0x00): "RECOVERED DATA WITH NO ERROR CORRECTION APPLIED",
    (0x18, 0x00): "RECOVERED DATA WITH ERROR CORRECTION APPLIED",
    (0x1A, 0x00): "PARAMETER LIST LENGTH ERROR",
    (0x1D, 0x00): "MISCOMPARE DURING VERIFY OPERATION",
    (0x20, 0x00): "INVALID COMMAND OPERATION CODE",
    (0x21, 0x00): "LOGICAL BLOCK ADDRESS OUT OF RANGE",
    (0x23, 0x00): "INVALID TOKEN OPERATION, CAUSE NOT REPORTABLE",
    (0x23, 0x01): "INVALID TOKEN OPERATION, UNSUPPORTED TOKEN TYPE",
    (0x23, 0x02): "INVALID TOKEN OPERATION, REMOTE TOKEN USAGE NOT SUPPORTED",
    (0x23, 0x03): "INVALID TOKEN OPERATION, REMOTE ROD TOKEN CREATION NOT SUPPORTED",
    (0x23, 0x04): "INVALID TOKEN OPERATION, TOKEN UNKNOWN",
    (0x23, 0x05): "INVALID TOKEN OPERATION, TOKEN CORRUPT",
    (0x23, 0x06): "INVALID TOKEN OPERATION, TOKEN REVOKED",
    (0x23, 0x07): "INVALID TOKEN OPERATION, TOKEN EXPIRED",
    (0x23, 0x08): "INVALID TOKEN OPERATION, TOKEN CANCELLED",
    (0x23, 0x09): "INVALID TOKEN OPERATION, TOKEN DELETED",
    (0x23, 0x0A): "INVALID TOKEN OPERATION, INVALID TOKEN LENGTH",
    (0x24, 0x00): "INVALID FIELD IN CDB",
    (0x25, 0x00): "LOGICAL UNIT NOT SUPPORTED",
    (0x26, 0x00): "INVALID FIELD IN PARAMETER LIST",
    (0x26, 0x04): "INVALID RELEASE OF PERSISTENT RESERVATION",
    (0x26, 0x06): "TOO MANY TARGET DESCRIPTORS",
    (0x26, 0x07): "UNSUPPORTED TARGET DESCRIPTOR TYPE CODE",
    (0x26, 0x08): "TOO MANY SEGMENT DESCRIPTORS",
    (0x26, 0x09): "UNSUPPORTED SEGMENT DESCRIPTOR TYPE CODE",
    (0x26, 0x0A): "UNEXPECTED INEXACT SEGMENT",
    (0x26, 0x0D): "COPY SEGMENT GRANULARITY VIOLATION",
    (0x27, 0x00): "WRITE PROTECTED",
    (0x27, 0x02): "LOGICAL UNIT SOFTWARE WRITE PROTECTED",
    (0x27, 0x07): "SPACE ALLOCATION FAILED WRITE PROTECT",
    (0x29, 0x00): "POWER ON, RESET, OR BUS DEVICE RESET OCCURRED",
    (0x29, 0x03): "BUS DEVICE RESET FUNCTION OCCURRED",
    (0x29, 0x07): "I_T NEXUS LOSS OCCURRED",
    (0x2A, 0x01): "MODE PARAMETERS CHANGED",
    (0x2A, 0x03): "RESERVATIONS PREEMPTED",
    (0x2A, 0x04): "RESERVATIONS RELEASED",
    (0x2A, 0x05): "REGISTRATIONS PREEMPTED",
    (0x2A, 0x09): "CAPACITY DATA HAS CHANGED",
    (0x2C, 0x00): "COMMAND SEQUENCE ERROR",
    (0x2F, 0x00): "COMMANDS CLEARED BY ANOTHER INITIATOR",
    (0x2F, 0x02): "COMMANDS CLEARED BY DEVICE SERVER",
    (0x31, 0x00): "MEDIUM FORMAT CORRUPTED",
    (0x38, 0x07): "THIN PROVISIONING SOFT THRESHOLD REACHED",
    (0x39, 0x00): "SAVING PARAMETERS NOT SUPPORTED",
    (0x3A, 0x00): "MEDIUM NOT PRESENT",
    (0x3F, 0x01): "MICROCODE HAS BEEN CHANGED",
    (0x3F, 0x03): "INQUIRY DATA HAS CHANGED",
    (0x3F, 0x0E): "REPORTED LUNS DATA HAS CHANGED",
    (0x44, 0x00): "INTERNAL TARGET FAILURE",
    (0x47, 0x00): "SCSI PARITY ERROR",
    (0x4B, 0x00): "DATA PHASE ERROR",
    (0x4E, 0x00): "OVERLAPPED COMMANDS ATTEMPTED",
    (0x53, 0x02): "MEDIUM REMOVAL PREVENTED",
    (0x55, 0x03): "INSUFFICIENT RESOURCES",
    (0x55, 0x04): "INSUFFICIENT REGISTRATION RESOURCES",
    (0x55, 0x0C): "INSUFFICIENT RESOURCES TO CREATE ROD",
    (0x55, 0x0D): "INSUFFICIENT RESOURCES TO CREATE ROD TOKEN",
    (0x5D, 0x00): "FAILURE PREDICTION THRESHOLD EXCEEDED",
}
"""ASC and ASCQ assignments used here, and those that faults are named by (SPC-4 annex D)."""


def _illegal(asc: int, ascq: int) -> Sense:
    return Sense(Key.ILLEGAL_REQUEST, asc, ascq)


OPERATION_IN_PROGRESS = _illegal(0x00, 0x16)
NOTHING_COPIED = _illegal(0x0D, 0x04)
PARAMETER_LIST_LENGTH_ERROR = _illegal(0x1A, 0x00)
INVALID_OPCODE = _illegal(0x20, 0x00)
LBA_OUT_OF_RANGE = _illegal(0x21, 0x00)
INVALID_FIELD_IN_CDB = _illegal(0x24, 0x00)
LUN_NOT_SUPPORTED = _illegal(0x25, 0x00)
INVALID_FIELD_IN_LIST = _illegal(0x26, 0x00)
TOO_MANY_CSCD_DESCRIPTORS = _illegal(0x26, 0x06)
UNSUPPORTED_CSCD_TYPE = _illegal(0x26, 0x07)
TOO_MANY_DESCRIPTORS = _illegal(0x26, 0x08)
UNSUPPORTED_SEGMENT_TYPE = _illegal(0x26, 0x09)
INVALID_RELEASE = _illegal(0x26, 0x04)
SAVING_NOT_SUPPORTED = _illegal(0x39, 0x00)
MEDIUM_REMOVAL_PREVENTED = _illegal(0x53, 0x02)
NO_REGISTRATION_RESOURCES = _illegal(0x55, 0x04)
NO_ROD_RESOURCES = _illegal(0x55, 0x0C)
NO_TOKEN_RESOURCES = _illegal(0x55, 0x0D)
INSUFFICIENT_RESOURCES = Sense(Key.ABORTED_COMMAND, 0x55, 0x03)
WRITE_PROTECTED = Sense(Key.DATA_PROTECT, 0x27, 0x00)
SOFTWARE_WRITE_PROTECTED = Sense(Key.DATA_PROTECT, 0x27, 0x02)
SPACE_ALLOCATION_FAILED = Sense(Key.DATA_PROTECT, 0x27, 0x07)
READ_ERROR = Sense(Key.MEDIUM_ERROR, 0x11, 0x00)
WRITE_ERROR = Sense(Key.MEDIUM_ERROR, 0x0C, 0x00)
INTERNAL_FAILURE = Sense(Key.HARDWARE_ERROR, 0x44, 0x00)
MISCOMPARE = Sense(Key.MISCOMPARE, 0x1D, 0x00)
NOT_READY_START_NEEDED = Sense(Key.NOT_READY, 0x04, 0x02)
COPY_CLEARED = Sense(Key.COPY_ABORTED, 0x2F, 0x02)
COPY_UNDERRUN = Sense(Key.COPY_ABORTED, 0x0D, 0x04)
UNREACHABLE_COPY_TARGET = Sense(Key.COPY_ABORTED, 0x08, 0x04)
COPY_TARGET_NOT_REACHABLE = Sense(Key.COPY_ABORTED, 0x0D, 0x02)
UNEXPECTED_INEXACT_SEGMENT = Sense(Key.COPY_ABORTED, 0x26, 0x0A)
THIRD_PARTY_FAILURE = Sense(Key.COPY_ABORTED, 0x0D, 0x01)


def attention(asc: int, ascq: int) -> Sense:
    """A unit attention condition (SPC-4 / SAM-5 5.14)."""
    return Sense(Key.UNIT_ATTENTION, asc, ascq)


RESET = attention(0x29, 0x00)
"""Power on, reset, or bus device reset: also what a nexus seen for the first time meets."""
NEXUS_LOSS = attention(0x29, 0x07)
MODE_PARAMETERS_CHANGED = attention(0x2A, 0x01)
RESERVATIONS_PREEMPTED = attention(0x2A, 0x03)
RESERVATIONS_RELEASED = attention(0x2A, 0x04)
REGISTRATIONS_PREEMPTED = attention(0x2A, 0x05)
CAPACITY_CHANGED = attention(0x2A, 0x09)
LUNS_CHANGED = attention(0x3F, 0x0E)


class Status(IntEnum):
    """SAM-5 5.3 status codes."""

    GOOD = 0x00
    CHECK_CONDITION = 0x02
    CONDITION_MET = 0x04
    BUSY = 0x08
    RESERVATION_CONFLICT = 0x18
    TASK_SET_FULL = 0x28
    ACA_ACTIVE = 0x30
    TASK_ABORTED = 0x40
