"""What a rule looks at: one request at a front door, or one access to a disk.

Imports nothing of ours. Made by the hooks; matched by `match.py`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    Runs = Sequence[tuple[int, int]]
    """Offset and length, in bytes of the disk."""


class Level(Enum):
    """Where a request is met."""

    SCSI = "scsi"
    """A SCSI command, from a virtio-scsi queue, a mailbox or a SCSI packet of virtio-blk."""
    BLK = "virtio-blk"
    """A virtio-blk request."""
    CONTROL = "task management"
    """A task management function of virtio-scsi."""
    DISK = "disk"
    """An access to the disk itself, whoever caused it."""


@dataclass(slots=True)
class Event:
    """One request.

    Attributes:
        level: where it is met.
        operation: its name in `operations.py`.
        disk: `id=` of the disk, "" if there is none.
        exports: names of the export that it came through (its id, its socket path, the last part of that).
        cdb: the CDB of a SCSI command.
        block_size: of the disk, in bytes; rules count in these blocks.
        find_runs: what of the disk it touches; asked for only if a rule wants to know.
    """

    level: Level
    operation: str
    disk: str = ""
    exports: frozenset[str] = frozenset()
    cdb: bytes = b""
    block_size: int = 512
    find_runs: Callable[[], Runs] = field(default=tuple, repr=False)
    _runs: Runs | None = field(default=None, init=False, repr=False)

    @property
    def runs(self) -> Runs:
        """What of the disk it touches."""
        if self._runs is None:
            self._runs = self.find_runs()
        return self._runs
