"""Copy operations by list identifier: what runs, what came of it, and who may ask.

Imports `wire/scsi` and `tokens/limits`. Sans-IO: the clock is handed in. One 32-bit space of list identifiers
per I_T nexus, shared by the 8-bit ones (SPC-4 5.17.4.2). The life of an operation is the table `_NEXT`.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from enum import Enum, IntEnum
from typing import TYPE_CHECKING, Protocol

from qemu_odx.wire.scsi.token_lists import BLOCKS_UNITS, DELAY_WHEN_DONE, CopyStatus

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

    from qemu_odx.tokens.journal import OperationJournal
    from qemu_odx.wire.scsi.sense import Sense

POLL_DELAY_MS = 500
"""ESTIMATED STATUS UPDATE DELAY while a copy runs."""
RETENTION = 600.0
"""Seconds for which the result of a copy with a 32-bit list identifier is kept."""
RETENTION_LID1 = 5.0
"""The same for 8-bit list identifiers: clients use the same few again and must not meet old results."""


class OperationStatus(IntEnum):
    """COPY OPERATION STATUS (SPC-4 6.24)."""

    DONE = 0x01
    ERROR = 0x02
    PARTIAL = 0x03
    FOREGROUND = 0x11
    BACKGROUND = 0x12
    TERMINATED = 0x60


class Event(Enum):
    """What ends an operation."""

    COMPLETE = "complete"
    CUT_SHORT = "cut short"
    FAIL = "fail"
    ABORT = "abort"


_RUNNING = (OperationStatus.FOREGROUND, OperationStatus.BACKGROUND)
_NEXT: dict[Event, OperationStatus] = {
    Event.COMPLETE: OperationStatus.DONE,
    Event.CUT_SHORT: OperationStatus.PARTIAL,
    Event.FAIL: OperationStatus.ERROR,
    Event.ABORT: OperationStatus.TERMINATED,
}


@dataclass(slots=True, eq=False)
class Operation:
    """One copy operation.

    Attributes:
        nexus: the I_T nexus that started it.
        list_identifier: LIST IDENTIFIER.
        lun: the logical unit it was sent to.
        service_action: of the command.
        status: where it stands.
        count: TRANSFER COUNT so far, in `units`. Written by the worker that copies, read by everyone.
        disks: names of the disks that it reads or writes.
        token: the 512 bytes that POPULATE TOKEN made.
        abort: set to stop it at its next step.
        keep: False for EXTENDED COPY lists that want no result held.
        number: tells it from all others of the copy manager; set when it begins.
        began: clock time of its beginning.
        total: bytes that it is to write.
        done: bytes that it has written. Written by the worker that copies.
        before: bytes that a predecessor in another process had written. Written by the worker that copies.
        stamp: tells the request apart from all others of its nexus, also in another process; None: nothing does.
        command: CDB and parameter list, for a copy that has to begin again without its initiator.
        answer: how the command was answered: sense data, empty for GOOD.
        aborted_by: the stamp of the request that told it to stop.
        uses: identifier of the token that it copies from.
        source: name of a disk and number of a noted snapshot of it that the copy cannot do without.
        note: names its note in a journal.
    """

    nexus: Hashable
    list_identifier: int
    lun: int
    service_action: int
    status: OperationStatus
    units: int = BLOCKS_UNITS
    count: int = 0
    counter: int = 0
    segments: int = 0
    completion: int = 0
    sense: Sense | None = None
    token: bytes | None = None
    abort: bool = False
    keep: bool = True
    forget_at: float = float("inf")
    lid1: bool = False
    stamp: bytes | None = None
    command: tuple[bytes, bytes] = (b"", b"")
    answer: bytes = b""
    aborted_by: bytes | None = None
    uses: int | None = None
    source: tuple[str, int] | None = None
    note: int = 0
    disks: frozenset[Hashable] = frozenset()
    when_over: list[Callable[[], None]] = field(default_factory=list)
    number: int = 0
    began: float = 0.0
    total: int = 0
    done: int = 0
    before: int = 0

    @property
    def running(self) -> bool:
        """True until it has ended."""
        return self.status in _RUNNING

    def end(self, event: Event, sense: Sense | None = None, completion: int = 0) -> None:
        """Move to the final status that `event` leads to. Only a running operation can end."""
        assert self.running, f"copy operation {self.list_identifier} ended twice"  # noqa: S101 - our own bug
        self.status = _NEXT[event]
        self.sense = sense
        self.completion = completion

    def report(self) -> CopyStatus:
        """The values of RECEIVE COPY STATUS(LID4) and RECEIVE ROD TOKEN INFORMATION."""
        self.counter += 1
        return CopyStatus(
            service_action=self.service_action,
            status=self.status,
            counter=self.counter,
            delay=POLL_DELAY_MS if self.running else DELAY_WHEN_DONE,
            completion=self.completion,
            sense=self.sense.fixed() if self.sense else b"",
            units=self.units,
            count=0 if self.running and self.service_action == 0x10 else self.count,
            segments=self.segments,
        )


class Observer(Protocol):
    """Who wants to know of copies that begin and end."""

    def began(self, operation: Operation) -> None:
        """It runs from now on."""

    def ended(self, operation: Operation) -> None:
        """It is over; its status and count are final."""


@dataclass(slots=True)
class OperationTable:
    """The copy operations of a copy manager, by I_T nexus and list identifier.

    Attributes:
        observers: told of beginnings and ends.
    """

    clock: Callable[[], float]
    results_per_nexus: int
    observers: list[Observer] = field(default_factory=list)
    _begun: int = 0
    journal: OperationJournal | None = None
    _by_nexus: dict[Hashable, OrderedDict[int, Operation]] = field(default_factory=dict)
    _running: dict[Hashable, set[Operation]] = field(default_factory=dict)

    def active(self, nexus: Hashable, list_identifier: int) -> Operation | None:
        """The running operation with this list identifier."""
        mine = self._by_nexus.get(nexus)
        found = mine.get(list_identifier) if mine else None
        return found if found is not None and found.running else None

    def find(self, nexus: Hashable, list_identifier: int) -> Operation | None:
        """The running operation, or the result still kept."""
        mine = self._by_nexus.get(nexus)
        found = mine.get(list_identifier) if mine else None
        if mine and found is not None and found.forget_at <= self.clock():
            self._forget(mine, found)
            return None
        return found

    def running(self, nexus: Hashable) -> set[Operation]:
        """The operations of a nexus that have not ended."""
        return set(self._running.get(nexus, ()))

    def touching(self, disk: Hashable) -> list[Operation]:
        """The operations of all nexuses that have not ended and read or write a disk."""
        return [item for active in self._running.values() for item in active if disk in item.disks]

    def all_running(self) -> list[Operation]:
        """The operations of all nexuses that have not ended, in the order of their beginning."""
        return sorted(
            (item for active in self._running.values() for item in active), key=lambda item: item.number
        )

    def begin(self, operation: Operation) -> None:
        """Enter an operation; an old result with its list identifier is dropped (SPC-4 5.17.4.2)."""
        self._begun += 1
        operation.number, operation.began = self._begun, self.clock()
        mine = self._by_nexus.setdefault(operation.nexus, OrderedDict())
        mine.pop(operation.list_identifier, None)
        mine[operation.list_identifier] = operation
        self._running.setdefault(operation.nexus, set()).add(operation)
        if self.journal:
            self.journal.begun(operation)
        self._make_room(mine)
        for observer in self.observers:
            observer.began(operation)

    def told(self, operation: Operation) -> None:
        """The count of an operation is about to be told to its initiator."""
        if self.journal and operation.running:
            self.journal.progressed(operation)

    def stop(self, operation: Operation, stamp: bytes | None = None) -> None:
        """Tell an operation to stop at its next step; `stamp` is of the request that asked for it."""
        operation.abort = True
        operation.aborted_by = stamp
        if self.journal and operation.running:
            self.journal.stopping(operation)

    def restore(self, operation: Operation) -> None:
        """A result that a predecessor kept. Before all else."""
        self._by_nexus.setdefault(operation.nexus, OrderedDict())[operation.list_identifier] = operation

    def finished(self, operation: Operation) -> None:
        """The operation has ended: keep its result for a while, or drop it if nobody may ask."""
        active = self._running[operation.nexus]
        active.discard(operation)
        if not active:
            del self._running[operation.nexus]
        mine = self._by_nexus.get(operation.nexus, OrderedDict())
        if mine.get(operation.list_identifier) is operation:
            if operation.keep:
                operation.forget_at = self.clock() + (RETENTION_LID1 if operation.lid1 else RETENTION)
            else:
                del mine[operation.list_identifier]
        for observer in self.observers:
            observer.ended(operation)
        if self.journal:
            self.journal.ended(operation)
        callbacks, operation.when_over = operation.when_over, []
        for callback in callbacks:
            callback()

    def drop(self, operation: Operation) -> None:
        """Forget a finished operation's result."""
        mine = self._by_nexus.get(operation.nexus, OrderedDict())
        if not operation.running and mine.get(operation.list_identifier) is operation:
            self._forget(mine, operation)

    def drop_results(self, nexus: Hashable | None = None, lun: int | None = None) -> None:
        """Forget results, of one nexus or one LUN or all; nobody finds running operations any more either."""
        for key in [nexus] if nexus is not None else list(self._by_nexus):
            mine = self._by_nexus.get(key, OrderedDict())
            if self.journal:
                self.journal.results_dropped(key, lun)
            for item in list(mine.values()):
                if lun is None or item.lun == lun:
                    del mine[item.list_identifier]
            if not mine:
                self._by_nexus.pop(key, None)

    def _make_room(self, mine: OrderedDict[int, Operation]) -> None:
        if len(mine) <= self.results_per_nexus:
            return
        oldest = next((item for item in mine.values() if not item.running), None)
        if oldest is not None:
            self._forget(mine, oldest)

    def _forget(self, mine: OrderedDict[int, Operation], operation: Operation) -> None:
        del mine[operation.list_identifier]
        if self.journal:
            self.journal.dropped(operation)
