"""The ranges of an IOCTL, and the part of them that goes into one command.

Imports `limits` and `wire`. Ranges keep the caller's order; nothing is sorted, merged or looked at for overlap.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from qemu_odx.wire.scsi.token_lists import Range

if TYPE_CHECKING:
    from collections.abc import Sequence

    from qemu_odx.windows.limits import CommandLimits

_ULONGLONG = (1 << 64) - 1
_MOST_BLOCKS = 0xFFFFFFFF
"""NUMBER OF LOGICAL BLOCKS has 32 bits (SBC-5 5.12)."""


@dataclass(frozen=True, slots=True)
class BlockRanges:
    """Ranges in blocks, joined in order; a range may be longer than one descriptor can say."""

    ranges: tuple[Range, ...]

    @classmethod
    def of(cls, extents: Sequence[tuple[int, int]], block_size: int) -> BlockRanges:
        """From offsets and lengths in bytes."""
        return cls(
            tuple(
                Range(offset // block_size & _ULONGLONG, length // block_size) for offset, length in extents
            )
        )

    @property
    def blocks(self) -> int:
        """All of them."""
        return sum(item.blocks for item in self.ranges)

    def piece(self, start: int, limits: CommandLimits) -> tuple[Range, ...]:
        """The descriptors of one command that goes on at block `start` of the joined ranges."""
        found: list[Range] = []
        room = self.blocks if limits.blocks is None else limits.blocks
        for item in self._from(start):
            lba, left = item.lba, min(item.blocks, room)
            while left and len(found) < limits.descriptors:
                blocks = min(left, _MOST_BLOCKS)
                found.append(Range(lba & _ULONGLONG, blocks))
                lba, left, room = lba + blocks, left - blocks, room - blocks
            if left or not room:
                break
        return tuple(found)

    def _from(self, start: int) -> list[Range]:
        rest = []
        for item in self.ranges:
            skipped = min(start, item.blocks)
            start -= skipped
            if skipped < item.blocks:
                rest.append(Range(item.lba + skipped, item.blocks - skipped))
        return rest
