"""odx.exe and the drivers, compiled by mingw from `guest_scripts/windows` once and kept in the cache.

May import: errors, paths. Next: `wine.py` uploads them to a guest; on Windows the same files are used.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import tempfile
from pathlib import Path

from qemu_odx.lab.errors import LabError, MissingError
from qemu_odx.lab.paths import data_folder, images_folder

COMPILER = "x86_64-w64-mingw32-gcc"
PARTS = ("odx", "driver", "wine")
PROGRAMS = ("odx.exe", "odxflt.sys", "odxdisk.sys")


def ensure_programs() -> Path:
    """The folder with PROGRAMS, compiled now if the cache has none of these sources.

    Raises:
        MissingError: there is no compiler.
        LabError: it refuses the sources.
    """
    sources = data_folder("guest_scripts") / "windows"
    target = images_folder() / f"windows-programs-{_key(sources)}"
    if target.is_dir():
        return target
    if shutil.which(COMPILER) is None or shutil.which("make") is None:
        raise MissingError(
            f"compiling the Windows programs needs {COMPILER} and make",
            "apt-get install gcc-mingw-w64-x86-64-win32 make",
        )
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="compiling-", dir=target.parent) as scratch:
        _compile(sources, Path(scratch))
        made = Path(scratch) / "made"
        made.mkdir()
        for program in PROGRAMS:
            (Path(scratch) / program).rename(made / program)
        if not target.is_dir():  # another run may have been quicker
            made.rename(target)
    return target


def _compile(sources: Path, folder: Path) -> None:
    for part in PARTS:
        command = ["make", "--silent", "-C", str(sources / part), f"OUT={folder}"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise LabError(f"{COMPILER} cannot compile {part}", "see what it says", details=done.stderr)


def _key(sources: Path) -> str:
    """16 hexadecimal digits that change with any source."""
    digest = hashlib.sha256()
    for part in PARTS:
        for path in sorted((sources / part).iterdir()):
            if path.suffix in {".c", ".h"} or path.name == "Makefile":
                content = path.read_bytes()
                digest.update(f"{part}/{path.name} {len(content)}\n".encode() + content)
    return digest.hexdigest()[:16]
