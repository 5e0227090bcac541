"""The logs of a run, read from the folder that has them.

Imports nothing of ours but the model.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from qemu_odx.report.model import Log

if TYPE_CHECKING:
    from pathlib import Path


def read_logs(folder: Path) -> tuple[Log, ...]:
    """Every `*.log` of a folder, by name; none if there is no folder."""
    return tuple(Log(path.name, path.read_text(errors="replace")) for path in sorted(folder.glob("*.log")))
