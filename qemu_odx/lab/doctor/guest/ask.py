"""Ask a guest: upload the script, run it, make layers of what it prints.

May import: errors, paths, ssh, windows_programs, session/{record,access}, doctor/guest. Next: `cli/doctor_guest.py`.
"""

from __future__ import annotations

import json
import shutil
import tempfile
import uuid
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qemu_odx.lab.doctor.guest.linux import linux_view
from qemu_odx.lab.doctor.guest.windows import windows_view
from qemu_odx.lab.errors import LabError
from qemu_odx.lab.paths import data_folder
from qemu_odx.lab.session.access import adapter_of, log_in
from qemu_odx.lab.windows_programs import ensure_programs

if TYPE_CHECKING:
    from qemu_odx.lab.doctor.guest.layer import GuestView
    from qemu_odx.lab.session.record import GuestRecord
    from qemu_odx.lab.ssh import GuestShell

SECONDS = 300.0


@dataclass(frozen=True, slots=True)
class Question:
    """What to ask.

    Attributes:
        serial: only the disk with this serial number (Linux).
        volume: the volume whose filters and file system are looked at (Windows).
        files: source and destination of a copy to be tried (Windows).
    """

    serial: str | None = None
    volume: str | None = None
    files: tuple[str, str] | None = None


def ask_guest(guest: GuestRecord, question: Question) -> GuestView:
    """What the guest sees. Raises LabError if it cannot be asked."""
    windows = guest.system == "windows"
    name, options = ("odx-doctor.ps1", _windows(question)) if windows else ("odx_doctor.py", _linux(question))
    adapter = adapter_of(guest)
    folder = adapter.new_folder(f"odx-doctor-{uuid.uuid4().hex[:8]}")
    program = [] if windows else ["python3"]
    line = adapter.command([*program, f"{folder}/{name}", *options])
    shell = log_in(guest)
    try:
        printed = _run(
            shell, data_folder("guest_scripts") / ("windows" if windows else "linux"), folder, line
        )
    finally:
        shell.close()
    return windows_view(printed) if windows else linux_view(printed)


def _linux(question: Question) -> list[str]:
    return ["--serial", question.serial] if question.serial else []


def _windows(question: Question) -> list[str]:
    words = ["-Volume", question.volume] if question.volume else []
    if question.files:
        words += ["-Source", question.files[0], "-Destination", question.files[1]]
    return words


def _run(shell: GuestShell, scripts: Path, folder: str, line: str) -> Any:
    with tempfile.TemporaryDirectory(prefix="qemu-odx-doctor-") as scratch:
        for path in scripts.iterdir():
            if path.is_file():
                shutil.copy(path, scratch)
        if scripts.name == "windows":
            with suppress(LabError):  # without a compiler the script says that odx.exe is missing
                shutil.copy(ensure_programs() / "odx.exe", scratch)
        shell.upload(Path(scratch), folder)
    done = shell.run(line, seconds=SECONDS)
    try:
        return json.loads(done.stdout)
    except ValueError as error:
        raise LabError(
            f"the guest's script printed no JSON (exit code {done.status})",
            "see what it said",
            details=(done.stderr or done.stdout)[-2000:],
        ) from error
