"""Mapping files that a front end hands us, so that nothing it does to them can hurt us.

Imports `vhost/{bus_guard,message}.py`. Used for guest RAM (`vhost/mapping.py`), the in-flight area and the dirty log.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import stat
from typing import TYPE_CHECKING

from qemu_odx.vhost.bus_guard import bus_guard
from qemu_odx.vhost.message import RefusedError

if TYPE_CHECKING:
    from collections.abc import Callable


def map_shared(fd: int, offset: int, size: int, what: str, lost: Callable[[], None]) -> memoryview:
    """`size` bytes of a file from `offset` on, shared, writable; `fd` stays the caller's.

    The mapping lives as long as a view of it does.

    Args:
        fd: the file.
        offset: first byte; it need not begin a page.
        size: bytes.
        what: names it in errors.
        lost: called from the event loop if the file turns out to be shorter than it was.

    Raises:
        RefusedError: it is no file, shorter than that, or cannot be mapped safely.
    """
    status = os.fstat(fd)
    if not stat.S_ISREG(status.st_mode):
        raise RefusedError(f"{what} comes with a descriptor that is no memory file")
    if offset + size > status.st_size:
        raise RefusedError(f"{what} is larger than its file of {status.st_size} bytes")
    page = _page_size(status.st_blksize)
    start = offset // page * page
    end = min(-(-(offset + size) // page) * page, status.st_size)
    try:
        pages = mmap.mmap(fd, end - start, offset=start)
        _protect(pages, page if end % page == 0 else mmap.PAGESIZE, fd, lost)
    except (OSError, ValueError, OverflowError) as error:
        raise RefusedError(f"{what} cannot be mapped: {error}") from error
    return memoryview(pages)[offset - start :][:size]


def _page_size(block_size: int) -> int:
    """Huge pages can only be mapped whole: hugetlbfs reports their size as the block size; others, anything."""
    is_power = block_size & (block_size - 1) == 0
    return max(mmap.PAGESIZE, block_size) if is_power else mmap.PAGESIZE


def _protect(pages: mmap.mmap, page: int, fd: int, lost: Callable[[], None]) -> None:
    guard = bus_guard()
    if guard is not None:
        guard.protect(pages, page, lost)
    elif not _sealed(fd):
        raise OSError(
            "its file is not sealed against shrinking; use memory-backend-memfd (seal=on, its default) in QEMU"
        )


def _sealed(fd: int) -> bool:
    """True if nobody can make the file shorter; files that know no seals can always be made shorter."""
    try:
        return bool(fcntl.fcntl(fd, fcntl.F_GET_SEALS) & fcntl.F_SEAL_SHRINK)
    except OSError:
        return False
