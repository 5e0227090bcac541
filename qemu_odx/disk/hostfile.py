"""An open file or block device of the host: whole reads and writes at an offset, holes, zeroes.

The one place that moves bytes between memory and files. May import `linux.py` and `port.py`. Next:
`file.py` puts a disk on one, `side.py` keeps old data in another, `copying.py` copies between two.
"""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

from qemu_odx.disk import linux
from qemu_odx.disk.port import Extent

if TYPE_CHECKING:
    from collections.abc import Sequence

    from qemu_odx.disk.port import Io

IOV_MAX = 1024  # readv(2), limits.h: buffers that one vectored call takes
_ZEROES = bytes(1 << 20)

_PUNCH = linux.FALLOC_FL_PUNCH_HOLE | linux.FALLOC_FL_KEEP_SIZE
_ZERO = linux.FALLOC_FL_ZERO_RANGE | linux.FALLOC_FL_KEEP_SIZE


def total(buffers: Sequence[memoryview | bytes]) -> int:
    """Bytes in all the buffers together; memory views are views of bytes."""
    return sum(map(len, buffers))


class HostFile:
    """A file descriptor that it owns, and what this file turned out not to support.

    Where a method asks for the `length` of its buffers, that is what `total` says of them: callers know it.
    """

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self._nowait = True
        self._lacking: set[int] = set()

    def read(self, offset: int, into: Sequence[memoryview], length: int) -> None:
        """Fill all buffers from `offset` on.

        Raises:
            OSError: the host failed, or the file ends before the buffers do (somebody shrank it).
        """
        done = os.preadv(self.fd, into, offset) if len(into) <= IOV_MAX else 0
        if done == length:
            return
        while rest := _after(into, done):
            step = os.preadv(self.fd, rest, offset + done)
            if step == 0:
                raise OSError(errno.EIO, "the image is shorter than it was when it was opened")
            done += step

    def try_read(self, offset: int, into: Sequence[memoryview], length: int) -> bool:
        """Fill all buffers only if the page cache has the data; False leaves them in an unknown state."""
        if not self._nowait:
            self.read(offset, into, length)
            return True
        try:
            return os.preadv(self.fd, into, offset, os.RWF_NOWAIT) == length
        except BlockingIOError:
            return False
        except OSError as error:
            if error.errno == errno.EOPNOTSUPP:  # this file system cannot tell; asking again is no use
                self._nowait = False
                return self.try_read(offset, into, length)
            if error.errno != errno.EINVAL:  # EINVAL: more than IOV_MAX buffers
                raise
            return False

    def try_batch(self, batch: Sequence[Io]) -> list[int]:
        """Do each in turn without waiting for the disk; the places of those that were not, or not wholly, done."""
        fd, flags = self.fd, os.RWF_NOWAIT if self._nowait else 0
        preadv, pwritev = os.preadv, os.pwritev
        left = []
        for place, (is_write, offset, length, buffers) in enumerate(batch):
            try:
                done = pwritev(fd, buffers, offset) if is_write else preadv(fd, buffers, offset, flags)
            except OSError as error:
                if flags and not is_write and error.errno == errno.EOPNOTSUPP:
                    self._nowait = False  # as in `try_read`
                    return self.try_batch(batch)
                done = -1
            if done != length:
                left.append(place)
        return left

    def write(self, offset: int, data: Sequence[memoryview | bytes], length: int) -> None:
        """Write all buffers from `offset` on. Raises OSError, after perhaps a part was written."""
        done = os.pwritev(self.fd, data, offset) if len(data) <= IOV_MAX else 0
        if done == length:
            return
        while rest := _after(data, done):
            step = os.pwritev(self.fd, rest, offset + done)
            if step == 0:
                raise OSError(errno.EIO, "the host wrote nothing")
            done += step

    def flush(self) -> None:
        """Put the data on stable storage. Raises OSError."""
        os.fdatasync(self.fd)

    def punch(self, offset: int, length: int) -> None:
        """Make a hole: reads as zeroes, space given back where the file system can. Raises OSError."""
        if not self._fallocate(_PUNCH, offset, length):
            self._write_zeroes(offset, length)

    def zero(self, offset: int, length: int) -> None:
        """Make the range read as zeroes and keep its space. Raises OSError."""
        if not self._fallocate(_ZERO, offset, length):
            self._write_zeroes(offset, length)

    def allocated(self, offset: int, length: int) -> list[tuple[Extent, bool]]:
        """The range cut into extents of data (True) and holes (False); all data where nobody can tell."""
        result: list[tuple[Extent, bool]] = []
        end = offset + length
        while offset < end:
            data = self._seek(offset, os.SEEK_DATA, end)
            if data > offset:
                result.append((Extent(offset, data - offset), False))
            if data < end:
                hole = self._seek(data, os.SEEK_HOLE, end)
                result.append((Extent(data, hole - data), True))
                data = hole
            offset = data
        return result

    def close(self) -> None:
        """Close the descriptor; later calls fail with EBADF instead of reaching some other file."""
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)

    def _seek(self, offset: int, whence: int, end: int) -> int:
        try:
            return min(os.lseek(self.fd, offset, whence), end)
        except OSError as error:
            if error.errno == errno.ENXIO:  # lseek(2): no data after the offset
                return end
            if error.errno in linux.NOT_SUPPORTED:  # block devices: everything counts as data
                return offset if whence == os.SEEK_DATA else end
            raise

    def _fallocate(self, mode: int, offset: int, length: int) -> bool:
        if mode in self._lacking:
            return False
        try:
            linux.fallocate(self.fd, mode, offset, length)
        except OSError as error:
            if error.errno not in linux.NOT_SUPPORTED:
                raise
            if error.errno != errno.EINVAL:  # EINVAL may be about this range alone
                self._lacking.add(mode)
            return False
        return True

    def _write_zeroes(self, offset: int, length: int) -> None:
        while length > 0:
            step = min(length, len(_ZEROES))
            self.write(offset, [memoryview(_ZEROES)[:step]], step)
            offset, length = offset + step, length - step


def _after(buffers: Sequence[memoryview | bytes], done: int) -> list[memoryview]:
    """What is left of the buffers after `done` bytes, IOV_MAX buffers at most; empty if nothing is."""
    rest: list[memoryview] = []
    for buffer in buffers:
        if done >= len(buffer):
            done -= len(buffer)
        elif len(rest) < IOV_MAX:
            rest.append(memoryview(buffer)[done:])
            done = 0
    return rest
