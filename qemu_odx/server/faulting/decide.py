"""From the rules that hit a request to one decision about it.

Imports `faults/`, `tap/` and `wire`. Rules are carried out in the order of the book: what waits, waits in turn; the
first that answers keeps the request from being executed and ends the list, unless it answers after (`when=after`).
Next: `tap.py` hands the decision to the gate.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from qemu_odx.server.faulting.holds import Deed, InTurn, Parked
from qemu_odx.tap.decision import Answer, Decision, Delay
from qemu_odx.tap.exchange import Kind
from qemu_odx.wire.scsi import sense
from qemu_odx.wire.scsi.sense import Sense, Status
from qemu_odx.wire.virtio import blk

if TYPE_CHECKING:
    from collections.abc import Callable

    from qemu_odx.faults.actions import Action
    from qemu_odx.faults.book import Entry, Hit
    from qemu_odx.server.faulting.holds import Parking
    from qemu_odx.tap.decision import Hold
    from qemu_odx.tap.exchange import Exchange

SILENT = frozenset({"never-answer", "answer-after-reset"})
"""Actions whose requests get no answer; the end of the queue gives them up."""
_TOKENS = frozenset({"POPULATE TOKEN", "WRITE USING TOKEN"})


@dataclass(frozen=True, slots=True)
class Deeds:
    """What actions need of the server.

    Attributes:
        parking: where a rule's requests wait.
        drop: closes the connection of the export.
        kill: ends the process.
        soon: runs a callback on the event loop, not at once.
    """

    parking: Callable[[Entry], Parking]
    drop: Callable[[], None]
    kill: Callable[[], None]
    soon: Callable[[Callable[[], None]], None]


@dataclass(slots=True)
class Verdict:
    """What is to happen to one exchange.

    Attributes:
        flips: bits of the data for the guest that are to be turned: byte, bit and a number to choose by.
        silent: the entry and the action of the rule that keeps it from being answered, if one does.
        waiting: task management functions that wait until this exchange has ended.
        refused: the sense data that it ends with although it was never executed.
    """

    exchange: Exchange
    before: list[Hold] = field(default_factory=list)
    after: list[Hold] = field(default_factory=list)
    execute: bool = True
    blocks: int | None = None
    answer: Answer | None = None
    flips: list[Hit] = field(default_factory=list)
    silent: tuple[Entry, str] | None = None
    waiting: list[Parked] = field(default_factory=list)
    refused: Sense | None = None
    names: list[str] = field(default_factory=list)
    turns: list[InTurn] = field(default_factory=list)

    def decision(self) -> Decision:
        """As the gate wants it."""
        return Decision(
            before=self._in_turn(self.before),
            execute=self.execute,
            blocks=self.blocks,
            answer=self.answer,
            after=self._in_turn(self.after),
            note="+".join(self.names),
        )

    def _in_turn(self, holds: list[Hold]) -> InTurn | None:
        if not holds:
            return None
        turn = InTurn(holds)
        self.turns.append(turn)
        return turn

    def end(self) -> None:
        """The exchange has ended: nothing that holds it goes on."""
        for turn in self.turns:
            turn.end()


def judge(exchange: Exchange, hits: list[Hit], deeds: Deeds) -> Verdict:
    """Put together what the rules do to an exchange."""
    verdict = Verdict(exchange)
    for hit in hits:
        verdict.names.append(hit.entry.name)
        _apply(verdict, hit, deeds)
        if not verdict.execute:
            break
    return verdict


def _apply(verdict: Verdict, hit: Hit, deeds: Deeds) -> None:
    action = hit.action
    match action.name:
        case "sense" | "status" | "blk-status":
            _answer(verdict, action)
        case "partial":
            _cut(verdict, action.blocks)
            verdict.answer = _failure(verdict.exchange, action) or verdict.answer
        case "short-read":
            _cut(verdict, action.blocks)
        case "bit-flip":
            verdict.flips.append(hit)
        case _:
            (verdict.after if action.after else verdict.before).append(_hold(hit, deeds))
            if action.name in SILENT:
                verdict.silent = hit.entry, action.name


def _answer(verdict: Verdict, action: Action) -> None:
    if action.sense is None:
        verdict.answer = Answer(action.status)
    else:
        verdict.answer = Answer(Status.CHECK_CONDITION, action.sense.fixed())
    if not action.after:
        verdict.execute, verdict.refused = False, action.sense


def _cut(verdict: Verdict, blocks: int) -> None:
    verdict.blocks = blocks if verdict.blocks is None else min(verdict.blocks, blocks)


def _failure(exchange: Exchange, action: Action) -> Answer | None:
    """How a request ends of which only the first blocks were done; None if the target says it itself.

    INFORMATION is the first block that was not read or written (SBC-3 4.18.1), or what a token copy has done.
    """
    if action.blocks >= exchange.blocks:
        return None
    if exchange.kind is Kind.BLK:
        return Answer(blk.Status.IOERR)
    token = exchange.operation in _TOKENS
    if token and action.sense is None:
        return None
    found = action.sense or (sense.READ_ERROR if exchange.operation.startswith("READ") else sense.WRITE_ERROR)
    information = action.blocks if token else (exchange.lba or 0) + action.blocks
    return Answer(Status.CHECK_CONDITION, found.told(information).fixed())


def _hold(hit: Hit, deeds: Deeds) -> Hold:
    match hit.action.name:
        case "delay":
            return Delay(hit.action.seconds)
        case "drop-connection":
            return Deed(deeds.drop)
        case "kill-backend":
            return Deed(deeds.kill)
    return Parked(deeds.parking(hit.entry), outlasts_stop=hit.action.name in SILENT)


def flip(hit: Hit, data: list[memoryview], length: int) -> int | None:
    """Turn one bit of the first `length` bytes of some buffers; which byte it was, None if there is no such."""
    at = hit.place % length if hit.action.byte is None and length else hit.action.byte or 0
    if at >= length:
        return None
    bit = hit.action.bit if hit.action.bit is not None else (hit.place >> 29) & 7
    rest = at
    for view in data:
        if rest < len(view):
            view[rest] ^= 1 << bit
            return at
        rest -= len(view)
    return None
