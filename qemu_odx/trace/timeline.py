"""A trace as a timeline: lanes of bars and marks, for a page that draws it.

Imports nothing of ours: whoever may not import this package calls `qemu-odx trace timeline FILE`, which prints the
same as one JSON object:

    {"seconds": 12.5, "lanes": [{"name": "export0 lun0", "bars": [...], "marks": [...]}, ...]}
    bar:  {"start": 0.1, "end": 0.2, "text": "WRITE USING TOKEN", "class": "token|write|read|other", "error": false}
    mark: {"at": 0.1, "text": "fault torn-write", "class": "fault|message|ioctl|dropped|use"}

Times are seconds from the head of the trace. Bars of a lane may overlap. Of the bars of a lane that are too many,
those that took longest are kept, and `left_out` says how many are not there; errors are left out last.
"""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

    Record = dict[str, Any]

MOST_BARS: Final = 500
ZERO: Final = "zero"
"""What the well-known zero token is called."""
_TOKEN_COMMANDS: Final = ("POPULATE TOKEN", "WRITE USING TOKEN", "RECEIVE ROD TOKEN", "COPY OPERATION ABORT")


class Tokens:
    """The lives of tokens, gathered from records."""

    def __init__(self) -> None:
        self._lives: dict[str, dict[str, Any]] = {}

    def add(self, record: Record) -> None:
        """Look at a record."""
        if record["event"] == "token":
            life = self._life(record["token"], record["disk"])
            if record["what"] == "minted":
                life |= {"minted": record["mono"], "bytes": record["bytes"]}
            else:
                life |= {"ended": record["mono"], "cause": record.get("cause", "")}
        elif record["event"] == "request" and record["name"] == "WRITE USING TOKEN":
            token = record.get("fields", {}).get("token")
            if token not in {None, ZERO}:
                self._life(token, "")["uses"].append(record["mono"])

    def lives(self, start: float) -> list[dict[str, Any]]:
        """One entry a token, oldest first; times in seconds from `start`."""
        return [_relative(life, start) for life in self._lives.values()]

    def _life(self, token: str, disk: str) -> dict[str, Any]:
        return self._lives.setdefault(token, {"token": token, "disk": disk, "uses": []})


def _relative(life: dict[str, Any], start: float) -> dict[str, Any]:
    times = {key: round(life[key] - start, 6) for key in ("minted", "ended") if key in life}
    return life | times | {"uses": [round(at - start, 6) for at in life["uses"]]}


class Timeline:
    """Gathers lanes."""

    def __init__(self) -> None:
        self._lanes: dict[str, dict[str, Any]] = {}
        self._tokens = Tokens()
        self._start: float | None = None
        self._last = 0.0

    def add(self, record: Record) -> None:
        """Look at a record."""
        at = record.get("mono")
        if at is None:
            return
        self._start = at if self._start is None else self._start
        self._last = max(self._last, at)
        self._tokens.add(record)
        event = record["event"]
        if event == "request" and record["kind"] != "refused":
            self._bar(record)
        elif event == "message" and record["direction"] == "in":
            self._mark(f"{record['export']} messages", at, record["name"], "message")
        elif event == "fault":
            self._mark(_lane(record), at, f"{record['rule']}: {record['action']}", "fault")
        elif event == "ioctl":
            self._mark("windows", at, record["name"], "ioctl")
        elif event == "dropped":
            self._mark("trace", at, f"{record['count']} records are missing", "dropped")

    def made(self) -> dict[str, Any]:
        """All lanes."""
        start = self._start or 0.0
        lanes = [*self._lanes.values(), *self._token_lanes(start)]
        return {"seconds": round(self._last - start, 6), "lanes": [_bounded(lane) for lane in lanes]}

    def _bar(self, record: Record) -> None:
        bar = {
            "start": self._since(record["taken"]),
            "end": self._since(record["mono"]),
            "text": record["name"],
            "class": _class(record["name"]),
            "error": record["status"] not in {"GOOD", "OK", "CONDITION MET", "FUNCTION SUCCEEDED", "open"},
        }
        self._find(_lane(record))["bars"].append(bar)

    def _mark(self, lane: str, at: float, text: str, kind: str) -> None:
        self._find(lane)["marks"].append({"at": self._since(at), "text": text, "class": kind})

    def _find(self, lane: str) -> dict[str, Any]:
        return self._lanes.setdefault(lane, {"name": lane, "bars": [], "marks": []})

    def _since(self, at: float) -> float:
        return round(at - (self._start or 0.0), 6)

    def _token_lanes(self, start: float) -> list[dict[str, Any]]:
        end = round(self._last - start, 6)
        return [
            {
                "name": f"token {life['token']}",
                "bars": [
                    {
                        "start": life.get("minted", 0.0),
                        "end": life.get("ended", end),
                        "text": f"{life.get('bytes', '?')} bytes of {life['disk']}, {life.get('cause', 'alive')}",
                        "class": "token",
                        "error": life.get("cause", "deleted") != "deleted",
                    }
                ],
                "marks": [{"at": at, "text": "WRITE USING TOKEN", "class": "use"} for at in life["uses"]],
            }
            for life in self._tokens.lives(start)
        ]


def timeline(records: Iterable[Record]) -> dict[str, Any]:
    """The timeline of a trace; see the module for its form."""
    made = Timeline()
    for record in records:
        made.add(record)
    return made.made()


def _lane(record: Record) -> str:
    if "lun" in record:
        return f"{record['export']} lun{record['lun']}"
    return str(record.get("export", "faults"))


def _class(name: str) -> str:
    if name.startswith(_TOKEN_COMMANDS):
        return "token"
    if name.startswith(("WRITE", "OUT", "UNMAP", "DISCARD", "COMPARE", "ORWRITE")):
        return "write"
    return "read" if name == "IN" or name.startswith("READ(") else "other"


def _bounded(lane: dict[str, Any]) -> dict[str, Any]:
    bars = lane["bars"]
    if len(bars) <= MOST_BARS:
        return lane
    kept = heapq.nlargest(MOST_BARS, bars, key=lambda bar: (bar["error"], bar["end"] - bar["start"]))
    kept.sort(key=lambda bar: float(bar["start"]))
    return lane | {"bars": kept, "left_out": len(bars) - MOST_BARS}
