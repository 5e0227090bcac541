"""The cache of saved guests: which saved state fits a machine, where it is, and how it gets there.

May import: errors, image, paths, qemu. Next: `warm.py` resumes one. A state fits only the QEMU, the machine, the
processor and the devices that it was saved with, so all these are in its name.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import platform
import shutil
import tempfile
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from qemu_odx.lab.disk_image import DiskImage
from qemu_odx.lab.errors import MissingError
from qemu_odx.lab.paths import saved_guests_folder
from qemu_odx.lab.qemu import PROGRAM, qemu_command

if TYPE_CHECKING:
    from collections.abc import Iterator

    from qemu_odx.lab.qemu import GuestSpec

KEPT_STATES = 4  # each as large as the guest's memory that is not zero: 80 MB for the Linux guest
SUFFIX = ".state"


def why_not(spec: GuestSpec) -> str:
    """Why a guest like that is not saved, empty if it is."""
    if isinstance(spec.image, DiskImage):
        return "its system disk is written to, and a saved state fits only the disk as it was"
    if spec.scsi_sockets or spec.blk_sockets:
        return "disks of a disk server are there from the start; plug them in afterwards instead"
    return ""


def state_key(spec: GuestSpec) -> str:
    """The name of the state for a guest like that.

    Raises:
        LabError: QEMU is not installed.
        OSError: the image is not there.
    """
    with require_qemu().open("rb") as file:
        binary = hashlib.file_digest(file, "sha256").hexdigest()
    parts = [binary, platform.release(), qemu_command(spec, 0, Path("serial.log")), _builds(spec)]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


def _builds(spec: GuestSpec) -> list[tuple[str, int, int]]:
    """Which build of the image it is: memory holds parts of the disk, and another build has others there."""
    if isinstance(spec.image, DiskImage):
        return []
    files = (spec.image.kernel, spec.image.initrd, spec.image.root)
    return [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in files]


def require_qemu() -> Path:
    """Where QEMU is. Raises LabError if it is nowhere."""
    program = shutil.which(PROGRAM)
    if program is None:
        raise MissingError(f"QEMU is not installed ({PROGRAM} is not on PATH)", "run ./odx setup")
    return Path(program)


class StateCache:
    """The saved states of a user."""

    def __init__(self, folder: Path | None = None) -> None:
        """Keep them in `folder`; by default in the user's cache."""
        self.folder = folder or saved_guests_folder()

    def path(self, key: str) -> Path:
        """Where the state of that name is, if there is one."""
        return self.folder / f"{key}{SUFFIX}"

    def find(self, key: str) -> Path | None:
        """The state of that name, marked as used; None if there is none."""
        try:
            os.utime(self.path(key))
        except OSError:
            return None
        return self.path(key)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """One saves at a time: a second one waits and then finds the state made."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    @contextmanager
    def new(self, key: str) -> Iterator[Path]:
        """A file for a state that takes its place if all goes well, and is gone if not. Old ones make room."""
        handle, name = tempfile.mkstemp(prefix="saving-", dir=self.folder)
        os.close(handle)
        path = Path(name)
        try:
            yield path
            path.replace(self.path(key))
        finally:
            path.unlink(missing_ok=True)
        self._prune()

    def forget(self, key: str) -> None:
        """Remove a state that cannot be used."""
        with suppress(OSError):
            self.path(key).unlink(missing_ok=True)

    def _prune(self) -> None:
        states = sorted(self.folder.glob(f"*{SUFFIX}"), key=lambda path: path.stat().st_mtime_ns)
        for old in states[:-KEPT_STATES]:
            old.unlink(missing_ok=True)
