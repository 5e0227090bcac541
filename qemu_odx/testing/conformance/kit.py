"""Builds the single-file form of the kit: a zip file that a bare `python3` runs, with nothing installed.

Standard library only. What goes in is listed here; `tests/unit/conformance/test_kit.py` runs it in isolation, so a
missing file or an import from outside is seen.
"""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import qemu_odx

_FILES = (
    "__init__.py",
    "testing/__init__.py",
    "testing/initiator.py",
    "testing/conformance/__init__.py",
    "testing/conformance/bench.py",
    "testing/conformance/kit_main.py",
    "testing/conformance/pages.py",
    "testing/conformance/report.py",
    "testing/conformance/run.py",
    "testing/conformance/sg.py",
    "wire/__init__.py",
)
_FOLDERS = ("testing/conformance/checks", "wire/scsi")
_MAIN = """\
\"\"\"Runs the conformance kit.\"\"\"

import sys

from qemu_odx.testing.conformance.kit_main import main

sys.exit(main())
"""
_FIRST_LINE = b"#!/usr/bin/env python3\n"
_DATE = (2020, 1, 1, 0, 0, 0)
"""A fixed date: the same sources make the same bytes."""


def kit_bytes() -> bytes:
    """The kit as the bytes of a `.pyz` file (stored, not compressed: readable in any guest)."""
    root = Path(qemu_odx.__file__).parent
    names = [
        *_FILES,
        *(f"{folder}/{path.name}" for folder in _FOLDERS for path in (root / folder).glob("*.py")),
    ]
    buffer = io.BytesIO()
    buffer.write(_FIRST_LINE)
    with zipfile.ZipFile(buffer, "a", zipfile.ZIP_STORED) as archive:
        archive.writestr(zipfile.ZipInfo("__main__.py", _DATE), _MAIN)
        for name in sorted(names):
            entry = zipfile.ZipInfo(f"qemu_odx/{name}", _DATE)
            archive.writestr(entry, (root / name).read_bytes())
    return buffer.getvalue()


def write_kit(path: Path) -> None:
    """Write the kit to a file that can be run.

    Raises:
        OSError: it cannot be written.
    """
    path.write_bytes(kit_bytes())
    path.chmod(0o755)
