"""Checks that POPULATE TOKEN and WRITE USING TOKEN share, in the order of the standard (SBC-5 5.12, 5.59)."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

from qemu_odx.disk.port import Extent
from qemu_odx.wire.scsi import sense
from qemu_odx.wire.scsi.token_lists import RANGE_SIZE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from qemu_odx.target.lun import LogicalUnit
    from qemu_odx.target.request import Request
    from qemu_odx.wire.scsi.sense import Sense
    from qemu_odx.wire.scsi.token_lists import Range


def list_identifier_fault(request: Request, identifier: int) -> Sense | None:
    """OPERATION IN PROGRESS if a copy with this list identifier runs on the nexus (SPC-4 5.17.4.2)."""
    running = request.manager.operations.active(request.nexus, identifier)
    return sense.OPERATION_IN_PROGRESS if running else None


def range_fault(ranges: Sequence[Range], header: int, unit: LogicalUnit) -> Sense | None:
    """What is wrong with the range descriptors that start at byte `header`, if anything."""
    if len(ranges) > unit.limits.max_ranges:
        return sense.TOO_MANY_DESCRIPTORS
    for number, item in enumerate(ranges):
        if unit.out_of_range(item.lba, item.blocks):
            return sense.LBA_OUT_OF_RANGE.at(header + number * RANGE_SIZE)
    if _overlap(ranges) or total(ranges) > unit.limits.max_token_blocks:
        return sense.INVALID_FIELD_IN_LIST  # no pointer: no single field is wrong
    return None


def total(ranges: Sequence[Range]) -> int:
    """Sum of NUMBER OF LOGICAL BLOCKS."""
    return sum(item.blocks for item in ranges)


def first_extents(ranges: Sequence[Range], blocks: int | None, size: int) -> list[Extent]:
    """The first `blocks` blocks of the ranges, None for all, as byte extents."""
    left = total(ranges) if blocks is None else blocks
    extents = []
    for item in ranges:
        count = min(item.blocks, left)
        extents.append(Extent(item.lba * size, count * size))
        left -= count
    return extents


def underrun(count: int) -> Sense:
    """Less was done than asked: COPY ABORTED if anything was, else ILLEGAL REQUEST (SBC-5 4.28.2)."""
    return (sense.COPY_UNDERRUN if count else sense.NOTHING_COPIED).told(count)


def _overlap(ranges: Sequence[Range]) -> bool:
    """True if two descriptors share a block; touching is legal, empty ones share nothing."""
    ordered = sorted((item for item in ranges if item.blocks), key=lambda item: item.lba)
    return any(first.end > second.lba for first, second in pairwise(ordered))
