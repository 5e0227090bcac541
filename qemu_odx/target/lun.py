"""A logical unit: a disk with what SCSI knows about it.

Imports `disk/port`, `disk/dispatch`, `tokens/limits`, `wire`. Commands in `target/commands/` act on it.
"""

from __future__ import annotations

import hashlib
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from qemu_odx.target.mode_pages import ModePages
from qemu_odx.target.reservations import Reservations
from qemu_odx.tokens.limits import Limits
from qemu_odx.wire.scsi import sense

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

    from qemu_odx.disk.dispatch import DiskQueue
    from qemu_odx.disk.port import Disk
    from qemu_odx.wire.scsi.sense import Sense

_ATTENTIONS = 8
"""Unit attentions queued per nexus; further ones replace nothing and are dropped (SAM-5 5.14 lets us)."""


def _nobody() -> None:
    """Nobody wants to know."""


def locally_assigned_naa(serial: str) -> bytes:
    """A 16-byte NAA designator (IEEE registered extended) under QEMU's OUI 52-54-00, stable for a serial."""
    digest = hashlib.sha256(serial.encode()).digest()
    value = 0x6 << 124 | 0x525400 << 100 | int.from_bytes(digest, "big") >> (256 - 100)
    return value.to_bytes(16, "big")


@dataclass(slots=True)
class LogicalUnit:
    """One logical unit of a target.

    Attributes:
        number: logical unit number.
        disk: where its data is.
        io: carries reads and writes to the disk.
        naa: 16-byte NAA designator.
        limits: token copy limits, in this unit's blocks.
        mode: mode pages.
        stopped: START STOP UNIT stopped it.
        reservations: who may use it; the same for every logical unit on the disk.
        disturbed: called before a nexus has something to be told.
    """

    number: int
    disk: Disk
    io: DiskQueue
    naa: bytes
    limits: Limits
    mode: ModePages = field(default_factory=ModePages)
    stopped: bool = False
    reservations: Reservations = field(default_factory=Reservations)
    prevented: set[Hashable] = field(default_factory=set)
    disturbed: Callable[[], None] = _nobody
    _attentions: dict[Hashable, deque[Sense]] = field(default_factory=dict)

    @classmethod
    def on(cls, number: int, disk: Disk, io: DiskQueue, limits: Limits | None = None) -> LogicalUnit:
        """A logical unit on a disk with its own identity and default limits."""
        chosen = limits or Limits.for_block_size(disk.block_size)
        return cls(number, disk, io, locally_assigned_naa(disk.serial or disk.name), chosen)

    @property
    def block_size(self) -> int:
        """Logical block length in bytes."""
        return self.disk.block_size

    @property
    def blocks(self) -> int:
        """Capacity in logical blocks."""
        return self.disk.size // self.disk.block_size

    @property
    def physical_exponent(self) -> int:
        """LOGICAL BLOCKS PER PHYSICAL BLOCK EXPONENT: log2 (SBC-3 5.16)."""
        physical = self.disk.physical_block_size or self.block_size
        return (physical // self.block_size).bit_length() - 1

    def not_ready(self) -> Sense | None:
        """Why the medium cannot be accessed, or None."""
        return sense.NOT_READY_START_NEEDED if self.stopped else None

    def write_protection(self) -> Sense | None:
        """Why writes are refused, or None."""
        if self.disk.readonly:
            return sense.WRITE_PROTECTED
        return sense.SOFTWARE_WRITE_PROTECTED if self.mode.software_write_protect else None

    def out_of_range(self, lba: int, blocks: int) -> bool:
        """True if any of the blocks lies past the end."""
        return lba + blocks > self.blocks

    def attend(self, nexus: Hashable, condition: Sense) -> None:
        """Establish a unit attention for a nexus."""
        self.disturbed()
        queue = self._attentions.setdefault(nexus, deque())
        if condition not in queue and len(queue) < _ATTENTIONS:
            queue.append(condition)

    def attention(self, nexus: Hashable) -> Sense | None:
        """Take the oldest unit attention of a nexus."""
        queue = self._attentions.get(nexus)
        return queue.popleft() if queue else None

    def needs_attention(self, nexus: Hashable) -> bool:
        """True if a unit attention is pending for a nexus."""
        return bool(self._attentions.get(nexus))

    @property
    def as_made(self) -> bool:
        """True if no initiator has changed anything about it that a restart would undo."""
        return self.mode.as_made and not (self.stopped or self.prevented or self.reservations.any)

    def forget(self, nexus: Hashable) -> None:
        """The nexus is gone."""
        self._attentions.pop(nexus, None)
        self.prevented.discard(nexus)
