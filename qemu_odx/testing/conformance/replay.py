"""Replays SCSI vectors: each starts with a fresh reference target, each step is compared byte by byte.

May import `testing/conformance/reference` and `wire/scsi`. The format is that of
`tests/vectors/scsi-odx-vectors.json`: its `rules` say what a target may choose.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from qemu_odx.testing.conformance.reference import ReferenceTarget
from qemu_odx.wire.scsi import sense
from qemu_odx.wire.scsi.sense import Status

if TYPE_CHECKING:
    from collections.abc import Callable

    from qemu_odx.testing.initiator import Answer

Step = dict[str, Any]
"""One step as it stands in the file."""
_RANGE = re.compile(r"LIST IDENTIFIERS? (\d+) to (\d+)", re.IGNORECASE)
_LIST_IDENTIFIER_AT = {0x83: 6, 0x84: 2}


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of a vector; `why` names the first step that went wrong."""

    id: str
    ok: bool
    why: str = ""


class MismatchError(Exception):
    """A step did not give what the vector says."""


@dataclass(slots=True)
class _Replay:
    """One vector under way."""

    reference: ReferenceTarget
    saved: dict[str, bytes] = field(default_factory=dict)
    previous: Step = field(default_factory=dict)

    def step(self, step: Step) -> None:
        if "event" in step:
            self._event(step)
        elif "check_data" in step:
            self._check_data(step["check_data"])
        elif "repeat" in step:
            self._repeat(step["repeat"])
        else:
            self._command(step)
            self.previous = step

    def _event(self, step: Step) -> None:
        known = _EVENTS.get(step["event"])
        if known is None:
            raise MismatchError(f"unknown event {step['event']!r}")
        known(self.reference, step)

    def _check_data(self, wanted: Step) -> None:
        data = self.reference.read(wanted["lun"], wanted["lba"], wanted["blocks"])
        if hashlib.sha256(data).hexdigest() != wanted["sha256"]:
            place = f"LU {wanted['lun']} block {wanted['lba']}, {wanted['blocks']} blocks"
            raise MismatchError(
                f"{place}: expected {wanted.get('meaning', wanted['sha256'])}, found {data[:16]!r}..."
            )

    def _repeat(self, words: str) -> None:
        found = _RANGE.search(words)
        if found is None:
            raise MismatchError(f"cannot read the repetition {words!r}")
        for identifier in range(int(found[1]), int(found[2]) + 1):
            cdb = bytearray.fromhex(self.previous["cdb"])
            at = _LIST_IDENTIFIER_AT[cdb[0]]
            cdb[at : at + 4] = identifier.to_bytes(4, "big")
            self._command({**self.previous, "cdb": cdb.hex()})

    def _command(self, step: Step) -> None:
        answer = self.reference.command(
            step.get("nexus", "I0"), step.get("lun", 0), bytes.fromhex(step["cdb"]), self._data_out(step)
        )
        if "status" in step:
            _compare_status(step, answer)
            _compare_data(step, answer)
        if "save" in step:
            place = step["save"]
            self.saved[place["name"]] = answer.data[place["offset"] : place["offset"] + place["length"]]

    def _data_out(self, step: Step) -> bytes:
        data = bytearray.fromhex(step.get("data_out", ""))
        put = step.get("data_out_token")
        if put:
            token = bytearray(self.saved[put["name"]])
            change = put.get("then_set")
            if change:
                new = bytes.fromhex(change["hex"])
                token[change["offset_in_token"] : change["offset_in_token"] + len(new)] = new
            data[put["offset"] : put["offset"] + put["length"]] = token
        return bytes(data)


_EVENTS: dict[str, Callable[[ReferenceTarget, Step], None]] = {
    "background": lambda reference, _: reference.background.run_all(),
    "advance": lambda reference, step: reference.clock.advance(step["seconds"]),
    "write_protect": lambda reference, step: setattr(reference.disks[step["lun"]], "readonly", True),
    "nexus_loss": lambda reference, step: reference.target.nexus_loss(step.get("nexus", "I0"), lambda: None),
    "i_t_nexus_loss": lambda reference, step: reference.target.nexus_loss(
        step.get("nexus", "I0"), lambda: None
    ),
    "lu_reset": lambda reference, step: reference.target.reset_lun(step.get("lun", 0), lambda _: None),
}


def _compare_status(step: Step, answer: Answer) -> None:
    got = Status(answer.status).name.replace("_", " ")
    found = sense.parse(answer.sense)
    if got != step["status"]:
        raise MismatchError(f"status {got}{f' ({found.name})' if found else ''}, expected {step['status']}")
    wanted = step.get("sense")
    if not wanted:
        return
    if found is None:
        raise MismatchError(f"no sense data, expected {wanted['text']}")
    if (found.key, found.asc, found.ascq) != (wanted["key"], wanted["asc"], wanted["ascq"]):
        raise MismatchError(f"sense {found.name}, expected {wanted['text']}")
    if wanted.get("information") is not None and found.information != wanted["information"]:
        raise MismatchError(f"INFORMATION {found.information}, expected {wanted['information']}")
    _compare_pointer(wanted, answer.sense)


def _compare_pointer(wanted: Step, data: bytes) -> None:
    """A field pointer need not be there; if it is, it has to be right."""
    expected, got = wanted.get("sks_optional"), sense.pointer_of(data)
    if expected and got and (got.in_cdb, got.byte) != (expected["in_cdb"], expected["byte"]):
        raise MismatchError(f"field pointer at byte {got.byte}, expected {expected['byte']}")


def _compare_data(step: Step, answer: Answer) -> None:
    if "data_in_len" in step and len(answer.data) != step["data_in_len"]:
        raise MismatchError(f"{len(answer.data)} bytes of data-in, expected {step['data_in_len']}")
    if "data_in" not in step:
        return
    wanted, got = bytearray.fromhex(step["data_in"]), bytearray(answer.data)
    for free in step.get("data_in_free", ()):
        place = slice(free["offset"], free["offset"] + free["length"])
        wanted[place] = bytes(len(wanted[place]))
        got[place] = bytes(len(got[place]))
    if wanted != got:
        at = next(i for i, (a, b) in enumerate(zip(wanted, got, strict=True)) if a != b)
        raise MismatchError(f"data-in byte {at} is {got[at]:02x}, expected {wanted[at]:02x}")


def replay(vector: Step, description: Step) -> Verdict:
    """Run one vector of a file whose `reference_target` is `description`."""
    with ReferenceTarget(description) as reference:  # type: ignore[arg-type]  # straight from JSON
        run = _Replay(reference)
        for number, step in enumerate(vector["steps"]):
            try:
                run.step(step)
            except MismatchError as error:
                what = step.get("do") or step.get("event") or "data check"
                return Verdict(vector["id"], ok=False, why=f"step {number} ({what}): {error}")
    return Verdict(vector["id"], ok=True)


def replay_file(document: Step) -> list[Verdict]:
    """Run every vector of a file."""
    return [replay(vector, document["reference_target"]) for vector in document["vectors"]]
