"""Recorded and replayed: what is compared of which request, and the first difference in words.

Imports `trace/payload`, `wire/scsi` and the modules beside it. Values that differ from run to run by their nature are
taken out first: tokens (`token_map.py`), and the operation counters of copies.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from qemu_odx.trace import payload
from qemu_odx.wire.scsi import sense as wire_sense
from qemu_odx.wire.scsi.describe import sense_fields

if TYPE_CHECKING:
    from qemu_odx.replay.knowledge import Knowledge
    from qemu_odx.replay.port import Ending
    from qemu_odx.replay.script import Step
    from qemu_odx.replay.token_map import TokenMap

_COPY_STATUS: Final = ("RECEIVE ROD TOKEN INFORMATION", "RECEIVE COPY STATUS")
_COUNTER: Final = slice(6, 8)
"""OPERATION COUNTER (SPC-4 6.24): counts how often was asked, too."""
_RUNNING: Final = frozenset({0x10, 0x11, 0x12})
_TERMINATED: Final = 0x60
_BY_TIME: Final = ("COPY OPERATION ABORT", "QUERY TASK", "ABORT TASK", "CLEAR TASK SET")
"""Whether there was anything to abort or to find is a question of time."""
_IDENTITY: Final = (
    "INQUIRY",
    "MODE SENSE",
    "REPORT",
    "READ CAPACITY",
    "GET_ID",
    "PERSISTENT RESERVE IN",
    "LOG SENSE",
)
"""What a device says of itself."""
_SHOWN: Final = 16


@dataclass(frozen=True, slots=True)
class Difference:
    """A request that ended otherwise.

    Attributes:
        n: its number at the export.
        export: the export.
        name: the operation.
        what: "status", "sense", "data" or "length".
        recorded: what it was.
        replayed: what it is.
    """

    n: int
    export: str
    name: str
    what: str
    recorded: str
    replayed: str

    def __str__(self) -> str:
        """One line."""
        return f"{self.export} #{self.n} {self.name}: {self.what}: recorded {self.recorded}, replayed {self.replayed}"


@dataclass(frozen=True, slots=True)
class Uncompared:
    """Why a request, or its data, was not compared."""

    reason: str


class Comparison:
    """Compares endings.

    Args:
        tokens: which token is which.
        knowledge: which bytes are known.
        same_device: compare what a device says of itself, and sense data to the last byte.
    """

    def __init__(self, tokens: TokenMap, knowledge: Knowledge, *, same_device: bool) -> None:
        self._tokens = tokens
        self._knowledge = knowledge
        self._same_device = same_device

    def of(self, step: Step, ending: Ending) -> Difference | Uncompared | None:
        """The first difference; why nothing could be compared; None: all is the same."""
        reason = self._not_comparable(step)
        if reason:
            return Uncompared(reason)
        record = step.record
        if record["status"] != ending.status:
            return _difference(step, "status", _told(record), _told_ending(ending))
        recorded = bytes.fromhex(record["sense"]["hex"]) if record.get("sense") else b""
        if self._sense(recorded) != self._sense(ending.sense):
            return _difference(step, "sense", _in_words(recorded), _in_words(ending.sense))
        return self._data(step, ending)

    def _not_comparable(self, step: Step) -> str:
        record = step.record
        if record.get("aborted") or record["status"] == "open":
            return "was aborted or never ended"
        if "answer" in record.get("decision", {}):
            return "a fault answered in its place"
        if step.name.startswith(_BY_TIME):
            return "depends on time"
        if step.name.startswith(_COPY_STATUS) and _copy_status(record) in _RUNNING | {_TERMINATED}:
            return "depends on time"
        if not self._same_device and step.name.startswith(_IDENTITY):
            return "what another device says of itself"
        if not self._same_device and (record.get("sense") or {}).get("key") == "UNIT ATTENTION":
            return "news of a reset or of other initiators"
        return ""

    def _sense(self, data: bytes) -> object:
        found = wire_sense.parse(data)
        if self._same_device or found is None:
            return data
        return found.key, found.asc, found.ascq

    def _data(self, step: Step, ending: Ending) -> Difference | Uncompared | None:
        packed = step.record.get("data_in")
        length = packed["length"] if packed else step.record.get("bytes_in", 0)
        if length != len(ending.data):
            return _difference(step, "length", f"{length} bytes", f"{len(ending.data)} bytes")
        if not packed:
            return None
        if step.ranges and not self._knowledge.knows(step.record["disk"], step.ranges):
            return Uncompared("data that were there before the recording, or raced")
        if step.ranges and step.raced:
            return Uncompared("raced with another request")
        if not payload.has_content(packed):
            replayed = hashlib.sha256(ending.data).hexdigest()
            same = replayed == packed["sha256"]
            return (
                None
                if same
                else _difference(step, "data", f"sha256 {packed['sha256']}", f"sha256 {replayed}")
            )
        return self._bytes(step, payload.unpack(packed), ending.data)

    def _bytes(self, step: Step, recorded: bytes, replayed: bytes) -> Difference | None:
        expected = self._tokens.expected(recorded)
        if step.name.startswith(_COPY_STATUS):
            expected, replayed = _without_counter(expected), _without_counter(replayed)
        if expected == replayed:
            return None
        at = next(n for n, (one, other) in enumerate(zip(expected, replayed, strict=True)) if one != other)
        shown = slice(at, at + _SHOWN)
        return _difference(
            step, "data", f"{expected[shown].hex()} from byte {at} on", f"{replayed[shown].hex()}"
        )


def _copy_status(record: dict[str, Any]) -> int | None:
    packed = record.get("data_in") or {}
    data = payload.unpack(packed) if payload.has_content(packed) else b""
    return data[5] & 0x7F if len(data) > 5 else None


def _without_counter(data: bytes) -> bytes:
    changed = bytearray(data)
    changed[_COUNTER] = bytes(len(changed[_COUNTER]))
    return bytes(changed)


def _difference(step: Step, what: str, recorded: str, replayed: str) -> Difference:
    record = step.record
    return Difference(record["n"], record["export"], step.name, what, recorded, replayed)


def _told(record: dict[str, Any]) -> str:
    sense = record.get("sense")
    return str(record["status"]) + (f" ({sense['key']} {sense['code']} {sense['text']})" if sense else "")


def _told_ending(ending: Ending) -> str:
    return ending.status + (f" ({_in_words(ending.sense)})" if ending.sense else "")


def _in_words(data: bytes) -> str:
    fields = sense_fields(data)
    if fields is None:
        return "no sense data"
    return f"{fields['key']} {fields['code']} {fields['text']}".rstrip() + f" [{data.hex()}]"
