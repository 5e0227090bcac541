"""The journal of one disk: implements `disk/journal.DiskJournal`.

Imports `disk/{journal,port,side,linux}` and `store.py`. Copy-before-write needs that nobody else has changed the
image since: an orderly end notes size and time of change; after a kill, the image may have been changed by the server
until shortly after it was last seen, and not later.
"""

from __future__ import annotations

import os
import stat
import struct
import time
from typing import TYPE_CHECKING, Final, NamedTuple

from qemu_odx.disk import linux
from qemu_odx.disk.journal import Held, Legacy, Saved
from qemu_odx.disk.port import Extent
from qemu_odx.disk.side import MARK_SIZE, side_name

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from qemu_odx.server.journal.store import Store

GRACE: Final = 5.0
"""Seconds from the last look at an image until the kill that ended its server, at most."""
_NANO: Final = 1_000_000_000


class _Image(NamedTuple):
    """A row of `images`."""

    disk: str
    device: int
    inode: int
    born: int
    mark: bytes
    method: str
    size: int
    changed: int
    seen: int
    closed: int


class ImageJournal:
    """Notes about one disk in the store."""

    def __init__(self, store: Store, disk: str, folder: Path) -> None:
        self._store = store
        self._disk = disk
        self._folder = folder
        self._image = -1
        self._held: set[int] = set()

    def side_path(self, image: Path | None) -> Path:
        """Beside the image, or in the state folder if nothing can be written there."""
        if image is not None and os.access(image.parent, os.W_OK):
            return side_name(image)
        return self._folder / f"{self._disk}.odx-old"

    def recall(self, image: int, mark: bytes) -> Legacy | None:
        """What was left of the disk, if it is the same image, changed by nobody, with the same side file."""
        rows = self._store.rows("SELECT * FROM images WHERE disk=?", self._disk)
        if not rows or not _still_true(_Image(*rows[0]), image, mark):
            self.forget()
            return None
        held = self._store.rows(
            "SELECT number, extents, places FROM held WHERE disk=? ORDER BY number", self._disk
        )
        saved = self._store.rows("SELECT place, start, end, number FROM saved WHERE disk=?", self._disk)
        self._held = {number for number, *_ in held}
        return Legacy(
            rows[0][5],
            [
                Held(number, tuple(Extent(*pair) for pair in _pairs(extents)), _numbers(places))
                for number, extents, places in held
            ],
            [Saved(*row) for row in saved],
        )

    def adopt(self, image: int, mark: bytes, method: str) -> None:
        """See `DiskJournal`."""
        self._image = image
        status = os.fstat(image)
        row = (status.st_dev, status.st_ino, linux.birth(image), mark, method, status.st_size)
        times = (status.st_mtime_ns, time.time_ns(), 0)
        self._store.write(
            "INSERT OR REPLACE INTO images VALUES(?,?,?,?,?,?,?,?,?,?)", (self._disk, *row, *times)
        )

    def saved(self, pieces: Sequence[Saved]) -> None:
        """See `DiskJournal`."""
        self._store.write(
            "INSERT OR REPLACE INTO saved VALUES(?,?,?,?,?)", *((self._disk, *piece) for piece in pieces)
        )

    def held(self, snapshot: Held) -> None:
        """See `DiskJournal`."""
        extents = _packed(edge for extent in snapshot.extents for edge in (extent.offset, extent.length))
        with self._store.together():
            if not self._held:  # until now nobody has looked
                self._look(self._image, closed=0)
            self._held.add(snapshot.number)
            self._store.write(
                "INSERT OR REPLACE INTO held VALUES(?,?,?,?)",
                (self._disk, snapshot.number, extents, _packed(snapshot.places)),
            )

    def dropped(self, numbers: Sequence[int], places: Sequence[int]) -> None:
        """See `DiskJournal`."""
        self._held.difference_update(numbers)
        with self._store.together():
            self._store.write(
                "DELETE FROM held WHERE disk=? AND number=?", *((self._disk, number) for number in numbers)
            )
            self._store.write(
                "DELETE FROM saved WHERE disk=? AND place=?", *((self._disk, place) for place in places)
            )

    def beat(self) -> None:
        """Note how the image looks, if anything depends on it."""
        if self._held and self._image >= 0:
            self._look(self._image, closed=0)

    def closed(self, image: int) -> None:
        """See `DiskJournal`."""
        if self._held:
            self._look(image, closed=1)
        else:
            self.forget()
        self._image = -1

    def _look(self, image: int, closed: int) -> None:
        status = os.fstat(image)
        self._store.write(
            "UPDATE images SET size=?, changed=?, seen=?, closed=? WHERE disk=?",
            (status.st_size, status.st_mtime_ns, time.time_ns(), closed, self._disk),
        )

    def forget(self) -> None:
        """There is nothing to be known of the disk."""
        with self._store.together():
            self._store.write("DELETE FROM held WHERE disk=?", (self._disk,))
            self._store.write("DELETE FROM saved WHERE disk=?", (self._disk,))
            self._store.write("DELETE FROM images WHERE disk=?", (self._disk,))


def _still_true(noted: _Image, image: int, mark: bytes) -> bool:
    """Whether nobody but the server that made these notes has changed the image since."""
    status = os.fstat(image)
    if not stat.S_ISREG(status.st_mode):  # block devices do not tell when they were changed
        return False
    same = (status.st_dev, status.st_ino, linux.birth(image)) == (noted.device, noted.inode, noted.born)
    if not same or mark != noted.mark or len(mark) != MARK_SIZE:
        return False
    if status.st_mtime_ns == noted.changed:
        return status.st_size == noted.size
    return not noted.closed and not by_another(status.st_mtime_ns, noted.seen)


def by_another(changed: int, seen: int) -> bool:
    """Whether an image was changed when the server that was killed, and seen alive last then, was no more."""
    return changed > seen + int(GRACE * _NANO)


def _packed(numbers: Iterable[int]) -> bytes:
    values = tuple(numbers)
    return struct.pack(f"<{len(values)}Q", *values)


def _numbers(data: bytes) -> tuple[int, ...]:
    return struct.unpack(f"<{len(data) // 8}Q", data)


def _pairs(data: bytes) -> Iterable[tuple[int, int]]:
    return struct.iter_unpack("<QQ", data)
