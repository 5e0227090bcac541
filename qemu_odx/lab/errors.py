"""What the lab says when a guest, a disk server or an image cannot be had: the cause, the cure, the logs.

Imports nothing of ours. Every function of the lab raises `LabError` and nothing else on purpose; the
command line prints it as one sentence and ends with a non-zero status.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


class LabError(Exception):
    """Something the lab needs is missing or went wrong.

    Attributes:
        cause: what happened, without a final full stop.
        cure: what the user can do about it, in the imperative.
        details: the last lines of the log that shows it, empty if there are none.
        logs: the folder in which the logs of the run were kept, None if nothing was kept.
    """

    def __init__(self, cause: str, cure: str, *, details: str = "") -> None:
        super().__init__(f"{cause}; {cure}")
        self.cause = cause
        self.cure = cure
        self.details = details
        self.logs: Path | None = None


class UsageError(LabError):
    """What the user asked for cannot be on any machine, or names what is not there: an image, a file, a key."""


class MissingError(LabError):
    """This machine lacks a program, a file or a right that is needed; `qemu-odx doctor` tells which others."""


class EndedError(LabError):
    """A guest or the disk server ended by itself."""


class LateError(LabError):
    """A guest was not done in time."""


def tail(log: Path, lines: int = 12) -> str:
    """The last lines of a log file, empty if there is no such file."""
    try:
        return "\n".join(log.read_text(errors="replace").splitlines()[-lines:])
    except OSError:
        return ""
