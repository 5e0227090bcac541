"""The folder of one run: sockets, disk images, logs. Gone after a run that went well.

May import: paths. A folder whose owner was killed is removed by the next run.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from qemu_odx.lab.paths import kept_runs_folder

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

PREFIX = "qemu-odx-"
LOCK = "lock"
LONGEST_BASE = 75  # bytes; a socket's path has at most 107 (sun_path in unix(7))
KEPT_RUNS = 10


class RunFolder:
    """A private temporary folder, locked while it is in use."""

    def __init__(self, base: Path | None = None) -> None:
        """Make it in `base` (by default the temporary folder) if sockets can be there, else in /tmp."""
        parent = base or Path(tempfile.gettempdir())
        if len(os.fsencode(parent)) > LONGEST_BASE:
            parent = Path("/tmp")  # noqa: S108 - mkdtemp makes a folder nobody else can enter
        remove_abandoned(parent)
        self.path = Path(tempfile.mkdtemp(prefix=PREFIX, dir=parent))
        self._lock = (self.path / LOCK).open("w")
        fcntl.flock(self._lock, fcntl.LOCK_EX)

    def keep_logs(self) -> Path:
        """Copy the logs to the user's state folder and return where they are; old ones are pruned."""
        runs = kept_runs_folder()
        runs.mkdir(parents=True, exist_ok=True)
        stamp = datetime.now().astimezone().strftime("%Y%m%d-%H%M%S")
        kept = Path(tempfile.mkdtemp(prefix=f"{stamp}-", dir=runs))
        for log in self.path.glob("*.log"):
            shutil.copy(log, kept)
        for old in sorted(runs.iterdir(), key=lambda path: path.stat().st_mtime_ns)[:-KEPT_RUNS]:
            shutil.rmtree(old, ignore_errors=True)
        return kept

    def close(self) -> None:
        """Remove the folder and all in it. Idempotent."""
        shutil.rmtree(self.path, ignore_errors=True)
        self._lock.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def remove_abandoned(parent: Path) -> None:
    """Remove run folders in `parent` whose owner ended without doing so: nobody holds their lock."""
    for lock_path in parent.glob(f"{PREFIX}*/{LOCK}"):
        try:
            with lock_path.open("r+") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(lock_path.parent, ignore_errors=True)
        except OSError:
            continue  # in use, another user's, or just gone
