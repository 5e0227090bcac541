"""What a copy manager goes on with that a predecessor in another process left: answers, broken-off copies, nexuses.

Imports the ports, `plan`, `tokens`, `wire/scsi`. A front end that comes back sends the requests that were in flight
again; each has a stamp by which it is known. One that had ended is answered as it was, one that had begun goes on.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from qemu_odx.target.plan import GOOD
from qemu_odx.tokens.journal import OperationJournal, TokenJournal
from qemu_odx.tokens.operations import Event, OperationStatus
from qemu_odx.wire.scsi import sense
from qemu_odx.wire.scsi.sense import Status

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable
    from contextlib import AbstractContextManager

    from qemu_odx.disk.port import Snapshot
    from qemu_odx.target.plan import Answer
    from qemu_odx.target.port import Task
    from qemu_odx.target.swaps import SwapJournal
    from qemu_odx.tokens.operations import Operation, OperationTable

    Key = tuple[Hashable, bytes]
    """Nexus and stamp of a request."""


class Journal(TokenJournal["Snapshot"], OperationJournal, Protocol):
    """The journal of a copy manager. No method raises."""

    @property
    def swaps(self) -> SwapJournal:
        """The part for COMPARE AND WRITE."""

    def together(self) -> AbstractContextManager[None]:
        """What is noted inside is there as a whole or not at all. Give back no snapshot inside."""

    def settled(self, nexuses: Iterable[Hashable]) -> None:
        """These, and no others, have nothing to be told and have changed nothing that is not noted."""


@dataclass(frozen=True, slots=True)
class OldCopy:
    """A copy as a predecessor noted it.

    Attributes:
        operation: with what had been told of it; nothing runs for it.
        ended: it had ended.
        stopping: it had been told to stop.
        findable: its result may be asked for.
    """

    operation: Operation
    ended: bool
    stopping: bool
    findable: bool


@dataclass(slots=True)
class Recovery:
    """What was left and has not been asked for yet.

    Attributes:
        settled: nexuses that need not hear that there was a restart.
        background: copies that go on by themselves.
        snapshots: what such copies, and those that are sent again, cannot do without.
    """

    settled: frozenset[Hashable] = frozenset()
    background: list[Operation] = field(default_factory=list)
    snapshots: dict[tuple[str, int], Snapshot] = field(default_factory=dict)
    _answers: dict[Key, Answer] = field(default_factory=dict)
    _broken_off: dict[Key, Operation] = field(default_factory=dict)

    def take_in(self, old: OldCopy, operations: OperationTable) -> None:
        """A copy of before."""
        operation = old.operation
        ended = old.ended
        if not ended and old.stopping:
            operation.end(Event.ABORT, completion=Status.TASK_ABORTED)
            operation.answer = sense.COPY_CLEARED.fixed()
            ended = True
            if operations.journal:
                operations.journal.ended(operation)
        if ended:
            self._ended(operation, operations, findable=old.findable)
        elif operation.status is OperationStatus.BACKGROUND:
            self._note_answer(operation, operation.stamp, GOOD)
            self.background.append(operation)
            self._broken_off[_key(operation)] = operation
        elif operation.stamp is not None:
            self._broken_off[_key(operation)] = operation
        elif operations.journal:
            operations.journal.dropped(operation)  # nobody will send it again

    def answer(self, task: Task) -> Answer | None:
        """How a request of before was answered; it is told once."""
        return None if task.stamp is None else self._answers.pop((task.nexus, task.stamp), None)

    def broken_off(self, task: Task) -> Operation | None:
        """The copy that a request of before had begun."""
        return None if task.stamp is None else self._broken_off.get((task.nexus, task.stamp))

    def snapshot(self, task: Task) -> Snapshot | None:
        """What the copy that a request had begun was reading from; it is the caller's now."""
        old = self.broken_off(task)
        return self.snapshots.pop(old.source, None) if old and old.source else None

    def give_up(self) -> None:
        """Whoever has not come back by now does not."""
        for snapshot in self.snapshots.values():
            snapshot.release()
        self.snapshots.clear()
        self._answers.clear()
        self._broken_off.clear()

    def replaced(self, task: Task, operations: OperationTable) -> None:
        """A copy of before goes on, or cannot: what was noted of it is gone."""
        if task.stamp is None:
            return
        old = self._broken_off.pop((task.nexus, task.stamp), None)
        if old is not None and operations.journal:
            operations.journal.dropped(old)

    def _ended(self, operation: Operation, operations: OperationTable, *, findable: bool) -> None:
        if findable:
            operations.restore(operation)
        self._note_answer(operation, operation.stamp, sense.parse(operation.answer) or GOOD)
        self._note_answer(operation, operation.aborted_by, GOOD)

    def _note_answer(self, operation: Operation, stamp: bytes | None, answer: Answer) -> None:
        if stamp is not None:
            self._answers[operation.nexus, stamp] = answer


def _key(operation: Operation) -> Key:
    if operation.stamp is None:
        operation.stamp = b"note %d" % operation.note
    return operation.nexus, operation.stamp
