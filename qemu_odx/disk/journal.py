"""What a disk notes for its successor in another process: the port behind which a journal stands.

May import `port.py`, `ranges.py`. `before_write.py` and `reflink.py` note; `server/journal/disks.py` is a journal;
`file.py` asks it, when the disk is opened, for what a predecessor left.

The order of things makes it safe against a kill at any moment: old data is in the side file before `saved`, and
`saved` has returned before the write goes on; `dropped` has returned before the space in the side file is used again.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from qemu_odx.disk.port import Extent


class Saved(NamedTuple):
    """Old data: the range [start, end) of the image at the time of snapshot `number`, at `where` in the side file."""

    where: int
    start: int
    end: int
    number: int


@dataclass(frozen=True, slots=True)
class Held:
    """A snapshot that is to outlast the process.

    Attributes:
        number: names it, on this disk.
        extents: what it is of, in the order of the data.
        places: reflink: where each disjoint range is in the side file.
    """

    number: int
    extents: tuple[Extent, ...]
    places: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Legacy:
    """What a predecessor left of one disk.

    Attributes:
        method: "reflink" or "copy-before-write", for all of it.
        held: its snapshots.
        saved: its old data; none with reflink.
    """

    method: str
    held: Sequence[Held] = ()
    saved: Sequence[Saved] = field(default=())


class DiskJournal(Protocol):
    """The journal of one disk. Every method may be called from any thread; none raises.

    A journal that fails takes care itself that no successor believes it.
    """

    def side_path(self, image: Path | None) -> Path:
        """Where the side file of an image (None: of a block device) has its name."""

    def recall(self, image: int, mark: bytes) -> Legacy | None:
        """What was left, if it is still true of this image (open) and the side file with this mark; asked once.

        None: nothing, or nothing that can be relied on; what there was is forgotten.
        """

    def adopt(self, image: int, mark: bytes, method: str) -> None:
        """From now on notes are about this image and the side file with this mark."""

    def saved(self, pieces: Sequence[Saved]) -> None:
        """Old data that is in the side file."""

    def held(self, snapshot: Held) -> None:
        """A snapshot that is to outlast the process."""

    def dropped(self, numbers: Sequence[int], places: Sequence[int]) -> None:
        """Snapshots, and old data by its place, that nobody needs any more."""

    def closed(self, image: int) -> None:
        """The disk is closed in an orderly way; its image is open for the last time."""
