"""What taps may decide, at both devices: hold, execute a part or nothing, answer otherwise; and how all that ends."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import pytest

from qemu_odx.tap.decision import NEVER, Answer, Decision, Delay, Stall
from qemu_odx.tap.exchange import Kind, Origin
from qemu_odx.testing.tap_bench import OLD, Rule, TapBench, answer, response
from qemu_odx.wire.scsi import sense
from qemu_odx.wire.scsi.sense import Status
from qemu_odx.wire.scsi.spans import Span
from qemu_odx.wire.scsi.token_lists import Range, TokenInformation
from qemu_odx.wire.virtio.blk import RequestType
from qemu_odx.wire.virtio.blk import Status as BlkStatus
from qemu_odx.wire.virtio.scsi import Response, TaskManagement

if TYPE_CHECKING:
    from collections.abc import Callable

    from qemu_odx.tap.decision import Hold
    from qemu_odx.tap.exchange import Exchange, Outcome

NEW = b"\xee" * 8 * 512
WRITE_8 = bytes.fromhex("8a00 0000000000000000 00000008 0000")
READ_8 = bytes.fromhex("8800 0000000000000000 00000008 0000")
BUSY = Answer(Status.BUSY)
MEDIUM = Answer(Status.CHECK_CONDITION, sense.READ_ERROR.told(3).fixed())


def rule(bench: TapBench, operation: str, decision: Decision | None) -> Rule:
    """A rule at both gates."""
    made = Rule(operation, decision)
    bench.scsi.add(made)
    bench.blk.add(made)
    return made


def test_an_answer_in_place_of_a_command(bench: TapBench) -> None:
    """Status and sense as decided; the disk never hears of it."""
    watch = rule(bench, "WRITE(16)", Decision(execute=False, answer=MEDIUM))
    got = answer(bench.send(WRITE_8, NEW))
    assert (got.status, got.sense) == (Status.CHECK_CONDITION, sense.READ_ERROR.told(3).fixed())
    assert bench.content(0, 8) == OLD[: 8 * 512]
    assert not watch.last.executed
    assert watch.took[-1].started is None


def test_an_answer_in_place_of_a_request(bench: TapBench) -> None:
    """The same for virtio-blk, with its status byte."""
    rule(bench, "OUT", Decision(execute=False, answer=Answer(BlkStatus.UNSUPP)))
    request = bench.post(RequestType.OUT, 0, NEW)
    assert request.data_in == bytes([BlkStatus.UNSUPP])
    assert bench.content(0, 8) == OLD[: 8 * 512]


def test_a_lost_write(bench: TapBench) -> None:
    """Not executed, and no answer decided: it ends as if all were well."""
    rule(bench, "WRITE(16)", Decision(execute=False))
    rule(bench, "OUT", Decision(execute=False))
    assert answer(bench.send(WRITE_8, NEW)).good
    assert bench.post(RequestType.OUT, 0, NEW).data_in == bytes([BlkStatus.OK])
    assert bench.content(0, 8) == OLD[: 8 * 512]


def test_executed_and_answered_otherwise(bench: TapBench) -> None:
    """The data are written; the initiator is told something else."""
    watch = rule(bench, "WRITE(16)", Decision(answer=BUSY))
    rule(bench, "OUT", Decision(answer=Answer(BlkStatus.IOERR)))
    assert answer(bench.send(WRITE_8, NEW)).status == Status.BUSY
    assert bench.content(0, 8) == NEW
    assert watch.last.executed
    assert bench.post(RequestType.OUT, 16, NEW).data_in == bytes([BlkStatus.IOERR])
    assert bench.content(16, 8) == NEW


@pytest.mark.parametrize("after", [False, True])
def test_delayed(bench: TapBench, *, after: bool) -> None:
    """Before: nothing has happened yet. After: it has, and nobody was told."""
    hold = Delay(2.0)
    decision = Decision(after=hold) if after else Decision(before=hold)
    watch = rule(bench, "WRITE(16)", decision)
    rule(bench, "OUT", decision)
    command, request = bench.send(WRITE_8, NEW), bench.post(RequestType.OUT, 16, NEW)
    bench.advance(1.9)
    bench.collect()
    assert command.written is None
    assert request.written is None
    assert (bench.content(0, 8) == NEW) is after
    assert (bench.content(16, 8) == NEW) is after
    bench.advance(0.1)
    bench.collect()
    assert answer(command).good
    assert request.data_in == bytes([BlkStatus.OK])
    assert bench.content(0, 8) == bench.content(16, 8) == NEW
    assert watch.ends[-1][1].ended - watch.took[-1].taken == pytest.approx(2.0)
    assert watch.took[-1].started == pytest.approx(0.0 if after else 2.0)


def test_stalled_until_released(bench: TapBench) -> None:
    """In the order in which they came; later ones are not held any more."""
    stall = Stall()
    watch = rule(bench, "WRITE(16)", Decision(before=stall))
    first, second = bench.send(WRITE_8, NEW, tag=1), bench.send(WRITE_8, NEW, tag=2)
    assert (first.written, second.written) == (None, None)
    stall.release()
    bench.collect()
    assert answer(first).good
    assert answer(second).good
    assert [exchange.tag for exchange, _ in watch.ends] == [1, 2]
    assert answer(bench.send(WRITE_8, NEW, tag=3)).good


@pytest.mark.parametrize("make_hold", [lambda: NEVER, Stall, lambda: Delay(60.0)])
@pytest.mark.parametrize("function", [TaskManagement.ABORT_TASK, TaskManagement.LOGICAL_UNIT_RESET])
@pytest.mark.parametrize("executed", [False, True])
def test_a_held_command_is_aborted(
    bench: TapBench, make_hold: Callable[[], Hold], function: TaskManagement, *, executed: bool
) -> None:
    """It ends before the function is answered, as aborted; what was not executed never is."""
    hold = make_hold()
    decision = Decision(after=hold) if executed else Decision(before=hold)
    watch = rule(bench, "WRITE(16)", decision)
    command = bench.send(WRITE_8, NEW, tag=7)
    assert command.written is None
    answered = bench.manage(function, tag=7)
    assert answered.data_in == bytes([Response.OK])
    expected = Response.ABORTED if function is TaskManagement.ABORT_TASK else Response.RESET
    assert response(command) == expected
    assert (bench.content(0, 8) == NEW) is executed
    aborted = next(outcome for exchange, outcome in watch.ends if exchange.tag == 7 and exchange.cdb)
    assert aborted.aborted
    assert aborted.executed is executed
    bench.advance(100)
    if isinstance(hold, Stall):
        hold.release()
    assert len([1 for exchange, _ in watch.ends if exchange.cdb]) == 1


@pytest.mark.parametrize("executed", [False, True])
def test_what_is_never_answered_ends_when_the_queue_stops(*, executed: bool) -> None:
    """Unexecuted as an error, executed with its own result; the teardown of the bench finds nothing left."""
    bench = TapBench()
    decision = Decision(after=NEVER) if executed else Decision(before=NEVER)
    rule(bench, "WRITE(16)", decision)
    rule(bench, "OUT", decision)
    command, request = bench.send(WRITE_8, NEW), bench.post(RequestType.OUT, 16, NEW)
    bench.advance(1e6)
    bench.collect()
    assert (command.written, request.written) == (None, None)
    for device, index in ((bench.scsi_device, 2), (bench.blk_device, 0)):
        stopped: list[int] = []
        device.stop_queue(index, stopped.append)
        assert stopped
        bench.collect()
        assert (bench.content(0 if index else 16, 8) == NEW) is executed
        queue = bench.commands if index else bench.requests
        device.start_queue(index, queue.ring(bench.ram.memory(), next_avail=stopped[0]))
    assert response(command) == (Response.OK if executed else Response.ABORTED)
    assert request.data_in == bytes([BlkStatus.OK if executed else BlkStatus.IOERR])
    bench.close()


@pytest.mark.parametrize("hold", [Stall(), Delay(60.0)])
def test_what_is_stalled_goes_on_when_the_queue_stops(hold: Hold) -> None:
    """As if its time had come, and only once."""
    bench = TapBench()
    watch = rule(bench, "OUT", Decision(before=hold))
    request = bench.post(RequestType.OUT, 16, NEW)
    stopped: list[int] = []
    bench.blk_device.stop_queue(0, stopped.append)
    bench.collect()
    assert request.data_in == bytes([BlkStatus.OK])
    assert bench.content(16, 8) == NEW
    bench.advance(100)
    assert len(watch.ends) == 1
    bench.blk_device.start_queue(0, bench.requests.ring(bench.ram.memory(), next_avail=stopped[0]))
    bench.close()


@pytest.mark.parametrize("blocks", [0, 3, 8, 9])
def test_only_a_prefix(bench: TapBench, blocks: int) -> None:
    """The first blocks are moved, the rest stay what they were; status as decided, or the request's own."""
    rule(bench, "WRITE(16)", Decision(blocks=blocks, answer=MEDIUM))
    for name in ("READ(16)", "IN", "OUT"):
        rule(bench, name, Decision(blocks=blocks))
    done = min(blocks, 8) * 512
    assert answer(bench.send(WRITE_8, NEW)).sense == MEDIUM.sense
    assert bench.content(0, 8) == NEW[:done] + OLD[done : 8 * 512]
    expected = bench.content(0, 8)[:done]
    got = answer(bench.send(READ_8, room=8 * 512), 8 * 512)
    assert (got.status, got.data) == (Status.GOOD, expected)
    request = bench.post(RequestType.IN, 0, room=8 * 512)
    assert request.written == (done if done < 8 * 512 else done + 1)
    assert request.data_in[:done] == expected
    assert request.data_in[-1] == BlkStatus.OK
    assert blocks >= 8 or request.data_in[done:-1] != bench.content(0, 8)[done:]
    assert bench.post(RequestType.OUT, 16, NEW).data_in == bytes([BlkStatus.OK])
    assert bench.content(16, 8) == NEW[:done] + OLD[16 * 512 :][done : 8 * 512]


def test_a_prefix_of_a_token_write(bench: TapBench) -> None:
    """As if the ROD were too short: the count is told, and RECEIVE ROD TOKEN INFORMATION says the same."""
    token = bench.initiator.token(0, [Range(0, 64)])
    watch = rule(bench, "WRITE USING TOKEN", Decision(blocks=10))
    done = bench.initiator.write_token(0, token, [Range(1000, 4), Range(2000, 16)], identifier=77)
    assert done.fault == (0xA, 0x0D, 0x04)
    assert done.full_sense is not None
    assert done.full_sense.information == 10
    assert TokenInformation.parse(bench.initiator.information(0, 77).data).status.count == 10
    assert bench.content(1000, 4) == OLD[: 4 * 512]
    assert bench.content(2000, 6) == OLD[4 * 512 : 10 * 512]
    assert bench.content(2006, 10) == OLD[2006 * 512 :][: 10 * 512]
    exchange = next(item for item in watch.took if item.operation == "WRITE USING TOKEN")
    assert exchange.spans == (Span(1000, 4), Span(2000, 16))


def test_taps_stack(bench: TapBench) -> None:
    """The first decision counts, everybody sees it, and one that has gone sees the end of what it saw taken."""
    stall = Stall()
    first, second = (
        rule(bench, "WRITE(16)", Decision(before=stall, note="one")),
        rule(bench, "WRITE(16)", Decision(answer=BUSY)),
    )
    command = bench.send(WRITE_8, NEW)
    bench.scsi.remove(first)
    assert bench.scsi.taps == (second,)
    stall.release()
    bench.collect()
    assert answer(command).good
    assert len(first.ends) == len(second.ends) == 1
    exchange = second.took[0]
    assert exchange.decision is not None
    assert exchange.decision.note == "one"
    assert answer(bench.send(WRITE_8, NEW)).status == Status.BUSY
    assert len(first.ends) == 1


def test_who_wants_to_be_last(bench: TapBench) -> None:
    """Sees what the others have done, also those who came later."""
    last, first, second = Rule(), Rule(), Rule()
    bench.scsi.add(last, last=True)
    bench.scsi.add(first)
    bench.scsi.add(second)
    assert bench.scsi.taps == (first, second, last)
    bench.scsi.remove(first)
    bench.scsi.add(first)
    assert bench.scsi.taps == (second, first, last)
    bench.scsi.remove(last)
    bench.scsi.add(last)
    assert bench.scsi.taps == (second, first, last)


class Broken:
    """A tap with a bug."""

    def taken(self, exchange: Exchange) -> Decision | None:
        """Fail."""
        raise RuntimeError(exchange.operation)

    def ended(self, exchange: Exchange, outcome: Outcome) -> None:
        """Fail."""
        raise RuntimeError(exchange.operation, outcome)


def test_a_tap_that_fails_decides_nothing(bench: TapBench, caplog: pytest.LogCaptureFixture) -> None:
    """The guest does not notice; the log does."""
    bench.scsi.add(Broken())
    bench.blk.add(Broken())
    with caplog.at_level(logging.ERROR):
        assert answer(bench.send(WRITE_8, NEW)).good
        assert bench.post(RequestType.OUT, 0, NEW).data_in == bytes([BlkStatus.OK])
    assert len(caplog.records) == 4


def test_what_an_exchange_tells(bench: TapBench) -> None:
    """Queue, descriptors, unit, blocks, buffers; also of what is no request and of task management."""
    watch = rule(bench, "", None)
    bench.send(WRITE_8, NEW, tag=5)
    bench.post(RequestType.IN, 16, room=4096)
    bench.manage(TaskManagement.LOGICAL_UNIT_RESET)
    bench.commands.submit(b"too short", 200)
    bench.requests.submit(b"too short", 1)
    command, request, function, *refused = watch.took
    assert (command.kind, command.operation, command.cdb) == (Kind.SCSI, "WRITE(16)", WRITE_8)
    assert command.origin is not None
    assert (command.origin.queue, sum(command.origin.out), command.origin.into) == (2, 51 + 4096, (108,))
    assert (command.export, command.disk, command.lun, command.tag) == ("s.sock", "d0", 0, 5)
    assert (command.lba, command.blocks, command.length) == (0, 8, 4096)
    assert (request.kind, request.operation, request.code, request.disk) == (Kind.BLK, "IN", 0, "d0")
    assert (request.lba, request.blocks, request.block_size) == (16, 8, 512)
    assert watch.data_in[1] == OLD[16 * 512 :][:4096]
    assert (function.kind, function.operation) == (Kind.CONTROL, "LOGICAL UNIT RESET")
    assert watch.ends[2][1].status == Response.OK
    assert [(item.kind, item.operation) for item in refused] == [
        (Kind.REFUSED, "no whole command"),
        (Kind.REFUSED, "no header or no status byte"),
    ]
    assert (
        refused[0].origin == Origin(2, refused[0].origin.head, (9,), (200,)) if refused[0].origin else False
    )


def test_task_management_can_be_disturbed(bench: TapBench) -> None:
    """Answered otherwise without being carried out, or never."""
    rule(bench, "LOGICAL UNIT RESET", Decision(execute=False, answer=Answer(Response.FUNCTION_REJECTED)))
    assert bench.manage(TaskManagement.LOGICAL_UNIT_RESET).data_in == bytes([Response.FUNCTION_REJECTED])
    assert bench.initiator.command(0, "00").good  # no attention: the unit was not reset
    rule(bench, "ABORT TASK SET", Decision(before=NEVER))
    assert bench.manage(TaskManagement.ABORT_TASK_SET).written is None


def test_a_held_command_of_a_lost_nexus_is_aborted(bench: TapBench) -> None:
    """As any other task of it."""
    watch = rule(bench, "WRITE(16)", Decision(before=NEVER))
    bench.send(WRITE_8, NEW)
    over: list[bool] = []
    bench.target.nexus_loss(watch.took[0].nexus, lambda: over.append(True))
    assert over
    assert watch.last.aborted
    assert bench.content(0, 8) == OLD[: 8 * 512]
