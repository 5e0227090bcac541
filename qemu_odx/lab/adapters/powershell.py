"""Windows PowerShell by ssh: a script becomes one word that no shell on the way can change.

Imports nothing of ours but errors. Sources: about_PowerShell_exe (-EncodedCommand: base64 of UTF-16LE); "Parsing C
command-line arguments" for the quoting of a program's arguments, which is that of `subprocess.list2cmdline`.
"""

from __future__ import annotations

import base64
import subprocess
from typing import TYPE_CHECKING

from qemu_odx.lab.errors import LabError

if TYPE_CHECKING:
    from collections.abc import Sequence

LONGEST = 8000  # characters; cmd.exe, the usual login shell, takes 8191
QUIET = "$ErrorActionPreference='Stop';$ProgressPreference='SilentlyContinue';"


def encoded(script: str) -> str:
    """The command line that runs `script` in PowerShell. Raises LabError if it would be too long."""
    word = base64.b64encode((QUIET + script).encode("utf-16-le")).decode()
    line = f"powershell.exe -NoProfile -NonInteractive -ExecutionPolicy Bypass -EncodedCommand {word}"
    if len(line) > LONGEST:
        raise LabError(
            f"a command of {len(script)} characters is too long for Windows' command line",
            "put it into a file and upload that",
        )
    return line


def literal(text: str) -> str:
    """A text as PowerShell's own literal: nothing in it means anything."""
    return "'" + text.replace("'", "''") + "'"


def run_program(arguments: Sequence[str], folder: str | None = None) -> str:
    """A script that runs a program with exactly these arguments and ends with its exit code.

    By .NET, for PowerShell 5 passes quotation marks within arguments on wrongly. The program inherits the
    standard streams.
    """
    program, *rest = arguments
    lines = []
    if folder:
        place = literal(folder)
        lines += [f"Set-Location -LiteralPath {place}", f"[Environment]::CurrentDirectory={place}"]
    lines += [
        "$i=New-Object Diagnostics.ProcessStartInfo",
        f"$i.FileName={literal(program)}",
        f"$i.Arguments={literal(subprocess.list2cmdline(rest))}",
        "$i.UseShellExecute=$false",
        "$p=[Diagnostics.Process]::Start($i)",
        "$p.WaitForExit()",
        "exit $p.ExitCode",
    ]
    return ";".join(lines)
