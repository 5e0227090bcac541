"""Opening the image behind a disk: what may go wrong, each with its cure, and the lock.

May import `hostfile.py`. Next: `file.py` makes a disk of the open image.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

from qemu_odx.disk.hostfile import HostFile

if TYPE_CHECKING:
    from pathlib import Path

BLOCK_SIZES = (512, 4096)
_LOCK = "hhqqi"  # struct flock of fcntl(2) with 64-bit offsets: type, whence, start, length, pid
_OPEN_CURES = {
    errno.EACCES: "give this user access to it, or add readonly=on if reading is enough",
    errno.EPERM: "give this user access to it, or add readonly=on if reading is enough",
    errno.EROFS: "its file system is read-only: add readonly=on or move the image",
    errno.EBUSY: "it is mounted or otherwise in use: unmount it first",
    errno.ENOSPC: "make room on its file system or choose another folder",
    errno.EFBIG: "its file system does not hold files of that size: choose a smaller size=",
    errno.ENOTDIR: "a part of the path is not a folder: correct the path",
    errno.ENAMETOOLONG: "choose a shorter path",
}


class DiskError(Exception):
    """The image cannot be used; the message is one sentence with the cure."""


@dataclass(frozen=True, slots=True)
class Image:
    """An open, locked image.

    Attributes:
        file: its contents.
        size: in bytes, a multiple of the block size.
        folder: where a side file may live on the same file system; None for a block device.
        path: the image file's own path; None for what is none.
    """

    file: HostFile
    size: int
    folder: Path | None
    path: Path | None = None


def open_image(path: Path, *, size: int | None, block_size: int, readonly: bool) -> Image:
    """Open the image, or create it sparse if `size` is given and it is missing.

    Raises:
        DiskError: with the cure; nothing was left behind.
    """
    if block_size not in BLOCK_SIZES:
        raise DiskError(f"{path}: block-size={block_size} is not possible: use 512 or 4096")
    if size is not None and (size <= 0 or size % block_size):
        raise DiskError(
            f"{path}: size={size} is no multiple of the block size {block_size}: choose one that is"
        )
    if path.exists():
        return _open_existing(path, size, block_size, readonly=readonly)
    if size is None:
        raise DiskError(f"{path} does not exist: correct the path, or add size= to create it")
    if readonly:
        raise DiskError(f"{path} does not exist and readonly=on cannot create it: leave out readonly=on once")
    return _create(path, size)


def _open_existing(path: Path, size: int | None, block_size: int, *, readonly: bool) -> Image:
    status = path.stat()
    _check_kind(path, status, readonly=readonly)
    block_device = stat.S_ISBLK(status.st_mode)
    flags = os.O_RDONLY if readonly else os.O_RDWR
    if block_device and not readonly:
        flags |= os.O_EXCL  # open(2): refuses a block device that is mounted
    with contextlib.ExitStack() as undo:
        file = HostFile(_open(path, flags))
        undo.callback(file.close)
        _lock(path, file.fd, readonly=readonly)
        actual = os.lseek(file.fd, 0, os.SEEK_END)  # block devices have no st_size
        _check_size(path, actual, size, block_size)
        undo.pop_all()
    place = None if block_device else _place(path)
    return Image(file, actual, place and place.parent, place)


def _create(path: Path, size: int) -> Image:
    with contextlib.ExitStack() as undo:
        file = HostFile(_open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL))
        undo.callback(path.unlink)
        undo.callback(file.close)
        _lock(path, file.fd, readonly=False)
        try:
            os.ftruncate(file.fd, size)
        except OSError as error:
            raise _refused(path, error) from error
        undo.pop_all()
    place = _place(path)
    return Image(file, size, place.parent, place)


def _place(path: Path) -> Path:
    """The file itself; asked for no more than its folder and name, for it may have no name in the tree."""
    return path.resolve() if path.is_symlink() else path.absolute()


def _check_kind(path: Path, status: os.stat_result, *, readonly: bool) -> None:
    if stat.S_ISDIR(status.st_mode):
        raise DiskError(f"{path} is a folder: name an image file inside it")
    if not (stat.S_ISREG(status.st_mode) or stat.S_ISBLK(status.st_mode)):
        raise DiskError(f"{path} is no file and no block device: name one that is")
    if not readonly and not status.st_mode & 0o222:  # root could open it all the same; its owner said no
        raise DiskError(f"{path} is read-only: add readonly=on or make the file writable")


def _check_size(path: Path, actual: int, wanted: int | None, block_size: int) -> None:
    if wanted is not None and actual != wanted:
        raise DiskError(
            f"{path} exists with {actual} bytes, not the {wanted} of size=, which never changes an image: "
            "leave out size="
        )
    if actual < block_size:
        raise DiskError(f"{path} has {actual} bytes, less than one block of {block_size}: make it larger")
    if actual % block_size:
        raise DiskError(
            f"{path} has {actual} bytes, no multiple of the block size {block_size}: "
            f"make it {-actual % block_size} bytes longer or choose another block-size="
        )


def _open(path: Path, flags: int) -> int:
    try:
        return os.open(path, flags, 0o644)
    except FileNotFoundError as error:
        raise DiskError(f"{path} cannot be created: make the folder {path.parent} first") from error
    except OSError as error:
        raise _refused(path, error) from error


def _refused(path: Path, error: OSError) -> DiskError:
    cure = _OPEN_CURES.get(error.errno or 0, "check the path and its file system")
    return DiskError(f"{path} cannot be opened ({error.strerror}): {cure}")


def _lock(path: Path, fd: int, *, readonly: bool) -> None:
    """Lock the whole file, as seen by other servers and by QEMU's own image locks alike."""
    kind = fcntl.F_RDLCK if readonly else fcntl.F_WRLCK
    try:
        fcntl.fcntl(fd, fcntl.F_OFD_SETLK, struct.pack(_LOCK + "4x", kind, os.SEEK_SET, 0, 0, 0))
    except OSError as error:
        if error.errno in {errno.EAGAIN, errno.EACCES}:
            raise DiskError(
                f"{path} is in use by another disk, server or QEMU: stop that one first, or use another image"
            ) from error
        raise DiskError(f"{path} cannot be locked ({error.strerror}): use a local file system") from error
