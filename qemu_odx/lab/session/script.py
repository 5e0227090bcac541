"""Which script runs in a guest, and by which command.

May import: errors, paths. Next: `run.py` uploads and runs it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from qemu_odx.lab.errors import LabError
from qemu_odx.lab.paths import data_folder

if TYPE_CHECKING:
    from collections.abc import Sequence

OWN, USERS = "odx", "odx-run"
"""Folders in the guest: our scripts with their modules, and the user's file."""
MAKE_EXECUTABLE = 'chmod +x "$0" && exec "$0" "$@"'  # the upload keeps no modes
COMPILED = "odx.exe"
"""Our program for Windows, which is compiled on the host; under Wine it is the only one that runs."""


@dataclass(frozen=True, slots=True)
class Script:
    """A script and its arguments.

    Attributes:
        file: it, on the host; our Windows program, which is still to be compiled, has only its name.
        arguments: of the script.
        ours: it is one of `guest_scripts`.
    """

    file: Path
    arguments: tuple[str, ...]
    ours: bool

    def words(self, system: str, folder: str) -> list[str]:
        """Program and arguments in the guest, the file being in `folder` there.

        Args:
            system: "linux", "wine" or "windows".
            folder: in the guest.
        """
        path = f"{folder}/{self.file.name}"
        return [*_interpreter(self.file.suffix, system), path, *self.arguments]


def _interpreter(suffix: str, system: str) -> Sequence[str]:
    """Words in front of a script's path. A Python script of the user's may import our modules."""
    if system == "windows":
        return ("python",) if suffix == ".py" else ()  # the adapter knows what PowerShell runs
    if suffix == ".py":
        return ("env", f"PYTHONPATH=/tmp/{OWN}", "python3")
    if suffix == ".sh":
        return ("sh",)
    return () if suffix == ".exe" else ("sh", "-c", MAKE_EXECUTABLE)


def script_folder(system: str) -> Path:
    """Our scripts for guests of this system. Raises LabError if the installation is incomplete."""
    return data_folder("guest_scripts") / ("windows" if system == "windows" else "linux")


def find_script(name: str, arguments: Sequence[str], system: str) -> Script:
    """A script of ours by its name, else the user's file.

    Raises:
        LabError: there is neither.
    """
    folder = script_folder(system)
    known = scripts(system)
    if "/" not in name and name in known:
        return Script(folder / name, tuple(arguments), ours=True)
    if Path(name).is_file() and not (system == "wine" and Path(name).suffix == ".exe"):
        return Script(Path(name), tuple(arguments), ours=False)
    raise LabError(
        f"there is no script {name}", f"give a file, or one of ours for {system}: {', '.join(known)}"
    )


def scripts(system: str) -> list[str]:
    """The names of our scripts that can be run in guests of this system."""
    folder = script_folder(system)
    if system == "windows":
        return [*sorted(path.name for path in folder.glob("*.ps1")), COMPILED]
    found = sorted(path.name for path in folder.glob("*.py") if path.stat().st_mode & 0o100)
    return [*found, COMPILED] if system == "wine" else found
