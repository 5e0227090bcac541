"""What a disk finds when it is opened: snapshots that a predecessor noted, or a side file that nobody needs.

May import `journal.py`, `side.py`, `ranges.py`, `before_write.py`, `reflink.py`. Next: `file.py` goes on from it.
"""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

from qemu_odx.disk.ranges import disjoint
from qemu_odx.disk.side import SideFile, read_mark, side_name

if TYPE_CHECKING:
    from collections.abc import Iterator

    from qemu_odx.disk.image import Image
    from qemu_odx.disk.journal import DiskJournal, Legacy
    from qemu_odx.disk.ranges import Range


def open_side(image: Image, journal: DiskJournal | None, *, writes: bool) -> tuple[SideFile, Legacy | None]:
    """The side file of an image, and what in it is a predecessor's.

    Without a journal it has no name, and what others left beside the image goes if the image is about to change:
    whoever finds it later must not believe it.
    """
    if journal is None:
        if image.path and writes:
            with contextlib.suppress(OSError):
                side_name(image.path).unlink()
        return SideFile(image.folder), None
    path = journal.side_path(image.path)
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        fd = -1
    legacy = journal.recall(image.file.fd, read_mark(fd) if fd >= 0 else b"")
    if fd >= 0 and legacy:
        return SideFile.again(path, fd, _used(legacy)), legacy
    if fd >= 0:
        os.close(fd)
        with contextlib.suppress(OSError):
            path.unlink()
    return SideFile(image.folder, path), None


def _used(legacy: Legacy) -> Iterator[Range]:
    for saved in legacy.saved:
        yield saved.where, saved.where + saved.end - saved.start
    for held in legacy.held:
        for (start, end), place in zip(disjoint(held.extents), held.places, strict=False):
            yield place, place + end - start
