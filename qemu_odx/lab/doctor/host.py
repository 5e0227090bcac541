"""The machine as the checks see it: files below a root, programs, an environment. Tests hand in another one.

May import: abilities.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from qemu_odx.lab.abilities import Abilities, abilities

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


@dataclass(frozen=True, slots=True)
class Answer:
    """What a program left: exit code (negative for a signal, None if it was not done in time) and output."""

    code: int | None
    out: str
    err: str


def run_program(command: Sequence[str], seconds: float) -> Answer:
    """Run a program to its end, at most so long."""
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=seconds,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return Answer(None, "", f"not done within {seconds:g} s")
    except OSError as error:
        return Answer(127, "", str(error))
    return Answer(done.returncode, done.stdout, done.stderr)


@dataclass(frozen=True, slots=True)
class Host:
    """Where to look, and how to ask."""

    root: Path = Path("/")
    which: Callable[[str], str | None] = shutil.which
    run: Callable[[Sequence[str], float], Answer] = run_program
    abilities: Callable[[], Abilities] = abilities
    user: int = field(default_factory=os.geteuid)

    def path(self, name: str) -> Path:
        """An absolute path of the machine, such as `/proc/meminfo`."""
        return self.root / name.lstrip("/")

    def read(self, name: str) -> str:
        """The content of a file, empty if it cannot be read."""
        try:
            return self.path(name).read_text(errors="replace").strip()
        except OSError:
            return ""
