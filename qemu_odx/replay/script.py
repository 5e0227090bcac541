"""What a trace says is to be done again, in the order in which the server did it.

Imports `trace/`. Next: `run.py`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from qemu_odx.replay.races import mark_races
from qemu_odx.trace import payload
from qemu_odx.trace.reading import TraceError
from qemu_odx.trace.schema import DROPPED

if TYPE_CHECKING:
    from collections.abc import Iterable

    from qemu_odx.trace.reading import Trace
    from qemu_odx.trace.schema import Record

_BLK_DATA_OUT: Final = frozenset({"OUT", "DISCARD", "WRITE_ZEROES"})
_HOST_CAUSES: Final = frozenset({"revoked", "cancelled"})
"""Deaths of tokens that the requests of a trace need not explain."""


@dataclass(slots=True)
class Step:
    """A request that was executed.

    Attributes:
        record: what was recorded.
        finished: when it had really ended: a copy in the background goes on after its command.
        raced: another request touched the same blocks meanwhile, and one of the two wrote.
    """

    record: Record
    finished: float
    raced: bool = False

    @property
    def name(self) -> str:
        """Of the operation."""
        return str(self.record["name"])

    @property
    def ranges(self) -> list[tuple[int, int]]:
        """The bytes of the disk that it names: first, and the one after the last."""
        size = self.record.get("block_size", 512)
        return [(lba * size, (lba + blocks) * size) for lba, blocks in self.record.get("spans", ())]

    @property
    def data_out(self) -> bytes:
        """What the guest sent.

        Raises:
            PayloadError: it was not recorded.
        """
        packed = self.record.get("data_out")
        return payload.unpack(packed) if packed else b""


@dataclass(frozen=True, slots=True)
class TokenEnd:
    """The host ended a token's life, after the request of that turn had begun."""

    token: str
    turn: int
    cause: str


@dataclass(slots=True)
class DiskState:
    """A disk as it was when the recording began.

    Attributes:
        about: its entry in the head of the trace.
        complete: all of its data are in `extents`, and zeros elsewhere.
        extents: first byte, and the bytes as a payload.
    """

    about: dict[str, Any]
    complete: bool = False
    extents: list[tuple[int, dict[str, Any]]] = field(default_factory=list)


@dataclass(slots=True)
class Script:
    """All of a trace that can be run again.

    Attributes:
        head: of the trace.
        disks: by name.
        steps: in order.
        missing: records that were dropped.
        unexecuted: requests that a tap answered or that never began.
    """

    head: Record
    disks: dict[str, DiskState]
    steps: list[Step | TokenEnd] = field(default_factory=list)
    missing: int = 0
    unexecuted: int = 0


def load(trace: Trace) -> Script:
    """Read a whole trace.

    Raises:
        TraceError: it cannot be replayed: nothing of the data was recorded.
    """
    if trace.head.get("data", "off") == "off":
        raise TraceError(f"{trace.path}: recorded without data: record with --trace FILE,data=on to replay")
    if "disks" not in trace.head:
        raise TraceError(
            f"{trace.path}: its head does not tell the disks: a merged or filtered part of a trace?"
        )
    script = Script(trace.head, {item["id"]: DiskState(item) for item in trace.head["disks"]})
    found = _Found({item["id"]: item for item in trace.head["exports"]})
    for record in trace:
        found.take(script, record)
    script.head["exports"] = list(found.exports.values())
    found.requests.sort(key=lambda step: int(step.record["turn"]))
    _find_ends(found.requests, found.copies)
    mark_races(found.requests)
    script.steps = _in_order(found.requests, found.ends)
    return script


@dataclass(slots=True)
class _Found:
    """What has been read so far: exports by name, requests and ends in the order of the file, ends of copies."""

    exports: dict[str, dict[str, Any]]
    requests: list[Step] = field(default_factory=list)
    ends: list[TokenEnd] = field(default_factory=list)
    copies: dict[tuple[str, int], list[float]] = field(default_factory=dict)

    def take(self, script: Script, record: Record) -> None:
        """One more record."""
        match record["event"]:
            case "request" if record.get("turn"):
                self.requests.append(Step(record, record["mono"]))
            case "request" if record["kind"] != "refused":
                script.unexecuted += 1
            case "token" if record["what"] == "ended" and record.get("cause") in _HOST_CAUSES:
                self.ends.append(TokenEnd(record["token"], record["turn"], record["cause"]))
            case "copy" if record["what"] == "ended":
                key = record["nexus"], record["list_identifier"]
                self.copies.setdefault(key, []).append(record["mono"])
            case "disk" if record.get("what") == "initial":
                _initial(script, record)
            case "disk" if record.get("what") == "served":
                script.disks.setdefault(record["disk"], DiskState(record["about"]))
            case "export" if record.get("what") == "served":
                self.exports.setdefault(record["export"], record["about"])
            case name if name == DROPPED:
                script.missing += record["count"]


def _initial(script: Script, record: Record) -> None:
    disk = script.disks.get(record["disk"])
    if disk is None:
        return
    disk.complete = bool(record.get("complete"))
    if "data" in record:
        disk.extents.append((record["offset"], record["data"]))


def _find_ends(requests: Iterable[Step], copies: dict[tuple[str, int], list[float]]) -> None:
    """A copy in the background ends when its `copy` record says so."""
    for step in requests:
        fields = step.record.get("fields", {})
        if fields.get("immediate"):
            ends = copies.get((step.record["nexus"], fields["list_identifier"]), ())
            step.finished = next((end for end in ends if end >= step.record["started"]), step.finished)


def _in_order(requests: list[Step], ends: list[TokenEnd]) -> list[Step | TokenEnd]:
    merged: list[Step | TokenEnd] = []
    waiting = sorted(ends, key=lambda end: end.turn)
    for step in requests:
        while waiting and waiting[0].turn < step.record["turn"]:
            merged.append(waiting.pop(0))
        merged.append(step)
    return merged + list(waiting)
