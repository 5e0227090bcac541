"""The copy manager: tokens, copy operations and the copies that run, shared by the targets of a process.

Imports `tokens`, the ports and `wire/scsi`. Handlers in `target/commands/` check and plan; `start` runs a plan's slow
part on a worker and settles it on the event loop.
"""

from __future__ import annotations

import secrets
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from qemu_odx.target.plan import GOOD
from qemu_odx.target.policy import NoResources, Policy
from qemu_odx.target.reservations import Reservations
from qemu_odx.tokens.limits import Quotas
from qemu_odx.tokens.operations import OperationTable
from qemu_odx.tokens.registry import Fault, TokenRegistry
from qemu_odx.wire.scsi import sense

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

    from qemu_odx.disk.port import Disk, Runner, Snapshot
    from qemu_odx.target.plan import Answer, StartCopy
    from qemu_odx.target.port import GuestControl, Task
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
    """

    runner: Runner
    clock: Callable[[], float] = time.monotonic
    random: Callable[[int], bytes] = secrets.token_bytes
    policy: Policy = field(default_factory=Policy)
    quotas: Quotas = field(default_factory=Quotas)
    guest_control: GuestControl | None = None
    tokens: TokenRegistry[Snapshot] = field(init=False)
    operations: OperationTable = field(init=False)
    targets: list[Target] = field(default_factory=list)
    _reservations: dict[str, Reservations] = field(default_factory=dict)
    _places: dict[Operation, Target] = field(default_factory=dict)  # of the operations that run

    def __post_init__(self) -> None:
        self.tokens = TokenRegistry(self.clock, self.random, self.quotas, _release)
        self.operations = OperationTable(self.clock, self.quotas.results)

    def join(self, target: Target) -> None:
        """A target uses this copy manager from now on."""
        self.targets.append(target)
        for unit in target.units.values():
            unit.reservations = self.reservations(unit.disk)

    def reservations(self, disk: Disk) -> Reservations:
        """Who may use a disk: one answer for all front doors to it."""
        return self._reservations.setdefault(disk.name, Reservations())

    def start(self, plan: StartCopy, task: Task, target: Target, finish: Callable[[Answer], None]) -> None:
        """Run a copy: in the foreground `finish` comes at its end, in the background at once."""
        operation = plan.operation
        self.operations.begin(operation)
        self._places[operation] = target
        if plan.immediate:
            finish(GOOD)
        else:
            for entry in target.tasks.select(task.nexus, task.lun):
                if entry.task is task:
                    entry.copy = operation

        def over(result: object) -> None:
            answer = plan.settle(result)
            del self._places[operation]
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
            operation.abort = True
        return ended

    def forget(self, nexus: Hashable) -> None:
        """I_T nexus loss: results go, running copies go on, tokens stay (SPC-4 5.17.4)."""
        self.operations.drop_results(nexus)

    def disk_removed(self, disk: Disk) -> None:
        """A disk is taken away: tokens made from it are cancelled, nobody is registered any more."""
        self._reservations.pop(disk.name, None)
        self.tokens.expire()
        self.tokens.kill_made_from(disk.name, Fault.CANCELLED)

    def tick(self) -> float | None:
        """End what has expired; the clock time at which to come again, None if nothing waits."""
        self.tokens.expire()
        return self.tokens.next_deadline()


def _release(snapshot: Snapshot) -> None:
    snapshot.release()
