"""The folder of one run: sockets, disk images, logs. Gone after a run that went well.

May import: interrupts, paths. A folder whose owner was killed is removed by the next run.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
import time
import weakref
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import IO, TYPE_CHECKING

from qemu_odx.lab.interrupts import uninterrupted
from qemu_odx.lab.paths import kept_runs_folder

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType
    from typing import Self

PREFIX = "qemu-odx-"
LOCK = "lock"
LATEST = "latest"
LONGEST_BASE = 75  # bytes; a socket's path has at most 107 (sun_path in unix(7))
KEPT_RUNS = 10
KEPT_KINDS = {".log", ".json", ".jsonl", ".txt", ".xml", ".png", ".ppm", ".html", ".toml"}
NEWBORN_SECONDS = 60.0


class RunFolder:
    """A private temporary folder, locked while it is in use.

    Attributes:
        path: the folder.
    """

    def __init__(self, base: Path | None = None) -> None:
        """Make it in `base` (by default the temporary folder) if sockets can be there, else in /tmp."""
        parent = socket_parent(base)
        remove_abandoned(parent)
        with uninterrupted():
            self.path, lock = _locked_folder(parent)
            self._finalizer = weakref.finalize(self, _remove, self.path, lock)

    def keep_logs(self) -> Path:
        """Copy logs and results to the user's state folder and return where they are; old ones are pruned.

        `latest` beside it leads to it.
        """
        runs = kept_runs_folder()
        runs.mkdir(parents=True, exist_ok=True)
        stamp = datetime.now().astimezone().strftime("%Y%m%d-%H%M%S")
        kept = Path(tempfile.mkdtemp(prefix=f"{stamp}-", dir=runs))
        self.copy_logs(kept)
        _point_to(runs / LATEST, kept)
        others = [path for path in _oldest_first(runs) if path != kept]  # the clock may have been set back
        for old in others[: max(0, len(others) + 1 - KEPT_RUNS)]:
            shutil.rmtree(old, ignore_errors=True)
        return kept

    def copy_logs(self, folder: Path) -> None:
        """Copy the logs there, those of each guest to a folder of its own; folders are made if need be."""
        folder.mkdir(parents=True, exist_ok=True)
        for log in self.path.rglob("*"):
            if log.suffix in KEPT_KINDS and log.is_file():
                target = folder / log.relative_to(self.path)
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(log, target)

    def close(self) -> None:
        """Remove the folder and all in it. Idempotent."""
        with uninterrupted():
            self._finalizer()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def socket_parent(base: Path | None = None) -> Path:
    """`base`, by default the temporary folder, if a socket's path fits below it; else /tmp."""
    parent = base or Path(tempfile.gettempdir())
    return parent if len(os.fsencode(parent)) <= LONGEST_BASE else Path("/tmp")  # noqa: S108 - mkdtemp follows


def _locked_folder(parent: Path) -> tuple[Path, IO[str]]:
    """A new folder and its lock, once more if another run took the one not yet locked for abandoned."""
    while True:
        path = Path(tempfile.mkdtemp(prefix=PREFIX, dir=parent))
        with suppress(FileNotFoundError):
            lock = (path / LOCK).open("w")
            fcntl.flock(lock, fcntl.LOCK_EX)
            if (path / LOCK).exists():
                return path, lock
            lock.close()


def _remove(path: Path, lock: IO[str]) -> None:
    shutil.rmtree(path, ignore_errors=True)
    lock.close()


def _point_to(link: Path, target: Path) -> None:
    """Make `link` lead to `target`, its neighbour, at one stroke."""
    fresh = link.with_name(f".{target.name}")
    fresh.symlink_to(target.name)
    fresh.replace(link)


def _oldest_first(runs: Path) -> list[Path]:
    """The kept runs, whatever others remove meanwhile."""
    dated = []
    for path in runs.iterdir():
        with suppress(OSError):
            if not path.is_symlink():
                dated.append((path.stat().st_mtime_ns, path))
    return [path for _, path in sorted(dated)]


def abandoned(parent: Path) -> Iterator[Path]:
    """Run folders in `parent` whose owner ended without removing them: nobody holds their lock (held while here)."""
    for lock_path in parent.glob(f"{PREFIX}*/{LOCK}"):
        with suppress(OSError), lock_path.open("r+") as lock:  # in use, another user's, or just gone
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield lock_path.parent


def remove_abandoned(parent: Path) -> None:
    """Remove run folders in `parent` whose owner ended without doing so, even before it could lock them."""
    for folder in abandoned(parent):
        shutil.rmtree(folder, ignore_errors=True)
    for folder in parent.glob(f"{PREFIX}*"):
        with suppress(OSError):
            if time.time() - folder.stat().st_mtime > NEWBORN_SECONDS:
                folder.rmdir()  # only an empty one goes
