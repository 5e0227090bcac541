"""A SCSI target device: finds the logical unit and the handler, keeps the task set, attends to resets.

Implements `target/port.ScsiTarget`. Order of checks: logical unit, operation code, CONTROL byte, unit attention,
reservations, then the handler; its plan goes to `target/execute.py`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from qemu_odx.disk.dispatch import DiskQueue
from qemu_odx.tap.gate import Gate
from qemu_odx.target import execute, shared_disk, tapped
from qemu_odx.target.commands import buffer
from qemu_odx.target.commands.inquiry import absent_unit
from qemu_odx.target.commands.report import report_luns_of
from qemu_odx.target.commands.table import HANDLERS
from qemu_odx.target.conflicts import wanted
from qemu_odx.target.lun import LogicalUnit
from qemu_odx.target.plan import StartCopy
from qemu_odx.target.port import PlainAccess, Task, initiator_port
from qemu_odx.target.request import Request
from qemu_odx.target.tasks import TaskSet
from qemu_odx.wire.scsi import opcodes, sense
from qemu_odx.wire.scsi.cdb import control_naca
from qemu_odx.wire.scsi.sense import Status

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from qemu_odx.disk.port import Disk, Runner
    from qemu_odx.target.manager import CopyManager
    from qemu_odx.target.plan import Plan
    from qemu_odx.target.port import Nexus, Reply
    from qemu_odx.tokens.operations import Operation as Copy
    from qemu_odx.wire.scsi.opcodes import Operation
    from qemu_odx.wire.scsi.sense import Sense

_UNNOTED = (
    "MODE SELECT",
    "PERSISTENT RESERVE OUT",
    "RESERVE",
    "START STOP UNIT",
    "PREVENT ALLOW MEDIUM REMOVAL",
)
"""How the names of commands begin whose effect ends with the process."""
NO_ATTENTION = frozenset({"INQUIRY", "REPORT LUNS", "REQUEST SENSE"})
"""Commands that neither report nor clear a unit attention (SAM-5 5.14)."""


@dataclass(slots=True)
class Target:
    """Some logical units that share one copy manager.

    Args:
        units: logical units by number.
        manager: the copy manager; all targets of the process may share it.
        runner: does slow work.
        power_on_attention: a nexus seen for the first time meets unit attention 29/00 on each unit.
        group: of the targets whose initiators may use each other's tokens.
        gate: where commands pass while somebody watches.
        port: names the initiator port of its nexuses.
    """

    units: dict[int, LogicalUnit]
    manager: CopyManager
    runner: Runner
    power_on_attention: bool = True
    group: str = ""
    tasks: TaskSet = field(default_factory=TaskSet)
    gate: Gate = field(default_factory=Gate)
    port: str = ""
    _known: set[Nexus] = field(default_factory=set)

    @classmethod
    def on(
        cls,
        disks: Mapping[int, Disk],
        manager: CopyManager,
        runner: Runner,
        group: str = "",
        gate: Gate | None = None,
    ) -> Target:
        """A target of a group with a logical unit on each disk, keyed by logical unit number."""
        units = {
            number: LogicalUnit.on(number, disk, DiskQueue(disk, runner)) for number, disk in disks.items()
        }
        target = cls(units, manager, runner, group=group, gate=gate or Gate())
        manager.join(target)
        return target

    def luns(self) -> tuple[int, ...]:
        """The logical unit numbers that exist, ascending."""
        return tuple(sorted(self.units))

    def luns_on(self, disk_name: str) -> tuple[int, ...]:
        """Those of them that are on a disk."""
        return tuple(lun for lun in self.luns() if self.units[lun].disk.name == disk_name)

    def disk_name(self, lun: int) -> str:
        """The disk of a logical unit; "" if there is no such unit."""
        return self.units[lun].disk.name if lun in self.units else ""

    def nexuses(self) -> tuple[Nexus, ...]:
        """The I_T nexuses that have sent a command."""
        return tuple(self._known)

    def quiet(self) -> Iterator[Nexus]:
        """The nexuses that have nothing to be told, if all logical units are as they were made."""
        units = self.units.values()
        if all(unit.as_made for unit in units):
            yield from (nexus for nexus in self._known if not any(u.needs_attention(nexus) for u in units))

    def welcome(self, nexus: Nexus) -> None:
        """A nexus of a predecessor of this process, which need not hear of it."""
        self._known.add(nexus)

    def go_on(self, copy: Copy) -> None:
        """A background copy of a predecessor of this process goes on, without its initiator."""
        cdb, parameters = copy.command
        task = Task(copy.nexus, copy.lun, cdb, [memoryview(parameters)], [], _nobody_waits, stamp=copy.stamp)
        known, unit = opcodes.find(cdb), self.units.get(copy.lun)
        if known and unit and self.supports(known):
            plan = HANDLERS[known.name](Request(task, known, unit, self))
            if isinstance(plan, StartCopy):
                self.manager.start(plan, task, self, lambda _answer: None)
        self.manager.recovery.replaced(task, self.manager.operations)

    def supports(self, operation: Operation) -> bool:
        """True if the command is implemented and not switched off by the policy."""
        if operation.name == "EXTENDED COPY(LID4)" and not self.manager.policy.extended_copy_lid4:
            return False
        if operation.name in buffer.NAMES and self.manager.guest_control is None:
            return False
        return operation.name in HANDLERS

    def submit(self, task: Task) -> None:
        """Execute a task; its `done` is called exactly once."""
        self._greet(task.nexus)
        entry = self.tasks.enter(task)
        if self.gate.taps:
            tapped.run(self, entry)
        else:
            execute.perform(self.plan(task), task, self, entry.finish)

    def plain_access(self, nexus: Nexus, lun: int) -> PlainAccess | None:
        """The disk, if no attention is pending, nothing is reserved and the unit is ready."""
        unit = self.units.get(lun)
        if self.gate.taps or unit is None or nexus not in self._known or unit.needs_attention(nexus):
            return None
        if unit.not_ready() is not None or unit.reservations.any:
            return None
        return PlainAccess(unit.disk, writable=unit.mode.write_cache and unit.write_protection() is None)

    def _greet(self, nexus: Nexus) -> None:
        if nexus in self._known:
            return
        for old in self._known & self.manager.recovery.settled:  # a port has one life at a time
            if initiator_port(old) == initiator_port(nexus):
                self._known.discard(old)
        self._known.add(nexus)
        if self.power_on_attention:
            for unit in self.units.values():
                unit.attend(nexus, sense.RESET)

    def plan(self, task: Task) -> Plan:
        """What is to be done for a task, after every check."""
        answer = self.manager.recovery.answer(task)
        if answer is not None:
            return answer
        unit = self.units.get(task.lun)
        if unit is None:
            return self._absent(task)
        done = self.manager.swaps.answer(task)
        if done is not None:
            return done
        operation = opcodes.find(task.cdb)
        if operation is None or not self.supports(operation):
            return self._unknown(task.cdb)
        if control_naca(task.cdb, operation.length):
            return sense.INVALID_FIELD_IN_CDB.at(operation.length - 1, in_cdb=True, bit=2)
        if operation.name not in NO_ATTENTION:
            pending = unit.attention(task.nexus)
            if pending is not None:
                return pending
        if unit.reservations.conflicts(initiator_port(task.nexus), wanted(operation, task.cdb)):
            return Status.RESERVATION_CONFLICT
        if operation.name.startswith(_UNNOTED):
            self.manager.unsettle()
        return HANDLERS[operation.name](Request(task, operation, unit, self))

    def _absent(self, task: Task) -> Plan:
        """A logical unit that is not there still answers three commands (SPC-4 6.6.1, 6.33, 6.39)."""
        if task.cdb[0] == 0x12:
            return absent_unit(task.cdb)
        if task.cdb[0] == 0xA0:
            return report_luns_of(task.cdb, self.luns())
        if task.cdb[0] == 0x03:
            return execute.sense_as_data(sense.LUN_NOT_SUPPORTED, task.cdb[4])
        return sense.LUN_NOT_SUPPORTED

    def _unknown(self, cdb: bytes) -> Sense:
        """Operation code unknown, or known with another service action."""
        rows = (row for row in opcodes.OPERATIONS if row.opcode == cdb[0])
        if any(self.supports(row) for row in rows):
            return sense.INVALID_FIELD_IN_CDB.at(1, in_cdb=True)
        return sense.INVALID_OPCODE.at(0, in_cdb=True)

    # Task management: each calls `over` once the tasks it hits have ended.

    def abort_task(self, nexus: Nexus, lun: int, tag: int, over: Callable[[bool], None]) -> None:
        """ABORT TASK; `over(True)` if the task was there."""
        hit = self.tasks.select(nexus, lun, tag)
        self.tasks.abort(hit, lambda: over(bool(hit)))

    def abort_task_set(self, nexus: Nexus, lun: int, over: Callable[[], None]) -> None:
        """ABORT TASK SET: the tasks of one nexus on a logical unit."""
        self.tasks.abort(self.tasks.select(nexus, lun), over)

    def clear_task_set(self, lun: int, over: Callable[[], None]) -> None:
        """CLEAR TASK SET: the tasks of every nexus on a logical unit."""
        self.tasks.abort(self.tasks.select(None, lun), over)

    def reset_lun(self, lun: int, over: Callable[[bool], None]) -> None:
        """LOGICAL UNIT RESET: tasks and copies end, results go, tokens stay; `over(False)` if no such unit."""
        unit = self.units.get(lun)
        if unit is None:
            over(False)
            return
        for nexus in self._known:
            unit.attend(nexus, sense.RESET)
        unit.mode.reset()
        unit.stopped = False
        unit.prevented.clear()
        unit.reservations.drop_reserve()
        copies = self.manager.end_copies(self, lun)
        shared_disk.end_all(self.manager, self.tasks.select(None, lun), copies, lambda: over(True))

    def nexus_loss(self, nexus: Nexus, over: Callable[[], None]) -> None:
        """The nexus is gone: its tasks end, its results go; background copies and registrations stay."""
        self.manager.forget(nexus)
        for unit in self.units.values():
            unit.forget(nexus)
            unit.reservations.drop_reserve(initiator_port(nexus))
        self._known.discard(nexus)
        self.tasks.abort(self.tasks.select(nexus), over)

    # Changes by whoever runs the server, all on the event loop.

    def resized(self, disk: Disk) -> None:
        """A disk has been resized (after `Disk.resize`, once for all targets): 2A/09, tokens of what is gone end."""
        shared_disk.resized(self.manager, disk)

    def add(self, lun: int, disk: Disk) -> None:
        """A new logical unit, whose number no other one has: the others report 3F/0E, it meets all with 29/00."""
        unit = LogicalUnit.on(lun, disk, DiskQueue(disk, self.runner))
        self.manager.take_in(unit)
        for nexus in self._known:
            unit.attend(nexus, sense.RESET)
            for other in self.units.values():
                other.attend(nexus, sense.LUNS_CHANGED)
        self.units[lun] = unit

    def remove(self, lun: int, over: Callable[[bool], None]) -> None:
        """Take a logical unit away: 25/00 from now on; `over(True)` once its tasks and copies have ended.

        With the last unit on a disk its tokens are cancelled, and copies from them end too: after `over` nothing
        uses the disk any more. Other units report 3F/0E.
        """
        unit = self.units.pop(lun, None)
        if unit is None:
            over(False)
            return
        for other in self.units.values():
            for nexus in self._known:
                other.attend(nexus, sense.LUNS_CHANGED)
        shared_disk.removed(self.manager, self, unit, lambda: over(True))

    def query_task(self, nexus: Nexus, lun: int, tag: int) -> bool:
        """QUERY TASK."""
        return bool(self.tasks.select(nexus, lun, tag))

    def query_task_set(self, nexus: Nexus, lun: int) -> bool:
        """QUERY TASK SET."""
        return bool(self.tasks.select(nexus, lun))


def _nobody_waits(_reply: Reply) -> None:
    """The command was answered long ago."""
