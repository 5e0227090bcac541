"""The schema of a trace: JSON lines, one record a line; `docs/trace.md` tells every member.

Imports nothing of ours. Written by `recorder.py`, read by `reading.py` and by anybody else: the version only rises
when a member changes its meaning or goes away; new members and new events may come at any time.
"""

from __future__ import annotations

from typing import Any, Final

VERSION: Final = 1
Record = dict[str, Any]

HEAD: Final = "trace"
"""The first record of a file."""
TAIL: Final = "end"
"""The last one, if the recording was ended in order."""
DROPPED: Final = "dropped"
"""Records are missing here: they came faster than they could be written."""

EVENTS: Final = ("message", "request", "fault", "token", "copy", "ioctl", "export", "disk")
"""What can be asked for by `events=`; head, tail and notes about drops are always there."""


def is_error(record: Record) -> bool:
    """True for a request that did not end well, a refused message, a failed call, a dead token or copy."""
    match record["event"]:
        case "request":
            return (
                record.get("status") not in _GOOD
                or bool(record.get("aborted"))
                or record["kind"] == "refused"
            )
        case "ioctl":
            return bool(record.get("win32"))
        case "token":
            return bool(record["what"] == "ended" and record.get("cause") != "deleted")
        case "copy":
            return bool(record["what"] == "ended" and record.get("status") != "done")
        case "message":
            return "refused" in record
        case "export":
            return bool(record["what"] == "dropped")
    return record["event"] in {"fault", DROPPED}


_GOOD: Final = frozenset({"GOOD", "CONDITION MET", "OK", "FUNCTION SUCCEEDED"})
