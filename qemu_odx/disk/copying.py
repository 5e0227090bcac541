"""Copying bytes between two host files, by the cheapest way that both allow.

May import `hostfile.py`, `linux.py`, `port.py`. Next: `snapshots.py` copies snapshot data to disks by it.
"""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from qemu_odx.disk import linux
from qemu_odx.disk.port import CopyMethod
from qemu_odx.disk.side import ALIGNMENT

if TYPE_CHECKING:
    from collections.abc import Iterable

    from qemu_odx.disk.hostfile import HostFile

BUFFER = 1 << 20

_COST = {CopyMethod.ZERO: 0, CopyMethod.REFLINK: 1, CopyMethod.COPY_FILE_RANGE: 2, CopyMethod.READ_WRITE: 3}
_thread = threading.local()


def dearest(methods: Iterable[CopyMethod]) -> CopyMethod:
    """The most expensive of the methods; ZERO if there is none."""
    return max(methods, key=_COST.__getitem__, default=CopyMethod.ZERO)


class Copier:
    """Copies into one file; remembers for each source which ways the file system refused."""

    def __init__(self, destination: HostFile) -> None:
        self._destination = destination
        self._refused: WeakKeyDictionary[HostFile, set[CopyMethod]] = WeakKeyDictionary()

    def copy(self, source: HostFile, offset: int, to: int, length: int) -> CopyMethod:
        """Copy `length` bytes; the ranges do not overlap if it is the same file. Raises OSError."""
        refused = self._refused.setdefault(source, set())
        if (offset - to) % ALIGNMENT == 0 and CopyMethod.REFLINK not in refused:
            head = min(-offset % ALIGNMENT, length)
            whole = (length - head) // ALIGNMENT * ALIGNMENT
            if whole and self._clone(source, offset + head, to + head, whole, refused):
                self._plain(source, offset, to, head, refused)
                done = head + whole
                self._plain(source, offset + done, to + done, length - done, refused)
                return CopyMethod.REFLINK
        return self._with_holes(source, offset, to, length, refused)

    def _clone(self, source: HostFile, offset: int, to: int, length: int, refused: set[CopyMethod]) -> bool:
        try:
            linux.clone_range(source.fd, offset, self._destination.fd, to, length)
        except OSError as error:
            _note(error, CopyMethod.REFLINK, refused)
            return False
        return True

    def _with_holes(
        self, source: HostFile, offset: int, to: int, length: int, refused: set[CopyMethod]
    ) -> CopyMethod:
        """Copy data as data and holes as holes."""
        methods: list[CopyMethod] = []
        for extent, mapped in source.allocated(offset, length):
            at = to + extent.offset - offset
            if mapped:
                methods.append(self._plain(source, extent.offset, at, extent.length, refused))
            else:
                self._destination.punch(at, extent.length)
        return dearest(methods)

    def _plain(
        self, source: HostFile, offset: int, to: int, length: int, refused: set[CopyMethod]
    ) -> CopyMethod:
        done = 0
        if CopyMethod.COPY_FILE_RANGE not in refused:
            done = self._in_kernel(source, offset, to, length, refused)
        if done == length:
            return CopyMethod.COPY_FILE_RANGE
        self._through_memory(source, offset + done, to + done, length - done)
        return CopyMethod.READ_WRITE

    def _in_kernel(
        self, source: HostFile, offset: int, to: int, length: int, refused: set[CopyMethod]
    ) -> int:
        """Copy by copy_file_range(2); returns how much of it was done when it was refused."""
        done = 0
        while done < length:
            try:
                step = os.copy_file_range(
                    source.fd, self._destination.fd, length - done, offset + done, to + done
                )
            except OSError as error:
                _note(error, CopyMethod.COPY_FILE_RANGE, refused)
                break
            if step == 0:  # some file systems answer so instead of refusing; a short file fails the read
                break
            done += step
        return done

    def _through_memory(self, source: HostFile, offset: int, to: int, length: int) -> None:
        buffer = _buffer()
        while length > 0:
            part = buffer[:length]
            source.read(offset, [part], len(part))
            self._destination.write(to, [part], len(part))
            offset, to, length = offset + len(part), to + len(part), length - len(part)


def _note(error: OSError, method: CopyMethod, refused: set[CopyMethod]) -> None:
    if error.errno not in linux.NOT_SUPPORTED:
        raise error
    refused.add(method)


def _buffer() -> memoryview:
    """The calling thread's own buffer."""
    if not hasattr(_thread, "buffer"):
        _thread.buffer = memoryview(bytearray(BUFFER))
    buffer: memoryview = _thread.buffer
    return buffer
