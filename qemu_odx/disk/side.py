"""The side file of a disk: the file that holds the old data of its snapshots, and its free space.

May import `hostfile.py`, `ranges.py`. Next: `before_write.py` and `reflink.py` put old data there.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import tempfile
import threading
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from qemu_odx.disk.hostfile import HostFile
from qemu_odx.disk.ranges import RangeSet

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from qemu_odx.disk.ranges import Range

ALIGNMENT = 4096
"""Space starts at the source's offset modulo this, so that whole file system blocks can be shared."""

_GROWTH = 64 << 20
_TRIED = 32
"""Free ranges that are looked at before the file grows."""
MARK_SIZE = 16
"""Random bytes at the start of a named side file, by which a journal knows it again."""


class SideFile:
    """Space for old data; every method may be called from any thread.

    Without a name, nothing of the file outlives the process. It lives in the image's folder if possible: blocks can
    be shared and copied in the kernel only within one file system.

    Args:
        folder: where an unnamed one goes; None: among temporary files.
        path: its name, if a successor is to find it; what has that name already is replaced.
    """

    def __init__(self, folder: Path | None, path: Path | None = None) -> None:
        self._folder = folder
        self._path = path
        self._lock = threading.Lock()
        self._file: HostFile | None = None
        self._free = RangeSet()
        self._first = ALIGNMENT if path else 0
        self._end = self._size = self._first
        self._used = 0
        self.before_keeping: Callable[[int, int], None] = _nothing
        """Called with offset and length of the source before room for its old data is taken; may raise OSError."""
        self.mark = secrets.token_bytes(MARK_SIZE) if path else b""

    @classmethod
    def again(cls, path: Path, fd: int, used: Iterable[Range]) -> SideFile:
        """A predecessor's file, open as `fd`, which is ours now: what is not in `used` is free."""
        side = cls(None, path)
        side._file = HostFile(fd)
        side.mark = read_mark(fd)
        taken = RangeSet()
        for start, end in used:
            taken.add(start, end)
            side._used += end - start
            side._end = max(side._end, end)
        side._size = max(side._end, os.fstat(fd).st_size)
        at = side._first
        for start, end in (*taken, (side._size, side._size)):
            side._free.add(at, min(start, side._end))
            with contextlib.suppress(OSError):
                side._file.punch(at, start - at)
            at = end
        return side

    @property
    def used(self) -> int:
        """Bytes allocated and not freed."""
        return self._used

    def file(self) -> HostFile:
        """The file, created on first need. Raises OSError if no place for it can be found."""
        with self._lock:
            if self._file is None:
                self._file = HostFile(self._named(self._path) if self._path else _unnamed(self._folder))
            return self._file

    def allocate(self, length: int, like: int) -> int:
        """Room for the old data of `length` bytes at `like` of the source. Raises OSError."""
        self.before_keeping(like, length)
        return self.reserve(length, like)

    def reserve(self, length: int, like: int) -> int:
        """The offset of `length` free bytes, equal to `like` modulo `ALIGNMENT`. Raises OSError."""
        file = self.file()
        with self._lock:
            where = self._reuse(length, like)
            if where is None:
                where = self._append(file, length, like)
            self._used += length
            return where

    def free(self, ranges: Sequence[Range]) -> None:
        """Give ranges back, to the file system too; failing to is no error (the space is used again)."""
        freed = RangeSet()
        for start, end in ranges:
            freed.add(start, end)
        for start, end in freed:
            with contextlib.suppress(OSError):
                self.file().punch(start, end - start)
        with self._lock:
            for start, end in freed:
                self._used -= end - start
                self._free.add(start, end)
            if not self._used:
                self._empty()

    def close(self, *, keep: bool = False) -> None:
        """Give everything back; `keep` leaves a named file to a successor."""
        with self._lock:
            if self._file is not None:
                self._file.close()
                if self._path and not keep:
                    with contextlib.suppress(OSError):
                        self._path.unlink()

    def _named(self, path: Path) -> int:
        path.unlink(missing_ok=True)
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        os.pwrite(fd, self.mark, 0)
        return fd

    def _reuse(self, length: int, like: int) -> int | None:
        for start, end in islice(self._free, _TRIED):
            where = start + (like - start) % ALIGNMENT
            if where + length <= end:
                self._free.remove(where, where + length)
                return where
        return None

    def _append(self, file: HostFile, length: int, like: int) -> int:
        where = self._end + (like - self._end) % ALIGNMENT
        if where + length > self._size:  # grown ahead, as a hole: what is kept of a hole writes nothing
            size = where + length + _GROWTH
            os.ftruncate(file.fd, size)
            self._size = size
        self._free.add(self._end, where)
        self._end = where + length
        return where

    def _empty(self) -> None:
        self._free = RangeSet()
        self._end = self._first
        if self._file is not None:
            with contextlib.suppress(OSError):
                os.ftruncate(self._file.fd, self._first)
                self._size = self._first


def side_name(image: Path) -> Path:
    """The name of an image's side file beside it."""
    return image.with_name(f".{image.name}.odx-old")


def read_mark(fd: int) -> bytes:
    """The mark of a named side file."""
    return os.pread(fd, MARK_SIZE, 0)


def _nothing(_offset: int, _length: int) -> None:
    """What is called before nothing in particular."""


def _unnamed(folder: Path | None) -> int:
    """Open an unnamed file in the folder, with a short-lived name if need be, or else among temporary files."""
    if folder is not None:
        with contextlib.suppress(OSError):
            return os.open(folder, os.O_TMPFILE | os.O_RDWR, 0o600)
        with contextlib.suppress(OSError):
            return _soon_nameless(folder)
    return _soon_nameless(Path(tempfile.gettempdir()))


def _soon_nameless(folder: Path) -> int:
    fd, name = tempfile.mkstemp(prefix=".odx-", dir=folder)
    os.unlink(name)  # noqa: PTH108 - mkstemp gives a plain string
    return fd
