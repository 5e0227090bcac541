"""The tap of the faults at one export: asks the book about each request and lets the gate carry out what it says.

Imports `faults/`, `tap/`, `wire` and the other modules here. Put on a gate by `faults.py`, only while rules for
front doors are armed.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from qemu_odx.faults.event import Event, Level
from qemu_odx.server.faulting.decide import Verdict, flip, judge
from qemu_odx.server.faulting.holds import Parked
from qemu_odx.tap.exchange import Kind
from qemu_odx.wire.mailbox import WINDOW
from qemu_odx.wire.scsi.buffers import is_guest_control

if TYPE_CHECKING:
    from collections.abc import Callable

    from qemu_odx.faults.book import FaultBook
    from qemu_odx.server.faulting.decide import Deeds
    from qemu_odx.server.faulting.door import Door
    from qemu_odx.tap.decision import Decision
    from qemu_odx.tap.exchange import Exchange, Outcome
    from qemu_odx.wire.scsi.sense import Sense

_LEVELS: Final = {Kind.SCSI: Level.SCSI, Kind.BLK: Level.BLK, Kind.CONTROL: Level.CONTROL}
_ABORTS: Final = frozenset({"ABORT TASK", "ABORT TASK SET", "CLEAR TASK SET"})
_RESETS: Final = frozenset({"LOGICAL UNIT RESET", "I T NEXUS RESET"})


@dataclass(slots=True, eq=False)
class FaultTap:
    """Implements `tap/gate.Tap`.

    Args:
        book: the rules.
        door: the export.
        deeds: what actions need.
        refused: told of a SCSI command that ends with sense data although it was never executed.
    """

    book: FaultBook
    door: Door
    deeds: Deeds
    refused: Callable[[Exchange, Sense], None]
    _verdicts: dict[Exchange, Verdict] = field(default_factory=dict)

    def taken(self, exchange: Exchange) -> Decision | None:
        """Ask the book; and keep quiet who asks about what is not to be answered."""
        if exchange.kind is Kind.REFUSED or self._is_control(exchange):
            return None
        hits = self.book.hits(self._event(exchange))
        verdict = judge(exchange, hits, self.deeds)
        self._silence(exchange, verdict)
        if not hits and not verdict.before:
            return None
        self._verdicts[exchange] = verdict
        return verdict.decision()

    def ended(self, exchange: Exchange, outcome: Outcome) -> None:
        """Turn bits in what the guest gets, keep why it was refused; let nothing hold it any longer."""
        verdict = self._verdicts.pop(exchange, None)
        if verdict is None:
            return
        if verdict.refused is not None and not outcome.aborted:
            self.refused(exchange, verdict.refused)
        for hit in verdict.flips:
            flip(hit, list(exchange.data_in), outcome.data_in)
        verdict.end()
        for parked in verdict.waiting:
            self.deeds.soon(parked.go_on)  # when it has left the task set

    def _event(self, exchange: Exchange) -> Event:
        unit = exchange.block_size

        def runs() -> list[tuple[int, int]]:
            return [(span.lba * unit, span.blocks * unit) for span in exchange.spans]

        return Event(
            _LEVELS[exchange.kind],
            exchange.operation,
            exchange.disk,
            self.door.names,
            exchange.cdb,
            self.door.block_size(exchange.disk),
            runs,
        )

    def _is_control(self, exchange: Exchange) -> bool:
        """True for what arms and releases rules, and for every page that goes into a mailbox: its command is seen."""
        if exchange.kind is Kind.SCSI:
            return is_guest_control(exchange.cdb)
        mailbox = self.door.mailbox
        if exchange.kind is not Kind.BLK or mailbox is None or exchange.lba is None:
            return False
        start = exchange.lba * exchange.block_size
        return mailbox <= start < mailbox + WINDOW

    def _silence(self, exchange: Exchange, verdict: Verdict) -> None:
        """A task management function that hits a request which is never to be answered gets no answer either."""
        if exchange.kind is not Kind.CONTROL:
            return
        for hit in self._verdicts.values():
            if hit.silent is None or not self._reaches(exchange, hit.exchange):
                continue
            entry, action = hit.silent
            if exchange.operation in _ABORTS or (action == "never-answer" and exchange.operation in _RESETS):
                parked = Parked(self.deeds.parking(entry), outlasts_stop=True)
                verdict.before.append(parked)
                hit.waiting.append(parked)
                return

    def _reaches(self, function: Exchange, command: Exchange) -> bool:
        if function.operation == "ABORT TASK":
            return (function.lun, function.tag) == (command.lun, command.tag)
        return function.operation == "I T NEXUS RESET" or function.lun == command.lun
