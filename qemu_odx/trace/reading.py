"""Reading a trace: lines to records.

Imports `schema`. A file may still grow or have been cut by a crash: a last line that is not whole is left out, and
`Trace.cut` says so. Anything else that is no record is an error with its line.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from qemu_odx.trace.schema import HEAD, TAIL, VERSION

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from qemu_odx.trace.schema import Record


class TraceError(ValueError):
    """A file that is no trace, in one sentence for the user."""


@dataclass(slots=True)
class Trace:
    """An open trace file.

    Attributes:
        path: the file.
        head: its first record.
        cut: the last line is not whole; known after the records were read.
        ended: the recording was ended in order; known after the records were read.
    """

    path: Path
    head: Record
    cut: bool = False
    ended: bool = False

    def __iter__(self) -> Iterator[Record]:
        """Every record, the head first.

        Raises:
            TraceError: a line is no record.
        """
        with self.path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                if not line.endswith(b"\n"):
                    self.cut = True
                    return
                record = _record(self.path, number, line)
                self.ended = record["event"] == TAIL
                yield record


def open_trace(path: Path) -> Trace:
    """Look at the head of a file.

    Raises:
        TraceError: there is none, it is no trace or one of another version.
    """
    try:
        with path.open("rb") as file:
            first = file.readline()
    except OSError as error:
        raise TraceError(f"{path}: {error.strerror}; give a file that serve --trace recorded") from error
    if not first.endswith(b"\n"):
        raise TraceError(f"{path}: empty, or no trace; give a file that serve --trace recorded")
    head = _record(path, 1, first)
    if head["event"] != HEAD:
        raise TraceError(f"{path}: no trace: it begins with '{head['event']}' and not with '{HEAD}'")
    if head.get("version") != VERSION:
        raise TraceError(
            f"{path}: a trace of version {head.get('version')}, and this program reads version {VERSION}: "
            "use the program that recorded it"
        )
    return Trace(path, head)


def _record(path: Path, number: int, line: bytes) -> Record:
    try:
        record: Any = json.loads(line)
    except ValueError as error:
        raise TraceError(f"{path}: line {number} is no JSON: {error}") from error
    if not isinstance(record, dict) or not isinstance(record.get("event"), str):
        raise TraceError(f"{path}: line {number} is no record: it has no 'event'")
    return record
