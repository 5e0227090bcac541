"""Linux calls that the standard library does not wrap: fallocate, sync_file_range, statx and FICLONERANGE.

Imports nothing of ours. Next: `hostfile.py` and `copying.py` use them.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import struct

FALLOC_FL_KEEP_SIZE = 0x01  # linux/falloc.h
FALLOC_FL_PUNCH_HOLE = 0x02  # linux/falloc.h
FALLOC_FL_ZERO_RANGE = 0x10  # linux/falloc.h

FICLONERANGE = 0x4020940D  # linux/fs.h: _IOW(0x94, 13, struct file_clone_range)
_FILE_CLONE_RANGE = struct.Struct(
    "=qQQQ"
)  # ioctl_ficlonerange(2): src_fd, src_offset, src_length, dest_offset

NOT_SUPPORTED = frozenset(
    {errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL, errno.ENOTTY, errno.EXDEV, errno.EPERM, errno.ETXTBSY}
)
"""Answers by which a file system says that it lacks an operation, or lacks it for these two files."""

_SYNC_FILE_RANGE = 0x7  # linux/fs.h: SYNC_FILE_RANGE_WAIT_BEFORE | _WRITE | _WAIT_AFTER

_libc = ctypes.CDLL(None, use_errno=True)
_fallocate = getattr(_libc, "fallocate64", _libc.fallocate)
_fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)
_fallocate.restype = ctypes.c_int
_sync_file_range = _libc.sync_file_range
_sync_file_range.argtypes = (ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint)
_STATX_SIZE, _STATX_BTIME_AT = 256, 80  # linux/stat.h: struct statx, stx_btime
_STATX_BTIME = 0x800  # linux/stat.h
_AT_EMPTY_PATH = 0x1000  # linux/fcntl.h
_statx = _libc.statx
_statx.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_uint, ctypes.c_char_p)
_statx.restype = ctypes.c_int


def fallocate(fd: int, mode: int, offset: int, length: int) -> None:
    """Punch or zero a range; `mode` is an OR of FALLOC_FL flags. Raises OSError."""
    while _fallocate(fd, mode, offset, length) != 0:
        number = ctypes.get_errno()
        if number != errno.EINTR:
            raise OSError(number, os.strerror(number))


def write_back(fd: int, offset: int, length: int) -> None:
    """Write the range's dirty pages to the device and wait for them (no promise of durability)."""
    _sync_file_range(fd, offset, length, _SYNC_FILE_RANGE)  # what fails here fails again, and is told, later


def birth(fd: int) -> int:
    """Nanoseconds since the epoch when the file was created; 0 where its file system does not say."""
    buffer = ctypes.create_string_buffer(_STATX_SIZE)
    if _statx(fd, b"", _AT_EMPTY_PATH, _STATX_BTIME, buffer) != 0:
        return 0
    (mask,) = struct.unpack_from("=I", buffer)
    seconds, nanoseconds = struct.unpack_from("=qI", buffer, _STATX_BTIME_AT)
    return int(seconds) * 1_000_000_000 + int(nanoseconds) if mask & _STATX_BTIME else 0


def clone_range(source: int, offset: int, destination: int, destination_offset: int, length: int) -> None:
    """Let `destination` share blocks of `source` (reflink); everything aligned to file system blocks.

    Raises:
        OSError: one of `NOT_SUPPORTED` where the file system cannot.
    """
    fcntl.ioctl(destination, FICLONERANGE, _FILE_CLONE_RANGE.pack(source, offset, length, destination_offset))
