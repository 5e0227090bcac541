"""The copy manager: tokens, copy operations and the copies that run, shared by the targets of a process.

Imports `tokens`, the ports and `wire/scsi`. Handlers in `target/commands/` check and plan; `start` runs a plan's slow
part on a worker and settles it on the event loop.
"""

from __future__ import annotations

import contextlib
import secrets
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from qemu_odx.target.plan import GOOD
from qemu_odx.target.policy import NoResources, Policy
from qemu_odx.target.port import initiator_port
from qemu_odx.target.recovery import Recovery
from qemu_odx.target.reservations import Reservations
from qemu_odx.target.swaps import Swaps
from qemu_odx.tokens.limits import Quotas
from qemu_odx.tokens.operations import RETENTION, OperationStatus, OperationTable
from qemu_odx.tokens.registry import TokenRegistry
from qemu_odx.tokens.token import Fault
from qemu_odx.wire.scsi import sense

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterator

    from qemu_odx.disk.port import Disk, Runner, Snapshot
    from qemu_odx.target.lun import LogicalUnit
    from qemu_odx.target.plan import Answer, StartCopy
    from qemu_odx.target.port import GuestControl, Task
    from qemu_odx.target.recovery import Journal
    from qemu_odx.target.target import Target
    from qemu_odx.tokens.operations import Operation
    from qemu_odx.wire.scsi.sense import Sense


@dataclass(slots=True)
class CopyManager:
    """Everything that token copies of a process share.

    Args:
        runner: runs copies off the event loop.
        clock: seconds, monotonic; virtual in tests.
        random: secure random bytes.
        policy: named choices.
        quotas: what a nexus may hold.
        guest_control: what guests steer by WRITE BUFFER, None if they may steer nothing.
        journal: notes what a successor in another process goes on with; None: nothing outlives the process.

    Attributes:
        recovery: what a predecessor left.
        swaps: COMPARE AND WRITE, as it is noted.
    """

    runner: Runner
    clock: Callable[[], float] = time.monotonic
    random: Callable[[int], bytes] = secrets.token_bytes
    policy: Policy = field(default_factory=Policy)
    quotas: Quotas = field(default_factory=Quotas)
    guest_control: GuestControl | None = None
    journal: Journal | None = None
    tokens: TokenRegistry[Snapshot] = field(init=False)
    operations: OperationTable = field(init=False)
    targets: list[Target] = field(default_factory=list)
    recovery: Recovery = field(default_factory=Recovery)
    swaps: Swaps = field(init=False)
    _settled: frozenset[Hashable] = frozenset()
    _give_up_at: float = float("inf")
    _paused: set[Operation] | None = None
    _given_back: list[Snapshot] | None = None
    _reservations: dict[str, Reservations] = field(default_factory=dict)
    _places: dict[Operation, Target] = field(default_factory=dict)  # of the operations that run

    def __post_init__(self) -> None:
        self.tokens = TokenRegistry(
            self.clock, self.random, self.quotas, self._give_back, lambda snapshot: snapshot.lost
        )
        self.tokens.holder = initiator_port
        self.operations = OperationTable(self.clock, self.quotas.results)
        self.tokens.journal = self.operations.journal = self.journal
        self.swaps = Swaps(self.journal.swaps if self.journal else None)

    def join(self, target: Target) -> None:
        """A target uses this copy manager from now on."""
        self.targets.append(target)
        for unit in target.units.values():
            self.take_in(unit)

    def take_in(self, unit: LogicalUnit) -> None:
        """A logical unit of one of the targets shares what all have in common."""
        unit.reservations = self.reservations(unit.disk)
        unit.disturbed = self.unsettle

    def reservations(self, disk: Disk) -> Reservations:
        """Who may use a disk: one answer for all front doors to it."""
        return self._reservations.setdefault(disk.name, Reservations())

    def start(self, plan: StartCopy, task: Task, target: Target, finish: Callable[[Answer], None]) -> None:
        """Run a copy: in the foreground `finish` comes at its end, in the background at once."""
        operation = plan.operation
        operation.stamp, operation.command = task.stamp, (task.cdb, task.parameters)
        with self._noted_together():
            self.recovery.replaced(task, self.operations)
            self.operations.begin(operation)
        self._places[operation] = target
        if plan.immediate:
            finish(GOOD)
        else:
            for entry in target.tasks.select(task.nexus, task.lun):
                if entry.task is task:
                    entry.copy = operation

        def over(result: object) -> None:
            if self._paused and operation in self._paused:
                self.operations.told(operation)
                return
            del self._places[operation]
            with self._noted_together():
                answer = plan.settle(result)
                operation.answer = answer.fixed() if isinstance(answer, sense.Sense) else b""
                self.operations.finished(operation)
            if not plan.immediate:
                finish(answer)

        self.runner.run(plan.work, over)

    def no_token_resources(self) -> Sense:
        """The sense for "no room for a token", by policy."""
        if self.policy.no_resources is NoResources.STANDARD:
            return sense.NO_TOKEN_RESOURCES
        return sense.INSUFFICIENT_RESOURCES

    def too_busy(self, nexus: Hashable) -> bool:
        """True if the nexus already runs as many copies as its quota allows."""
        return len(self.operations.running(nexus)) >= self.quotas.copies_per_nexus

    def end_copies(self, target: Target, lun: int) -> list[Operation]:
        """A reset of a logical unit: its copies are told to stop, its results go (SPC-4 5.17.4); those copies.

        Also those whose nexus is gone already: a reset is for the unit.
        """
        ended = [item for item, place in self._places.items() if place is target and item.lun == lun]
        for nexus in target.nexuses():
            self.operations.drop_results(nexus, lun)
        for operation in ended:
            self.operations.stop(operation)
        return ended

    def forget(self, nexus: Hashable) -> None:
        """I_T nexus loss: results go, running copies go on, tokens stay (SPC-4 5.17.4)."""
        if self._paused is None:
            self.unsettle()
            self.recovery.settled -= {nexus}
            self.operations.drop_results(nexus)

    def go_on(self) -> None:
        """All targets are there: initiators of before are known again, background copies of before go on."""
        self._give_up_at = self.clock() + RETENTION
        self._settled = self.recovery.settled
        for target in self.targets:
            for nexus in self.recovery.settled:
                if initiator_port(nexus) == target.port:
                    target.welcome(nexus)
        copies, self.recovery.background = self.recovery.background, []
        for copy in copies:
            at = next((item for item in self.targets if item.port == initiator_port(copy.nexus)), None)
            if at is not None:
                at.go_on(copy)
            elif self.journal:
                self.journal.dropped(copy)

    @property
    def pausing(self) -> bool:
        """True once `pause` has been called to some effect."""
        return self._paused is not None

    def pause(self) -> None:
        """The process ends in an orderly way: if there is a journal, a successor goes on with what runs.

        From now on front ends that leave are expected to come back there.
        """
        if self.journal is None or self.pausing:
            return
        self._paused = {
            item for item in self._places if item.status is OperationStatus.BACKGROUND and not item.abort
        }
        for operation in self._paused:
            operation.abort = True

    def unsettle(self) -> None:
        """Something happens to initiators that no journal has: after a restart they are told that there was one."""
        if self._settled and self.journal:
            self._settled = frozenset()
            self.journal.settled(())

    def disk_removed(self, disk: Disk) -> None:
        """A disk is taken away: tokens made from it are cancelled, nobody is registered any more."""
        self._reservations.pop(disk.name, None)
        self.tokens.expire()
        self.tokens.kill_made_from(disk.name, Fault.CANCELLED)

    def tick(self) -> float | None:
        """End what has expired; the clock time at which to come again, None if nothing waits."""
        self.tokens.expire()
        return self.tokens.next_deadline()

    def settle(self) -> None:
        """Note the initiators that need not be told of a restart; to be called now and then."""
        if self.journal is None or self.pausing:
            return
        if self.clock() >= self._give_up_at:
            self._give_up_at = float("inf")
            self.recovery.give_up()
            self.swaps.give_up()
        self.swaps.settle()
        quiet = frozenset(nexus for target in self.targets for nexus in target.quiet())
        if quiet != self._settled:
            self._settled = quiet
            self.journal.settled(quiet)

    @contextlib.contextmanager
    def _noted_together(self) -> Iterator[None]:
        """What happens inside is noted as a whole; snapshots are given back after that: it frees their space."""
        if self.journal is None:
            yield
            return
        self._given_back = []
        with self.journal.together():
            yield
        snapshots, self._given_back = self._given_back, None
        for snapshot in snapshots:
            snapshot.release()

    def _give_back(self, snapshot: Snapshot) -> None:
        if self._given_back is None:
            snapshot.release()
        else:
            self._given_back.append(snapshot)
