"""What is known of a disk's blocks: a checksum of each, and which write it comes from; kept in a file.

Imports `disk/image.py` for its error. Used by `verify.py`.

The file is mapped: a head, a ring with the last writes, then eight bytes for each block: the checksum (CRC-32) and
the number of the write, 0 while nothing is known. It is sparse, and the system writes it back when memory is short.
What is in it survives a killed server; after a crash of the host, which may have lost parts of it, it begins anew.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import tempfile
import threading
from array import array
from dataclasses import dataclass
from pathlib import Path
from struct import Struct
from typing import IO, TYPE_CHECKING, Final

from qemu_odx.disk.image import DiskError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_MAGIC: Final = b"ODXVERI1"
_HEAD: Final = Struct("<8sIIQQ36s20s")
"""Magic, block size, whether it was closed, size of the disk, number of the last write, boot of the host, serial."""
_HEAD_SIZE: Final = 4096
_WRITE: Final = Struct("<QddQQ88s")
_WRITES: Final = 8192
"""Writes that are remembered by name."""
_ENTRIES: Final = _HEAD_SIZE + _WRITES * _WRITE.size
UNKNOWN: Final = 0
LEARNED: Final = 1
"""Numbers in entries that are no write: nothing is known; the checksum is of what was there at the first look."""
_FIRST: Final = 2
_NUMBERS: Final = (1 << 32) - _FIRST


@dataclass(frozen=True, slots=True)
class Write:
    """A change of some blocks. `number` counts from 0, times are seconds since 1970, `ended` is 0 while it runs."""

    number: int
    begun: float
    ended: float
    offset: int
    length: int
    who: str

    def overlaps(self, other: Write) -> bool:
        """True if both were under way at some moment."""
        return self.begun <= (other.ended or float("inf")) and other.begun <= (self.ended or float("inf"))


class Record:
    """The record of one disk; every method may be called from any thread.

    Args:
        path: where it is kept; None: in a file without a name, for this run only.
        size: bytes of the disk.
        block_size: bytes of a block.
        serial: of the disk; a record of another disk is refused.

    Attributes:
        fresh: nothing was known when it was opened.

    Raises:
        DiskError: the file cannot be used; the sentence has the cure.
    """

    def __init__(self, path: Path | None, size: int, block_size: int, serial: str) -> None:
        self._block_size, self._serial = block_size, serial.encode()
        self._lock = threading.Lock()
        try:
            self._file = _open(path)
        except OSError as error:
            raise DiskError(f"{path} cannot hold a record ({error.strerror}): choose another file") from error
        try:
            self.fresh = os.fstat(self._file.fileno()).st_size == 0 or not self._matches(path, size)
        except DiskError:
            self._file.close()
            raise
        if self.fresh:
            os.ftruncate(self._file.fileno(), 0)
        self._map(size)
        self._next = 0 if self.fresh else _HEAD.unpack_from(self._pages)[4]
        self._save_head(closed=False)

    def begin(self, offset: int, length: int, who: str, now: float) -> Write:
        """A write begins."""
        with self._lock:
            write = Write(self._next, now, 0.0, offset, length, who)
            self._next += 1
            self._save_head(closed=False)
            self._store(write)
        return write

    def end(self, write: Write, now: float) -> None:
        """It has ended, well or badly."""
        with self._lock:
            self._store(Write(write.number, write.begun, now, write.offset, write.length, write.who))

    def entries(self, first: int, count: int) -> array[int]:
        """(number << 32 | checksum) of some blocks, as they are now."""
        found = array("Q")
        at = _ENTRIES + 8 * first
        found.frombytes(self._pages[at : at + 8 * count])
        return found

    def put(self, first: int, entries: Sequence[int]) -> None:
        """Set the entries of some blocks."""
        at = _ENTRIES + 8 * first
        self._pages[at : at + 8 * len(entries)] = array("Q", entries).tobytes()

    def forget(self, first: int, count: int) -> None:
        """Nothing is known of some blocks any more."""
        at = _ENTRIES + 8 * first
        self._pages[at : at + 8 * count] = bytes(8 * count)

    def write_of(self, entry: int) -> Write | None:
        """The write that an entry comes from, if it is still remembered."""
        number = (entry >> 32) - _FIRST
        return next((w for w in self.writes() if number >= 0 and w.number % _NUMBERS == number), None)

    def writes(self) -> Iterator[Write]:
        """The writes that are remembered, in no order."""
        with self._lock:
            ring = self._pages[_HEAD_SIZE:_ENTRIES]
        for number, begun, ended, offset, length, who in _WRITE.iter_unpack(ring):
            if begun:
                yield Write(number, begun, ended, offset, length, who.rstrip(b"\0").decode(errors="replace"))

    def resize(self, size: int) -> None:
        """The disk has another size; nobody uses the record meanwhile."""
        with self._lock:
            self._pages.close()
            self._map(size)
            self._save_head(closed=False)

    def host_crashed(self) -> None:
        """A crash of the host is modelled: the next one to open it begins anew, as after a real one."""
        with self._lock:
            _HEAD.pack_into(
                self._pages, 0, _MAGIC, self._block_size, 0, self._size, self._next, b"modelled", self._serial
            )

    def close(self) -> None:
        """Keep it: it is good for the next run, also on another boot of the host. Idempotent."""
        with self._lock:
            if not self._file.closed:
                self._save_head(closed=True)
                self._pages.flush()
                self._pages.close()
                self._file.close()

    def _matches(self, path: Path | None, size: int) -> bool:
        """Whether the file has what is true of this disk. Raises DiskError if it is another's."""
        head = os.pread(self._file.fileno(), _HEAD.size, 0)
        if len(head) < _HEAD.size or not head.startswith(_MAGIC):
            raise DiskError(f"{path} is no record of a disk: choose another file, or remove it")
        _, block_size, closed, of_size, _, boot, serial = _HEAD.unpack(head)
        if (block_size, serial.rstrip(b"\0")) != (self._block_size, self._serial) or of_size > size:
            raise DiskError(f"{path} is the record of another disk: choose another file, or remove it")
        return bool(closed) or boot == _boot()

    def _map(self, size: int) -> None:
        self._size = size
        length = _ENTRIES + 8 * -(-size // self._block_size)
        os.ftruncate(self._file.fileno(), length)
        self._pages = mmap.mmap(self._file.fileno(), length)

    def _store(self, write: Write) -> None:
        who = write.who.encode()[:88]
        place = _HEAD_SIZE + write.number % _WRITES * _WRITE.size
        fields = (write.number, write.begun, write.ended, write.offset, write.length, who)
        _WRITE.pack_into(self._pages, place, *fields)

    def _save_head(self, *, closed: bool) -> None:
        fields = (self._block_size, closed, self._size, self._next, _boot(), self._serial)
        _HEAD.pack_into(self._pages, 0, _MAGIC, *fields)


def number_in_entry(write: Write) -> int:
    """The upper half of the entries of a write."""
    return write.number % _NUMBERS + _FIRST


def _open(path: Path | None) -> IO[bytes]:
    """Raises OSError, DiskError."""
    if path is None:
        return tempfile.TemporaryFile()
    file = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600), "r+b")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        raise DiskError(
            f"{path} is in use by another disk or server: give each disk its own record"
        ) from None
    return file


def _boot() -> bytes:
    """Which boot of the host this is (proc(5), random/boot_id)."""
    return Path("/proc/sys/kernel/random/boot_id").read_bytes()[:36]
