"""A scratch place for a command, and what it leaves there when it is gone: processes, sockets, files, locks."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import time
import uuid
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from qemu_odx.lab.paths import images_folder

MARK = "QEMU_ODX_TEST_MARK"
PROGRAM = [sys.executable, "-m", "qemu_odx"]


@dataclass
class Scratch:
    """Folders of its own for a command's files and state; its processes carry a mark in their environment."""

    folder: Path
    mark: str = field(default_factory=lambda: uuid.uuid4().hex)

    @property
    def environment(self) -> dict[str, str]:
        """For the command. The cache stays the user's: it has the images."""
        own = {"TMPDIR": str(self.folder), "XDG_STATE_HOME": str(self.folder / "state"), MARK: self.mark}
        return {**os.environ, **own, "XDG_RUNTIME_DIR": str(self.folder)}

    def run(self, *words: str, **options: Any) -> subprocess.CompletedProcess[str]:
        """Run qemu-odx to its end."""
        return subprocess.run(
            [*PROGRAM, *words],
            env=self.environment,
            stdin=options.pop("stdin", subprocess.DEVNULL),
            capture_output=True,
            text=True,
            check=False,
            **options,
        )

    def start(self, *words: str, ignored: str = "") -> subprocess.Popen[str]:
        """Start qemu-odx, with signals as in a terminal whatever the tests run in, but for one `ignored`."""
        signals = [f"--ignore-signal={ignored}"] if ignored else []
        usual = ",".join(name for name in ("INT", "TERM", "HUP") if name != ignored)
        return subprocess.Popen(
            ["env", f"--default-signal={usual}", *signals, *PROGRAM, *words],
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def processes(self) -> list[int]:
        """Living processes that carry the mark."""
        wanted = f"{MARK}={self.mark}".encode()
        found = []
        for entry in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                state = (entry / "stat").read_text().rpartition(")")[2].split()[0]
                if state != "Z" and wanted in (entry / "environ").read_bytes().split(b"\0"):
                    found.append(int(entry.name))
        return found

    def sockets(self) -> list[str]:
        """Sockets somebody listens on in the folder."""
        lines = Path("/proc/net/unix").read_text().splitlines()
        return [line.split()[-1] for line in lines if str(self.folder) in line]

    def files(self, *kept: str) -> list[str]:
        """Files in the folder but those of `kept` parts of the state (`runs`)."""
        found = [path.relative_to(self.folder) for path in self.folder.rglob("*") if not path.is_dir()]
        return [str(path) for path in found if not (set(path.parts) & set(kept))]

    def folders(self) -> list[str]:
        """Folders of runs."""
        return [path.name for path in self.folder.glob("qemu-odx-*")]

    def left(self, *kept: str) -> dict[str, list[Any]]:
        """Everything that is left, by kind; empty if nothing is."""
        everything: dict[str, list[Any]] = {
            "processes": self.processes(),
            "sockets": self.sockets(),
            "files": self.files(*kept),
            "folders": self.folders(),
            "locks": [] if lock_is_free(images_folder() / "lock") else ["image build"],
        }
        return {kind: found for kind, found in everything.items() if found}


def lock_is_free(path: Path) -> bool:
    """Whether nobody holds a lock, or soon nobody does: another test may build an image."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            with path.open("r") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(0.5)
        except FileNotFoundError:
            return True
        else:
            return True
    return False
