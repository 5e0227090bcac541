"""A replay: every step of a script on a device, compared as it goes.

Imports the modules beside it, `trace` and `wire`. Called by `cli/replay.py`.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from qemu_odx.replay.compare import Comparison, Difference, Uncompared
from qemu_odx.replay.knowledge import Knowledge
from qemu_odx.replay.script import Step
from qemu_odx.replay.token_map import TokenMap
from qemu_odx.trace import payload
from qemu_odx.wire.scsi import rod_token
from qemu_odx.wire.scsi.token_lists import WRITE_HEADER, TokenInformation

if TYPE_CHECKING:
    from collections.abc import Callable, Container

    from qemu_odx.disk.ranges import RangeSet
    from qemu_odx.replay.port import Ending, ReplayDevice
    from qemu_odx.replay.script import Script, TokenEnd

_TOKEN_AT = slice(16, 16 + rod_token.TOKEN_SIZE)
"""The token in a WRITE USING TOKEN parameter list (SBC-5 5.59)."""


@dataclass(slots=True)
class Verdict:
    """What a replay came to.

    Attributes:
        replayed: requests that were done again.
        compared: those whose end was compared.
        uncompared: why the ends of others, or their data, were not, and how often.
        skipped: why requests were not done again, and how often.
        differences: in order.
        missing: records that the trace lacks.
    """

    replayed: int = 0
    compared: int = 0
    uncompared: Counter[str] = field(default_factory=Counter)
    skipped: Counter[str] = field(default_factory=Counter)
    differences: list[Difference] = field(default_factory=list)
    missing: int = 0

    @property
    def same(self) -> bool:
        """True if something was compared and nothing differed."""
        return not self.differences and self.compared > 0

    def as_object(self) -> dict[str, Any]:
        """For JSON."""
        differences = [
            {name: getattr(item, name) for name in Difference.__slots__} for item in self.differences
        ]
        return {
            "same": self.same,
            "replayed": self.replayed,
            "compared": self.compared,
            "uncompared": dict(self.uncompared),
            "skipped": dict(self.skipped),
            "missing": self.missing,
            "differences": differences,
        }


class Replay:
    """Runs a script on a device.

    Args:
        script: what to do.
        device: who does it.
        known: disks whose content is what it was when the recording began.
    """

    def __init__(self, script: Script, device: ReplayDevice, known: Container[str] = ()) -> None:
        self.verdict = Verdict(missing=script.missing)
        self._script = script
        self._device = device
        self._tokens = TokenMap()
        self._knowledge = Knowledge()
        self._populated: dict[tuple[str, int], RangeSet] = {}
        self._comparison = Comparison(self._tokens, self._knowledge, same_device=device.same_device)
        if script.unexecuted:
            self.verdict.skipped["answered by a fault, or never begun"] = script.unexecuted
        for name, disk in script.disks.items():
            # On another device only what was written to it is known: holes of the recorded disk are not zeroed there.
            if name not in known and not (disk.complete and device.same_device):
                self._knowledge.forget(name, 0, disk.about["size"])
                for offset, packed in disk.extents:
                    self._knowledge.learn(name, offset, offset + packed["length"])

    def run(self, *, stop: bool = False, progress: Callable[[int], None] = lambda _done: None) -> Verdict:
        """Everything, or up to the first difference.

        Raises:
            ReplayError, PayloadError: it cannot go on.
        """
        for done, item in enumerate(self._script.steps, start=1):
            if isinstance(item, Step):
                self._step(item)
            else:
                self._end_token(item)
            progress(done)
            if stop and self.verdict.differences:
                break
        return self.verdict

    def _step(self, step: Step) -> None:
        data_out = self._data_out(step)
        if data_out is None:
            self._skip(step, "uses a token that was made before the recording")
            return
        self._device.passed(step.record["started"])
        ending = self._device.run(step, data_out)
        if ending is None:
            self._skip(step, "cannot be done on this device, or is in the window of a mailbox")
            return
        self.verdict.replayed += 1
        self._learn_token(step, ending)
        result = self._comparison.of(step, ending)
        if isinstance(result, Uncompared):
            self.verdict.uncompared[result.reason] += 1
        else:
            self.verdict.compared += 1
            if result is not None:
                self.verdict.differences.append(result)
        self._know(step)

    def _skip(self, step: Step, reason: str) -> None:
        self.verdict.skipped[reason] += 1
        self._knowledge.lost(step)

    def _data_out(self, step: Step) -> bytes | None:
        """What to send: as recorded, but with this run's token; None if that is not known."""
        data = step.data_out
        if step.name != "WRITE USING TOKEN" or len(data) < WRITE_HEADER:
            return data
        token = self._tokens.sent(data[_TOKEN_AT])
        if token is None:
            fresh = self._script.head.get("fresh", False)
            return data if fresh or not _looks_made(data[_TOKEN_AT]) else None
        return data[: _TOKEN_AT.start] + token + data[_TOKEN_AT.stop :]

    def _learn_token(self, step: Step, ending: Ending) -> None:
        packed = step.record.get("data_in")
        if step.name != "RECEIVE ROD TOKEN INFORMATION" or not payload.has_content(packed):
            return
        assert packed is not None  # noqa: S101 - has_content says so
        recorded, replayed = _token_in(payload.unpack(packed)), _token_in(ending.data)
        if recorded is not None and replayed is not None:
            self._tokens.learn(recorded, replayed)

    def _know(self, step: Step) -> None:
        record = step.record
        if step.raced or record.get("aborted") or record["status"] == "open":
            self._knowledge.lost(step)
        elif "blocks" in record.get("decision", {}):
            pass  # what was unknown may still be so
        elif record["status"] in {"GOOD", "OK"}:
            self._knowledge.after(step)
        elif step.name == "WRITE USING TOKEN":
            self._knowledge.lost(step)  # a prefix
        if step.name in {"POPULATE TOKEN", "RECEIVE ROD TOKEN INFORMATION"}:
            self._know_token(record.get("told", {}).get("token"), step)

    def _know_token(self, token: str | None, step: Step) -> None:
        """What is unknown of a token is so since POPULATE TOKEN; its name is told later."""
        key = step.record["nexus"], step.record["fields"].get("list_identifier")
        if step.name == "POPULATE TOKEN":
            self._populated[key] = self._knowledge.unknown_of(step)
        elif token and key in self._populated:
            self._knowledge.name_token(token, self._populated.pop(key))

    def _end_token(self, end: TokenEnd) -> None:
        token = self._tokens.named(end.token)
        if token is None or not self._device.end_token(token, end.cause):
            self.verdict.skipped["the host ended a token"] += 1


def _token_in(data: bytes) -> bytes | None:
    try:
        return TokenInformation.parse(data).token
    except ValueError:
        return None


def _looks_made(token: bytes) -> bool:
    """True for bytes that some copy manager may have minted, and not a guest that tries things."""
    return rod_token.rod_type(token) in rod_token.MINTED_TYPES and (
        rod_token.length_field(token) == rod_token.ROD_TOKEN_LENGTH
    )
