"""The dirty log: which guest pages we wrote, told to QEMU while it migrates the guest.

Imports `wire` and `vhost/{message,shared}.py`. `vhost/session.py` hangs `mark` into the guest memory while the front
end logs. Source: vhost-user specification, "Migration".

QEMU gives the same bitmap to all back ends of a guest and takes bits out of it meanwhile: only an atomic OR loses
nobody's bits. Python has none, the C library neither; libatomic, of the compiler, does.
"""

from __future__ import annotations

import ctypes
import functools
import logging
from typing import TYPE_CHECKING, Final

from qemu_odx.vhost.message import RefusedError
from qemu_odx.vhost.shared import map_shared

if TYPE_CHECKING:
    from collections.abc import Callable

    from qemu_odx.wire.vhost_user import LogBase

    FetchOr = Callable[[int, int, int], int]
    """Address of a byte, bits, memory order; the byte as it was."""

log = logging.getLogger(__name__)

_PAGE_SHIFT: Final = 12
"""VHOST_LOG_PAGE is 4096 bytes, whatever the machine's pages are."""
_SEQ_CST: Final = 5
"""__ATOMIC_SEQ_CST: the data must be in memory before the bit is."""


@functools.cache
def atomic_or() -> FetchOr | None:
    """The OR of a byte from libatomic; None where it is not installed: then logging cannot be offered."""
    try:
        fetch_or = ctypes.PyDLL("libatomic.so.1")["__atomic_fetch_or_1"]
    except (OSError, AttributeError):
        log.warning("guests cannot be migrated live: install libatomic (Debian package libatomic1)")
        return None
    fetch_or.argtypes = (ctypes.c_void_p, ctypes.c_uint8, ctypes.c_int)
    fetch_or.restype = ctypes.c_uint8
    return fetch_or


class DirtyLog:
    """The bitmap of SET_LOG_BASE, mapped: bit `page % 8` of byte `page // 8`.

    Raises:
        RefusedError: it cannot be mapped, or there is no atomic OR.
    """

    def __init__(self, base: LogBase, fd: int, lost: Callable[[], None]) -> None:
        fetch_or = atomic_or()
        if fetch_or is None:
            raise RefusedError("dirty logging needs libatomic.so.1")
        if not base.mmap_size:
            raise RefusedError("a dirty log of no bytes")
        self._fetch_or = fetch_or
        self._size = base.mmap_size
        self._view = map_shared(fd, base.mmap_offset, base.mmap_size, "the dirty log", lost)
        self._address = ctypes.addressof(ctypes.c_char.from_buffer(self._view))

    def mark(self, gpa: int, length: int) -> None:
        """Bytes from a guest physical address on were written; pages that the log has no bits for are left out."""
        if length <= 0:
            return
        first, last = gpa >> _PAGE_SHIFT, (gpa + length - 1) >> _PAGE_SHIFT
        last = min(last, 8 * self._size - 1)
        fetch_or, address = self._fetch_or, self._address
        while first <= last:
            end = min(last, first | 7)
            bits = (2 << (end & 7)) - (1 << (first & 7))
            fetch_or(address + (first >> 3), bits, _SEQ_CST)
            first = end + 1
