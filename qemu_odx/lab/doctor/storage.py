"""The folders the lab writes in: room, rights, reflinks, and whether sockets work there.

May import: errors, paths, run_folder, doctor/{finding,host}.
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from qemu_odx.lab.doctor.finding import Finding, Level
from qemu_odx.lab.paths import images_folder, kept_runs_folder
from qemu_odx.lab.run_folder import socket_parent

if TYPE_CHECKING:
    from collections.abc import Iterator

    from qemu_odx.lab.doctor.host import Host

FICLONE = 0x40049409  # linux/fs.h: _IOW(0x94, 9, int)
BLOCK = 65536
TIGHT, ENOUGH = 256 << 20, 1 << 30
"""Bytes: an image takes up to 250 MiB while it is built, a demonstration 200 MiB."""


def check_storage(_: Host, more: tuple[Path, ...] = ()) -> Iterator[Finding]:
    """The cache of images, the folder of a run, the kept logs, and the folders of the user's own disks."""
    work = socket_parent()
    for folder in dict.fromkeys((images_folder(), work, kept_runs_folder(), *more)):
        yield from _room(folder)
    for folder in dict.fromkeys((work, *more)):
        yield reflink(folder)
    yield sockets(work)


def _room(folder: Path) -> Iterator[Finding]:
    """Can we write there, and how much."""
    there = _nearest(folder)
    if not os.access(there, os.W_OK | os.X_OK):
        cure = f"make it yours, or set XDG_CACHE_HOME, XDG_STATE_HOME or TMPDIR; now it is {there}'s owner's"
        yield Finding("storage", str(folder), Level.ERROR, "may not be written", cure)
        return
    size = os.statvfs(there)
    free = size.f_bavail * size.f_frsize
    level = Level.OK if free >= ENOUGH else Level.WARNING if free >= TIGHT else Level.ERROR
    cure = "" if level is Level.OK else f"make room: {ENOUGH >> 20} MiB are enough for image and disks"
    yield Finding("storage", str(folder), level, f"{free >> 20} MiB free", cure)


def _nearest(folder: Path) -> Path:
    """The folder, or the parent of it in which it would be made."""
    return next(path for path in (folder, *folder.parents) if path.is_dir())


def reflink(folder: Path) -> Finding:
    """Whether files in this folder can share blocks: then a token costs no copying when its source is written."""
    name = f"reflink in {folder}"
    try:
        with (
            tempfile.TemporaryFile(dir=_nearest(folder)) as source,
            tempfile.TemporaryFile(dir=_nearest(folder)) as target,
        ):
            source.write(bytes(BLOCK))
            source.flush()
            fcntl.ioctl(target.fileno(), FICLONE, source.fileno())
    except OSError as error:
        kind = errno.errorcode.get(error.errno or 0, "")
        cure = "nothing has to be done; on XFS or Btrfs tokens and copies are quicker"
        return Finding(
            "storage", name, Level.NOTE, f"no ({kind}): old data is copied before it is overwritten", cure
        )
    return Finding("storage", name, Level.OK, "yes: tokens and copies share blocks")


def sockets(folder: Path) -> Finding:
    """Whether one program can reach another by a socket in this folder."""
    with tempfile.TemporaryDirectory(prefix="qemu-odx-doctor-", dir=folder) as scratch:
        path = str(Path(scratch) / "a.sock")
        try:
            with socket.socket(socket.AF_UNIX) as server, socket.socket(socket.AF_UNIX) as client:
                server.bind(path)
                server.listen(1)
                client.connect(path)
        except OSError as error:
            cure = "set TMPDIR to a folder on a local file system, with a short path"
            return Finding(
                "storage", "sockets", Level.ERROR, f"do not work in {folder} ({error.strerror})", cure
            )
    return Finding("storage", "sockets", Level.OK, f"work in {folder}")
