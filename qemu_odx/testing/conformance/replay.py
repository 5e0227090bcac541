"""Replays SCSI vectors: each starts with a fresh reference target, each step is compared byte by byte.

May import `testing/conformance/` and `wire/scsi`. The format is that of `tests/vectors/scsi-odx-vectors.json`: its
`rules` say what a target may choose; `vector_file.py` reads it, `events.py` and `compare.py` do the parts.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from qemu_odx.testing.conformance import compare, events
from qemu_odx.testing.conformance.compare import MismatchError
from qemu_odx.testing.conformance.reference import USUAL, ReferenceTarget
from qemu_odx.testing.conformance.vector_file import Document, listed
from qemu_odx.wire.scsi.sense import Key, Status

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from qemu_odx.testing.conformance.vector_file import Json
    from qemu_odx.testing.initiator import Answer

_RANGE = re.compile(r"(\d+)\s*(?:to|through|\.\.+|-)\s*(\d+)", re.IGNORECASE)
_TIMES = re.compile(r"(\d+)\s*(?:more\s+)?times", re.IGNORECASE)
_LIST_IDENTIFIER_AT = {0x83: 6, 0x84: 2}
_ATTENTIONS = 8
"""Unit attentions in a row that are taken after an event that leaves some."""
_MOST_REPEATS = 100_000


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of a vector; `why` names the first step that went wrong."""

    id: str
    ok: bool
    why: str = ""


@dataclass(slots=True)
class _Replay:
    """One vector under way."""

    reference: ReferenceTarget
    as_good: set[tuple[int, int]]
    saved: dict[str, bytes] = field(default_factory=dict)
    previous: Json = field(default_factory=dict)
    attention_due: bool = False

    def step(self, step: Json) -> None:
        """Do whatever the step names: an event, a repetition, a command, a look at the disk."""
        if not {"event", "repeat", "cdb", "check_data"} & step.keys():
            raise MismatchError("no cdb, event, repeat or check_data: nothing to do")
        if "event" in step:
            self.attention_due |= events.perform(self.reference, step) in events.ATTENTION
        if "repeat" in step and "cdb" not in step:
            self._repeat(step["repeat"])
        if "cdb" in step:
            self._command(step)
            self.previous = step
        for wanted in listed(step.get("check_data")):
            if wanted["lun"] not in self.reference.disks:
                raise MismatchError(f"there is no logical unit {wanted['lun']}")
            data = self.reference.read(wanted["lun"], wanted["lba"], wanted["blocks"])
            compare.compare_blocks(wanted, data)

    def _repeat(self, words: str | int | Json) -> None:
        if not self.previous:
            raise MismatchError("there is no step above to repeat")
        identifiers = _repetition(words)
        for identifier in identifiers:
            step = self.previous
            if identifier is not None:
                step = {**step, "cdb": _with_identifier(bytes.fromhex(step["cdb"]), identifier).hex()}
            self._command(step)

    def _command(self, step: Json) -> None:
        answer = self._send(step)
        if "status" in step or "sense" in step:
            compare.compare_status(step, answer, self.as_good)
            compare.compare_data(step, answer)
        for place in listed(step.get("save")):
            self._save(place, answer)

    def _send(self, step: Json) -> Answer:
        cdb, nexus, lun = bytes.fromhex(step["cdb"]), step.get("nexus", "I0"), step.get("lun", 0)
        data_out = self._data_out(step)
        answer = self.reference.command(nexus, lun, cdb, data_out)
        for _ in range(_ATTENTIONS if self.attention_due and not _wants_attention(step) else 0):
            # An initiator takes the news and sends its command again.
            if answer.status != Status.CHECK_CONDITION or answer.fault is None:
                break
            if answer.fault[0] != Key.UNIT_ATTENTION:
                break
            answer = self.reference.command(nexus, lun, cdb, data_out)
        return answer

    def _save(self, place: Json, answer: Answer) -> None:
        at = place.get("offset", 0)
        taken = answer.data[at : at + place.get("length", len(answer.data))]
        if "length" in place and len(taken) < place["length"]:
            raise MismatchError(
                f"{len(taken)} bytes to save as {place['name']!r}, {place['length']} expected"
            )
        self.saved[place["name"]] = taken

    def _data_out(self, step: Json) -> bytes:
        data = bytearray.fromhex(step.get("data_out", ""))
        for put in listed(step.get("data_out_token")):
            if put["name"] not in self.saved:
                raise MismatchError(f"no step above saved {put['name']!r}")
            token = bytearray(self.saved[put["name"]])
            for change in listed(put.get("then_set")):
                new, at = bytes.fromhex(change["hex"]), change["offset_in_token"]
                token[at : at + len(new)] = new
            at = put.get("offset", 16)
            data[at : at + put.get("length", len(token))] = token
        return bytes(data)


def _repetition(words: str | int | Mapping[str, int]) -> Iterable[int | None]:
    """The list identifiers to repeat a step with; None to repeat it as it is."""
    if isinstance(words, dict):
        first, last = words.get("from"), words.get("to")
        repeated: range | list[None]
        if isinstance(first, int) and isinstance(last, int):
            repeated = range(first, last + 1)
        else:
            repeated = [None] * int(words.get("times", 0))
    elif isinstance(words, int):
        repeated = [None] * words
    elif found := _RANGE.search(str(words)):
        repeated = range(int(found[1]), int(found[2]) + 1)
    elif found := _TIMES.search(str(words)):
        repeated = [None] * int(found[1])
    else:
        raise MismatchError(f"cannot read the repetition {words!r}: write LIST IDENTIFIER N to M, or N times")
    if not 0 < len(repeated) <= _MOST_REPEATS:
        raise MismatchError(f"a repetition of {len(repeated)}: ask for 1 to {_MOST_REPEATS}")
    return repeated


def _with_identifier(cdb: bytes, identifier: int) -> bytes:
    changed = bytearray(cdb)
    at = 2 if cdb[:2] == b"\x83\x1c" else _LIST_IDENTIFIER_AT.get(cdb[0])
    if at is None:
        raise MismatchError(f"command {cdb[0]:02x}h has no list identifier to count up")
    changed[at : at + 4] = identifier.to_bytes(4, "big")
    return bytes(changed)


def _wants_attention(step: Json) -> bool:
    return any(wanted.get("key") == Key.UNIT_ATTENTION for wanted in listed(step.get("sense")))


def replay(vector: Json, description: Json | None = None) -> Verdict:
    """Run one vector of a file whose `reference_target` is `description` (None: the usual one)."""
    with ReferenceTarget(vector.get("reference_target") or description or USUAL) as reference:  # type: ignore[arg-type]  # straight from JSON
        notes = " ".join(str(vector.get(key, "")) for key in ("note", "notes"))
        run = _Replay(reference, compare.as_good(notes))
        for number, step in enumerate(vector["steps"]):
            why = _attempt(run, step)
            if why:
                what = step.get("do") or step.get("event") or "repeat" * ("repeat" in step) or "data check"
                return Verdict(vector["id"], ok=False, why=f"step {number} ({what}): {why}")
    if not vector["steps"]:
        return Verdict(vector["id"], ok=False, why="no steps: it proves nothing")
    return Verdict(vector["id"], ok=True)


def _attempt(run: _Replay, step: Json) -> str:
    """Why a step went wrong, or nothing. A target that breaks fails its vector, and no other."""
    try:
        run.step(step)
    except (MismatchError, events.EventError) as error:
        return str(error)
    except (KeyError, TypeError) as error:
        return f"the step lacks or misnames something: {error!r}"
    except Exception as error:  # noqa: BLE001 - whatever the target under test raises is its failure
        return f"the target broke: {error!r}"
    return ""


def replay_file(document: Document) -> list[Verdict]:
    """Run every vector of a file."""
    return [replay(vector, document.target) for vector in document.vectors]
