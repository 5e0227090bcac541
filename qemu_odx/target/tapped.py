"""SCSI commands while somebody watches: each passes the gate of its export, and what was decided there is done.

Imports `tap/`, the port, `plan`, `execute`, `wire/scsi`. `target/target.py` comes here only if the gate has taps.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Final

from qemu_odx.tap.exchange import Kind, Outcome
from qemu_odx.target import execute
from qemu_odx.target.plan import GOOD, ReadBlocks, WriteBlocks
from qemu_odx.target.port import Reply
from qemu_odx.target.request import gather
from qemu_odx.wire.scsi import opcodes, spans
from qemu_odx.wire.scsi.sense import Status

if TYPE_CHECKING:
    from collections.abc import Callable

    from qemu_odx.tap.decision import Answer
    from qemu_odx.tap.exchange import Exchange
    from qemu_odx.target.plan import Plan
    from qemu_odx.target.port import Task
    from qemu_odx.target.target import Target
    from qemu_odx.target.tasks import Entry
    from qemu_odx.wire.scsi.spans import Span

_LIST: Final = 64 << 10
"""Bytes of a parameter list that are looked at for its blocks; its length field has 16 bits."""


def run(target: Target, entry: Entry) -> None:
    """Let a task through the gate; it is in the task set already and leaves it when it ends."""
    gate = target.gate
    entry.course = gate.run(_exchange(target, entry.task), ScsiJob(target, entry))


class ScsiJob:
    """A command at the gate; see `tap/gate.Job`."""

    def __init__(self, target: Target, entry: Entry) -> None:
        self._target = target
        self._entry = entry

    def execute(self, blocks: int | None, done: Callable[[Reply], None]) -> None:
        """Check and do it now, or its first blocks."""
        task, target = self._entry.task, self._target
        task.limit = blocks
        plan = target.plan(task)
        if blocks is not None and task.lun in target.units:
            plan = _cut(plan, blocks * target.units[task.lun].block_size)
        execute.perform(plan, task, target, done)

    def answered(self, answer: Answer | None, result: Reply | None) -> Reply:
        """Status and sense replaced; what moved stays what it was."""
        status, sense = (answer.status, answer.sense) if answer else (int(Status.GOOD), b"")
        if result is None:
            task = self._entry.task
            as_if = 0 if status else sum(map(len, task.data_out))
            return Reply(status, sense, data_out_length=as_if)
        return replace(result, status=status, sense=sense)

    def given_up(self) -> Reply:
        """As aborted."""
        return Reply(Status.TASK_ABORTED, aborted=True)

    def outcome(self, result: Reply, executed: bool, ended: float) -> Outcome:
        """The reply, in a tap's words."""
        status, sense, length = result.status, result.sense, result.data_in_length
        aborted = result.aborted or self._entry.aborted
        return Outcome(status, sense, length, result.data_out_length, aborted, executed, ended)

    def finish(self, result: Reply) -> None:
        """Answer the task."""
        self._entry.finish(result)


def _exchange(target: Target, task: Task) -> Exchange:
    operation = opcodes.find(task.cdb)
    exchange = target.gate.exchange(Kind.SCSI, operation.name if operation else f"OPCODE {task.cdb[0]:02X}h")
    exchange.cdb = task.cdb[: operation.length] if operation else task.cdb
    exchange.origin, exchange.lun, exchange.tag, exchange.nexus = task.origin, task.lun, task.tag, task.nexus
    exchange.data_out, exchange.data_in = task.data_out, task.data_in
    exchange.find_spans = partial(_spans, task)
    unit = target.units.get(task.lun)
    if unit is not None:
        exchange.disk, exchange.block_size = unit.disk.name, unit.block_size
    return exchange


def _spans(task: Task) -> tuple[Span, ...]:
    listed = spans.in_parameter_list(opcodes.find(task.cdb))
    return spans.spans(task.cdb, gather(task.data_out, _LIST) if listed else b"")


def _cut(plan: Plan, length: int) -> Plan:
    """A plan for the first bytes of the blocks, if it moves blocks between the disk and the buffers."""
    match plan:
        case ReadBlocks() | WriteBlocks():
            return replace(plan, length=min(length, plan.length)) if length else GOOD
    return plan
