"""What the book says about an access to a disk, in the words of the disk's fault layer.

Imports `faults/` and `disk/layers/faults`. Called from any thread.
"""

from __future__ import annotations

import errno
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from qemu_odx.disk.layers.faults import Breakage
from qemu_odx.faults.event import Event, Level

if TYPE_CHECKING:
    from collections.abc import Sequence

    from qemu_odx.disk.layers.faults import FaultLayer
    from qemu_odx.faults.book import FaultBook, Hit


@dataclass(slots=True)
class DiskFaults:
    """Asks the book for all disks.

    Attributes:
        armed: whether a rule for disks is in force.
    """

    book: FaultBook
    armed: bool = field(default=False, init=False)

    def __post_init__(self) -> None:
        self.book.changed.append(self._look)

    def of(self, layer: FaultLayer) -> OneDisk:
        """What one disk asks."""
        return OneDisk(self, layer)

    def _look(self) -> None:
        self.armed = self.book.armed_at(Level.DISK)


@dataclass(frozen=True, slots=True)
class OneDisk:
    """Implements `disk/layers/faults.Decide`."""

    faults: DiskFaults
    layer: FaultLayer

    @property
    def armed(self) -> bool:
        """True if anything can go wrong at all."""
        return self.faults.armed

    def breakages(self, operation: str, runs: Sequence[tuple[int, int]]) -> Sequence[Breakage]:
        """What goes wrong with an access."""
        layer = self.layer
        event = Event(Level.DISK, operation, layer.name, block_size=layer.block_size, find_runs=lambda: runs)
        return [_breakage(hit, sum(length for _, length in runs)) for hit in self.faults.book.hits(event)]


def _breakage(hit: Hit, length: int) -> Breakage:
    action = hit.action
    match action.name:
        case "torn-write":
            return Breakage(0 if action.silent else errno.EIO, length=min(action.length, length))
        case "bit-flip":
            at = action.byte if action.byte is not None else hit.place % max(1, length)
            bit = action.bit if action.bit is not None else (hit.place >> 29) & 7
            return Breakage(flip=(at, bit))
        case "out-of-space":
            return Breakage(errno.ENOSPC)
    return Breakage(action.error)
