"""How the class driver reads an error: sense data to NTSTATUS, whether it sends the command again, and when.

Imports `port` and `wire`. A table, first match wins, from ClassInterpretSenseInfo (class.c) and the disk driver's
hook (disk.c). Next: `packets.py` obeys it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from qemu_odx.windows.port import Completion, Delivery
from qemu_odx.wire.dsm.ntstatus import NtStatus as Nt
from qemu_odx.wire.scsi.fields import u32, u64
from qemu_odx.wire.scsi.sense import FIXED_LENGTH, Key, Status

if TYPE_CHECKING:
    from collections.abc import Iterable

ANY = -1
_UNDERRUN = (0x0D, 0x04)
"""COPY TARGET DEVICE DATA UNDERRUN: the target did less than asked."""
_INCORRECT_LENGTH = 0x20
"""ILI, bit 5 of byte 2 of fixed-format sense data (SPC-4 4.5.3)."""

START_UNIT = "sends START STOP UNIT first"


@dataclass(frozen=True, slots=True)
class Rule:
    """A row: sense codes, and what they mean.

    Attributes:
        key, asc, ascq: what it is for, `ANY` for all.
        status: NTSTATUS.
        retry: seconds before the command is sent again, None if it is not.
        effect: what else Windows does.
    """

    key: int
    asc: int
    ascq: int
    status: Nt
    retry: int | None = None
    effect: str = ""

    def matches(self, codes: tuple[int, int, int]) -> bool:
        """True if the row is for these codes."""
        mine = (self.key, self.asc, self.ascq)
        return all(wanted in {ANY, found} for wanted, found in zip(mine, codes, strict=True))


@dataclass(frozen=True, slots=True)
class Sensed:
    """The part of sense data that Windows looks at.

    Attributes:
        codes: sense key, ASC, ASCQ.
        information: INFORMATION, 0 if there is none; VALID is not looked at in fixed format.
        incorrect_length: ILI.
    """

    codes: tuple[int, int, int]
    information: int = 0
    incorrect_length: bool = False


def sensed(data: bytes) -> Sensed | None:
    """Read sense data; what a fixed format lacks counts as zero. None if it is no sense data."""
    code = data[0] & 0x7F if data else 0
    if code in {0x70, 0x71} and len(data) > 2:
        full = data.ljust(FIXED_LENGTH, b"\0")
        return Sensed((full[2] & 0x0F, full[12], full[13]), u32(full, 3), bool(full[2] & _INCORRECT_LENGTH))
    if code in {0x72, 0x73} and len(data) >= 4:
        return Sensed((data[1] & 0x0F, data[2], data[3]), _descriptor_information(data))
    return None


def _descriptor_information(data: bytes) -> int:
    """The information descriptor (SPC-4 4.5.2.2): it needs 20 bytes, so of 18 kept bytes it is always lost."""
    place = 8
    while place + 2 <= len(data):
        if data[place] == 0 and place + 12 <= len(data) and data[place + 2] & 0x80:
            return u64(data, place + 4)
        place += 2 + data[place + 1]
    return 0


def _rows(
    key: Key, *rows: tuple[int, int, Nt, int | None] | tuple[int, int, Nt, int | None, str]
) -> Iterable[Rule]:
    return (Rule(key, *row) for row in rows)


_AT_ONCE = 0

RULES: tuple[Rule, ...] = (
    *_rows(Key.NO_SENSE, (ANY, ANY, Nt.IO_DEVICE_ERROR, _AT_ONCE)),
    *_rows(Key.RECOVERED_ERROR, (ANY, ANY, Nt.SUCCESS, None)),
    *_rows(
        Key.NOT_READY,
        (0x04, 0x14, Nt.RETRY, 10),
        (0x04, 0x01, Nt.DEVICE_NOT_READY, 10),
        (0x04, 0x07, Nt.DEVICE_NOT_READY, 10),
        (0x04, 0x00, Nt.DEVICE_NOT_READY, None),
        (0x04, 0x04, Nt.DEVICE_NOT_READY, None),
        (0x04, 0x08, Nt.DEVICE_NOT_READY, None),
        (0x04, 0x03, Nt.NO_MEDIA_IN_DEVICE, None),
        (0x3A, ANY, Nt.NO_MEDIA_IN_DEVICE, None),
        (0x04, ANY, Nt.DEVICE_NOT_READY, _AT_ONCE, START_UNIT),
        (ANY, ANY, Nt.DEVICE_NOT_READY, _AT_ONCE),
    ),
    *_rows(
        Key.MEDIUM_ERROR,
        (0x30, 0x01, Nt.UNRECOGNIZED_MEDIA, None),
        (0x30, 0x03, Nt.CLEANER_CARTRIDGE_INSTALLED, None),
        (ANY, ANY, Nt.DEVICE_DATA_ERROR, None),
    ),
    *_rows(
        Key.HARDWARE_ERROR,
        (0x08, 0x03, Nt.DEVICE_HARDWARE_ERROR, 1),
        (ANY, ANY, Nt.DEVICE_HARDWARE_ERROR, None),
    ),
    *_rows(
        Key.ILLEGAL_REQUEST,
        (0x00, 0x16, Nt.OPERATION_IN_PROGRESS, None),
        (0x08, 0x04, Nt.DEVICE_UNREACHABLE, None),
        (0x0D, 0x04, Nt.DATA_OVERRUN, None),
        (0x1A, ANY, Nt.DATA_OVERRUN, None),
        (0x20, ANY, Nt.INVALID_DEVICE_REQUEST, None),
        (0x21, ANY, Nt.NONEXISTENT_SECTOR, None),
        (0x23, ANY, Nt.INVALID_TOKEN, None),
        (0x24, ANY, Nt.INVALID_INITIATOR_TARGET_PATH, None),
        (0x25, ANY, Nt.NO_SUCH_DEVICE, None),
        (0x26, 0x04, Nt.INVALID_OFFSET_ALIGNMENT, None),
        (0x26, 0x08, Nt.TOO_MANY_SEGMENT_DESCRIPTORS, None),
        (0x26, ANY, Nt.INVALID_FIELD_IN_PARAMETER_LIST, None),
        (0x6F, 0x00, Nt.CSS_AUTHENTICATION_FAILURE, None),
        (0x6F, 0x01, Nt.CSS_KEY_NOT_PRESENT, None),
        (0x6F, 0x02, Nt.CSS_KEY_NOT_ESTABLISHED, None),
        (0x6F, 0x03, Nt.CSS_SCRAMBLED_SECTOR, None),
        (0x6F, 0x04, Nt.CSS_REGION_MISMATCH, None),
        (0x6F, 0x05, Nt.CSS_RESETS_EXHAUSTED, None),
        (0x6F, ANY, Nt.COPY_PROTECTION_FAILURE, None),
        (ANY, ANY, Nt.INVALID_DEVICE_REQUEST, None),
    ),
    *_rows(
        Key.UNIT_ATTENTION,
        (0x2A, 0x09, Nt.IO_DEVICE_ERROR, 1, "reads the capacity again"),
        (0x3F, 0x01, Nt.IO_DEVICE_ERROR, 1),
        (0x3F, ANY, Nt.IO_DEVICE_ERROR, 5, "scans the bus again"),
        (0x38, 0x07, Nt.IO_DEVICE_ERROR, _AT_ONCE, "reads the log of the soft threshold"),
        (0x38, ANY, Nt.IO_DEVICE_ERROR, None),
        (ANY, ANY, Nt.IO_DEVICE_ERROR, _AT_ONCE),
    ),
    *_rows(
        Key.DATA_PROTECT,
        (0x27, 0x07, Nt.DISK_RESOURCES_EXHAUSTED, None, "takes the disk offline"),
        (0x27, ANY, Nt.IO_DEVICE_ERROR, None),
        (ANY, ANY, Nt.ACCESS_DENIED, None),
    ),
    *_rows(Key.BLANK_CHECK, (ANY, ANY, Nt.NO_DATA_DETECTED, None)),
    *_rows(Key.COPY_ABORTED, (*_UNDERRUN, Nt.SUCCESS, None), (ANY, ANY, Nt.IO_DEVICE_ERROR, _AT_ONCE)),
    *_rows(
        Key.ABORTED_COMMAND,
        (*_UNDERRUN, Nt.SUCCESS, None),
        (0x55, 0x03, Nt.INSUFFICIENT_RESOURCES, None),
        (ANY, ANY, Nt.IO_DEVICE_ERROR, _AT_ONCE),
    ),
    Rule(ANY, ANY, ANY, Nt.IO_DEVICE_ERROR, _AT_ONCE),
)
"""Sense data; the last row is for every sense key without rows of its own."""

INCORRECT_LENGTH = Rule(Key.NO_SENSE, ANY, ANY, Nt.INVALID_BLOCK_LENGTH)
"""NO SENSE with ILI set."""
OVERRUN = Rule(ANY, ANY, ANY, Nt.DATA_OVERRUN)
"""GOOD, but not all of the data-out went: vioscsi makes SRB_STATUS_DATA_OVERRUN of it."""
_DELIVERIES = {
    Delivery.BUSY: Rule(ANY, ANY, ANY, Nt.IO_DEVICE_ERROR, _AT_ONCE),
    Delivery.RESET: Rule(ANY, ANY, ANY, Nt.IO_DEVICE_ERROR, _AT_ONCE),
    Delivery.ABORTED: Rule(ANY, ANY, ANY, Nt.IO_TIMEOUT, 1),
    Delivery.TIMEOUT: Rule(ANY, ANY, ANY, Nt.IO_TIMEOUT, 1),
}
_STATUSES = {
    Status.RESERVATION_CONFLICT: Rule(ANY, ANY, ANY, Nt.DEVICE_BUSY),
    Status.TASK_SET_FULL: Rule(ANY, ANY, ANY, Nt.IO_DEVICE_ERROR, _AT_ONCE),
}
"""Statuses that say all, whatever the sense data."""
_BUSY = Rule(ANY, ANY, ANY, Nt.DEVICE_NOT_READY, _AT_ONCE, "the disk driver resets the bus")
_NO_SENSE_DATA = Rule(ANY, ANY, ANY, Nt.IO_DEVICE_ERROR, _AT_ONCE)


def rule_for(done: Completion) -> Rule | None:
    """What Windows makes of a command that did not simply succeed; None for GOOD."""
    if done.delivery is not Delivery.DONE:
        return _DELIVERIES[done.delivery]
    if done.status == Status.GOOD:
        return None
    if done.status in _STATUSES:
        return _STATUSES[Status(done.status)]
    return _by_sense(done)


def _by_sense(done: Completion) -> Rule:
    found = sensed(done.sense)
    if found is None:
        return _BUSY if done.status == Status.BUSY else _NO_SENSE_DATA
    if found.codes[0] == Key.NO_SENSE and found.incorrect_length:
        return INCORRECT_LENGTH
    return next(rule for rule in RULES if rule.matches(found.codes))


def forwarded(status: int, sense: bytes) -> Rule:
    """What Windows makes of sense data inside RECEIVE ROD TOKEN INFORMATION data, with its completion status."""
    if status in _STATUSES:
        return _STATUSES[Status(status)]
    return _by_sense(Completion(status, sense))


def blocks_written(sense: bytes) -> int:
    """The count in sense data that tells of truncation, 0 if it is of another kind or has none."""
    found = sensed(sense)
    if found is None or found.codes[0] not in {Key.COPY_ABORTED, Key.ABORTED_COMMAND}:
        return 0
    return found.information if found.codes[1:] == _UNDERRUN else 0
