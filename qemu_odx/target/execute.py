"""Where plans meet disks: performs what a handler planned and answers the task.

Imports the ports, `plan`, `wire/scsi`. Reads and writes go through the unit's `disk/dispatch.DiskQueue`; copies and
other slow work run on a worker. The token copy itself is in `target/copying.py`.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from qemu_odx.target.plan import GOOD, Data, Deferred, OnDisk, ReadBlocks, StartCopy, WaitFor, WriteBlocks
from qemu_odx.target.port import Reply
from qemu_odx.wire.scsi import sense
from qemu_odx.wire.scsi.sense import Sense, Status

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from qemu_odx.target.plan import Answer, Plan
    from qemu_odx.target.port import Task
    from qemu_odx.target.target import Target

    Finish = Callable[[Reply], None]


def perform(plan: Plan, task: Task, target: Target, finish: Finish) -> None:
    """Do what the plan says; `finish` is called exactly once, now or later."""
    match plan:
        case Data() | Sense() | Status():
            finish(reply_with(plan, task))
        case ReadBlocks():
            _read(plan, task, target, finish)
        case WriteBlocks():
            _write(plan, task, target, finish)
        case OnDisk():
            _run(plan, task, target, finish)
        case StartCopy():
            target.manager.start(plan, task, target, lambda answer: finish(reply_with(answer, task)))
        case WaitFor():
            plan.operation.when_over.append(lambda: finish(reply_with(GOOD, task)))
        case Deferred():
            plan.begin(lambda answer: finish(reply_with(answer, task)))


def reply_with(answer: Answer, task: Task) -> Reply:
    """A reply with data, sense or a bare status."""
    if isinstance(answer, Data):
        written = scatter(answer.data, task.data_in)
        return Reply(
            Status.GOOD,
            data_in_length=written,
            data_out_length=task.taken,
            overrun=len(answer.data) - written,
        )
    if isinstance(answer, Sense):
        return Reply(Status.CHECK_CONDITION, answer.fixed(), data_out_length=task.taken)
    return Reply(answer, data_out_length=task.taken)


def _run(plan: OnDisk, task: Task, target: Target, finish: Finish) -> None:
    unit = target.units[task.lun]
    disk, stable = unit.disk, plan.stable or (plan.writes and not unit.mode.write_cache)

    def work() -> Answer:
        answer = plan.work(disk)
        if stable:
            disk.flush()
        return answer

    target.runner.run(work, lambda result: finish(reply_with(_answer(result, writing=plan.writes), task)))


def _answer(result: Answer | BaseException, *, writing: bool) -> Answer:
    """The answer of a worker; an error of the host becomes sense."""
    if isinstance(result, OSError):
        return sense_for(result.errno or errno.EIO, writing=writing)
    if isinstance(result, BaseException):
        return sense.INTERNAL_FAILURE
    return result


def sense_for(error: int, *, writing: bool) -> Sense:
    """Sense for an errno of the host."""
    if error in {errno.ENOSPC, errno.EDQUOT}:
        return sense.SPACE_ALLOCATION_FAILED
    return sense.WRITE_ERROR if writing else sense.READ_ERROR


def sense_as_data(value: Sense, allocation: int) -> Data:
    """Sense data as the parameter data of REQUEST SENSE."""
    return Data(value.fixed()[:allocation])


def scatter(data: bytes, views: Sequence[memoryview]) -> int:
    """Copy bytes into buffers; how many fitted."""
    at = 0
    for view in views:
        part = data[at : at + len(view)]
        view[: len(part)] = part
        at += len(part)
        if at == len(data):
            break
    return at


def trim(views: Sequence[memoryview], length: int) -> list[memoryview]:
    """The first `length` bytes of some buffers, as views."""
    kept = []
    for view in views:
        if length <= 0:
            break
        kept.append(view[:length] if len(view) > length else view)
        length -= len(kept[-1])
    return kept


def _read(plan: ReadBlocks, task: Task, target: Target, finish: Finish) -> None:
    views = trim(task.data_in, plan.length)
    room = sum(len(view) for view in views)

    def ended(error: int) -> None:
        if error:
            finish(reply_with(sense_for(error, writing=False), task))
        else:
            finish(Reply(Status.GOOD, data_in_length=room, overrun=plan.length - room))

    target.units[task.lun].io.read(plan.offset, views, ended)


def _write(plan: WriteBlocks, task: Task, target: Target, finish: Finish) -> None:
    views = trim(task.data_out, plan.length)
    if sum(len(view) for view in views) < plan.length:
        # Less data than the CDB says: nothing is written, the front door reports the overrun.
        finish(Reply(Status.GOOD, data_out_length=plan.length))
        return
    unit = target.units[task.lun]

    def ended(error: int) -> None:
        if error:
            finish(reply_with(sense_for(error, writing=True), task))
        else:
            finish(Reply(Status.GOOD, data_out_length=plan.length))

    def written(error: int) -> None:
        if error or not (plan.stable or not unit.mode.write_cache):
            ended(error)
        else:
            unit.io.flush(ended)

    unit.io.write(plan.offset, views, written)
