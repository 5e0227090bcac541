"""The copy itself: from the snapshot behind a token to ranges of a destination disk, in bounded steps.

Imports `disk/port`, `tokens`. Runs on a worker; reads and sets only the counters of its operation. This is where
tokens and disks meet.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from qemu_odx.disk.port import CopyMethod, SnapshotLostError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from qemu_odx.disk.port import Disk, Extent, Snapshot
    from qemu_odx.tokens.operations import Operation

STEP = 1 << 20
"""Bytes copied between two looks at the abort flag; also bounds how long a write to the same place waits."""


@dataclass(slots=True)
class CopyResult:
    """What became of a copy.

    Attributes:
        copied: bytes of the destination written, from the start of the ranges on.
        aborted: it was stopped.
        lost: the old data behind the token is gone.
        error: errno of the host, 0 if none.
        methods: bytes by way of copying.
    """

    copied: int = 0
    aborted: bool = False
    lost: bool = False
    error: int = 0
    methods: dict[CopyMethod, int] = field(default_factory=dict)


def copy_rod(
    source: Snapshot | None,
    offset: int,
    destination: Disk,
    extents: Sequence[Extent],
    operation: Operation,
    *,
    start: int = 0,
) -> CopyResult:
    """Write the data of a ROD from `offset` bytes on into `extents`, in their order; zeros if no source.

    The first `start` bytes are left out: they were written before the copy was broken off.

    What lies past the end of the ROD (the rest of a last, larger block) becomes zeros. Stops at the first error,
    so that what was written is a prefix in descriptor order.
    """
    result = CopyResult()
    try:
        for at, place, length in _steps(offset, extents):
            if result.copied + length <= start:
                result.copied += length
                operation.before = result.copied
                continue
            if operation.abort:
                result.aborted = True
                break
            method = _step(source, at, destination, place, length)
            result.methods[method] = result.methods.get(method, 0) + length
            result.copied += length
            operation.done += length
            operation.count = result.copied // destination.block_size
            operation.counter += 1
    except SnapshotLostError:
        result.lost = True
    except OSError as error:
        result.error = error.errno or 5
    return result


def make_stable(disk: Disk, result: CopyResult) -> None:
    """Flush what a copy wrote, for a unit without a write cache; if that fails, nothing counts as written."""
    try:
        disk.flush()
    except OSError as error:
        result.error, result.copied = error.errno or 5, 0


def _steps(offset: int, extents: Sequence[Extent]) -> Iterator[tuple[int, int, int]]:
    """(offset into the ROD, offset on the disk, length) of each step."""
    for extent in extents:
        done = 0
        while done < extent.length:
            length = min(STEP, extent.length - done)
            yield offset, extent.offset + done, length
            offset += length
            done += length


def _step(source: Snapshot | None, at: int, destination: Disk, place: int, length: int) -> CopyMethod:
    available = 0 if source is None else max(0, min(length, source.length - at))
    method = CopyMethod.ZERO
    if source is not None and available:
        method = source.copy_to(at, destination, place, available)
    if available < length:
        destination.write_zeroes(place + available, length - available, unmap=available == 0)
    return method
