"""A wrong block, and all that is known about it.

Imports `record.py`. Made by `verify.py`, shown in the log and by the monitor.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from qemu_odx.disk.layers.record import Write


@dataclass(frozen=True, slots=True)
class Finding:
    """A block that does not hold what was written last.

    Attributes:
        disk: its name.
        block: number of the block, in logical blocks.
        block_size: bytes.
        found_by: the request that met it.
        when: seconds since 1970.
        expected: CRC-32 of what was written.
        found: CRC-32 of what is there.
        zeros: it is all zeros.
        written: the write that it comes from; None if that is no longer remembered, or was before the first look.
        overlapping: other writes to the block that were under way at the same time.
    """

    disk: str
    block: int
    block_size: int
    found_by: str
    when: float
    expected: int
    found: int
    zeros: bool
    written: Write | None
    overlapping: tuple[Write, ...]

    def __str__(self) -> str:
        looks = "zeros" if self.zeros else f"CRC {self.found:08x}"
        head = (
            f"disk {self.disk}: block {self.block} (byte {self.block * self.block_size}) is wrong: {self.found_by} "
            f"found {looks} instead of CRC {self.expected:08x}"
        )
        if self.written is None:
            return f"{head}; who wrote it is not known"
        beside = ", ".join(map(_named, self.overlapping)) or "none"
        return f"{head}; written last by {_named(self.written)}; requests that overlapped it: {beside}"


def _named(write: Write) -> str:
    when = datetime.fromtimestamp(write.begun).astimezone().isoformat(timespec="milliseconds")
    return (
        f"write {write.number} ({write.who}, bytes {write.offset} to {write.offset + write.length}, {when})"
    )
