"""Control codes, DSM actions and flags of offloaded data transfer.

Imports nothing of ours. Sources: ntddstor.h and winioctl.h; FSCTL codes and flags also MS-FSCC 2.3.
"""

from __future__ import annotations

from enum import IntEnum, IntFlag

_METHOD_BUFFERED = 0
_ANY, _READ, _WRITE = 0, 1, 2
_MASS_STORAGE, _FILE_SYSTEM = 0x2D, 9


def control_code(device_type: int, function: int, access: int) -> int:
    """CTL_CODE with METHOD_BUFFERED (devioctl.h)."""
    return device_type << 16 | access << 14 | function << 2 | _METHOD_BUFFERED


class ControlCode(IntEnum):
    """The codes of DeviceIoControl."""

    IOCTL_STORAGE_QUERY_PROPERTY = control_code(_MASS_STORAGE, 0x500, _ANY)
    IOCTL_STORAGE_MANAGE_DATA_SET_ATTRIBUTES = control_code(_MASS_STORAGE, 0x501, _WRITE)
    FSCTL_OFFLOAD_READ = control_code(_FILE_SYSTEM, 0x99, _READ)
    FSCTL_OFFLOAD_WRITE = control_code(_FILE_SYSTEM, 0x9A, _WRITE)


NON_DESTRUCTIVE = 0x80000000
"""DeviceDsmActionFlag_NonDestructive: a driver that does not know the action may hand it on only if this is set."""


class DsmAction(IntEnum):
    """DEVICE_DATA_MANAGEMENT_SET_ACTION."""

    TRIM = 1
    NOTIFICATION = NON_DESTRUCTIVE | 2
    OFFLOAD_READ = NON_DESTRUCTIVE | 3
    OFFLOAD_WRITE = 4
    ALLOCATION = NON_DESTRUCTIVE | 5
    REPAIR = NON_DESTRUCTIVE | 6
    SCRUB = NON_DESTRUCTIVE | 7


class DsmFlag(IntFlag):
    """Flags of DEVICE_MANAGE_DATA_SET_ATTRIBUTES; useless for offload, which refuses an empty range list."""

    ENTIRE_DATA_SET_RANGE = 1


class ReadFlag(IntFlag):
    """OffloadReadFlags of STORAGE_OFFLOAD_READ_OUTPUT."""

    RANGE_TRUNCATED = 1


class WriteFlag(IntFlag):
    """OffloadWriteFlags of STORAGE_OFFLOAD_WRITE_OUTPUT."""

    RANGE_TRUNCATED = 1
    TOKEN_INVALID = 2


class FsctlReadFlag(IntFlag):
    """Flags of FSCTL_OFFLOAD_READ_OUTPUT (MS-FSCC 2.3.42 and the headers; a page of the DDI has other numbers)."""

    ALL_ZERO_BEYOND_CURRENT_RANGE = 1


class QueryType(IntEnum):
    """STORAGE_QUERY_TYPE."""

    STANDARD = 0
    EXISTS = 1


COPY_OFFLOAD_PROPERTY = 13
"""StorageDeviceCopyOffloadProperty."""
