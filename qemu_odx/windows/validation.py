"""What the class driver checks of an offload request before it sends anything, in its order.

Imports `request` and `wire`. A table of checks (class.c, utils.c); the first that objects ends the request with its
NTSTATUS and leaves IoStatus.Information alone. Not checked, on purpose: Size, Flags, whether offsets lie inside the
buffer, overlap of ranges, TokenOffset.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from qemu_odx.windows.request import Buffer
from qemu_odx.wire.dsm.codes import DsmAction
from qemu_odx.wire.dsm.ntstatus import NtStatus
from qemu_odx.wire.dsm.structures import (
    DataSetRange,
    DsmInput,
    OffloadReadOutput,
    OffloadReadParameters,
    OffloadWriteOutput,
    OffloadWriteParameters,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from qemu_odx.windows.request import Request, Volume

_ULONGLONG = (1 << 64) - 1
_PARAMETERS = {
    DsmAction.OFFLOAD_READ: OffloadReadParameters.SIZE,
    DsmAction.OFFLOAD_WRITE: OffloadWriteParameters.SIZE,
}
_OUTPUT = {
    DsmAction.OFFLOAD_READ: OffloadReadOutput.SIZE,
    DsmAction.OFFLOAD_WRITE: OffloadWriteOutput.SIZE,
}


def _head(request: Request, _: Volume) -> NtStatus | None:
    return NtStatus.INVALID_PARAMETER if len(request.data) < DsmInput.SIZE else None


def _lengths(request: Request, _: Volume) -> NtStatus | None:
    head = Buffer(request).head
    needed = DsmInput.SIZE + head.parameter_length + head.ranges_length
    return NtStatus.INVALID_PARAMETER if len(request.data) < needed else None


def _supported(_: Request, volume: Volume) -> NtStatus | None:
    if volume.is_disk and volume.known.on:
        return None
    return NtStatus.DEVICE_FEATURE_NOT_SUPPORTED


def _level(request: Request, _: Volume) -> NtStatus | None:
    return NtStatus.INVALID_LEVEL if request.raised else None


def _mode(request: Request, _: Volume) -> NtStatus | None:
    return None if request.kernel else NtStatus.ACCESS_DENIED


def _range_list(request: Request, _: Volume) -> NtStatus | None:
    head = Buffer(request).head
    if head.ranges_offset and head.ranges_length >= DataSetRange.SIZE:
        return None
    return NtStatus.INVALID_PARAMETER


def _geometry(_: Request, volume: Volume) -> NtStatus | None:
    if not volume.block_size:
        volume.block_size, volume.size = volume.read_capacity() or (0, volume.size)
    return None if volume.block_size else NtStatus.INVALID_PARAMETER


def _ranges(request: Request, volume: Volume) -> NtStatus | None:
    """Range by range: multiples of the block size and not empty, then inside the disk."""
    for offset, length in Buffer(request).extents():
        if offset % volume.block_size or length % volume.block_size or not length:
            return NtStatus.INVALID_PARAMETER
        if (offset + length) & _ULONGLONG > volume.size:
            return NtStatus.NONEXISTENT_SECTOR
    return None


def _parameter_block(request: Request, _: Volume) -> NtStatus | None:
    head = Buffer(request).head
    short = head.parameter_length < _PARAMETERS[DsmAction(head.action)]
    return NtStatus.INVALID_PARAMETER if short else None


def _time_to_live(request: Request, volume: Volume) -> NtStatus | None:
    head, limits = Buffer(request).head, volume.known.limits
    if head.action != DsmAction.OFFLOAD_READ or limits is None or not limits.max_inactivity:
        return None
    raw = Buffer(request).block(head.parameter_offset, OffloadReadParameters.SIZE)
    too_long = OffloadReadParameters.parse(raw).time_to_live > limits.max_inactivity
    return NtStatus.INVALID_PARAMETER if too_long else None


def _room(request: Request, _: Volume) -> NtStatus | None:
    short = request.room < _OUTPUT[DsmAction(Buffer(request).head.action)]
    return NtStatus.BUFFER_TOO_SMALL if short else None


CHECKS: tuple[tuple[str, Callable[[Request, Volume], NtStatus | None]], ...] = (
    ("the input holds its head", _head),
    ("the input holds parameter block and ranges, alignment not counted", _lengths),
    ("the disk has ODX", _supported),
    ("IRQL below DISPATCH_LEVEL", _level),
    ("the request comes from kernel mode", _mode),
    ("there is a list of ranges with at least one", _range_list),
    ("the block size is known, or can be read now", _geometry),
    ("each range is made of whole blocks, not empty, and inside the disk", _ranges),
    ("the parameter block is long enough", _parameter_block),
    (
        "TimeToLive of a read within MAXIMUM INACTIVITY TIMER, compared as the plain number it is",
        _time_to_live,
    ),
    ("the output buffer holds the answer", _room),
)
"""Each check with what it wants."""


def objection(request: Request, volume: Volume) -> NtStatus | None:
    """The first check's NTSTATUS that objects; None if the request may go on."""
    return next((status for _, check in CHECKS if (status := check(request, volume)) is not None), None)
