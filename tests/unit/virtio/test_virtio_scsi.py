"""virtio-scsi: requests become tasks, replies become responses; task management, events, nexuses."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from qemu_odx.tap.gate import Gate
from qemu_odx.target.port import Reply
from qemu_odx.testing.driver import DriverQueue, Piece, Request
from qemu_odx.virtio.scsi import ScsiDevice
from qemu_odx.wire.virtio import scsi as wire
from qemu_odx.wire.virtio.scsi import Control, Event, Response, TaskManagement

if TYPE_CHECKING:
    from collections.abc import Callable

    from qemu_odx.target.port import Task
    from qemu_odx.testing.ram import GuestRam

_LUN0 = wire.encode_lun(0, 0)
_TUR = bytes(16)
_SENSE = bytes.fromhex("700005000000000a00000000240000c00001")


class FakeTarget:
    """A target with LUNs 0 and 3 that notes what it is asked and answers what the test says."""

    def __init__(self) -> None:
        self.gate = Gate()
        self.reply: Reply | None = Reply(0)
        self.tasks: list[Task] = []
        self.asked: list[tuple[object, ...]] = []
        self.data_in = b""

    def luns(self) -> tuple[int, ...]:
        """Two units."""
        return (0, 3)

    def disk_name(self, lun: int) -> str:
        """Of one of them."""
        return f"d{lun}"

    def submit(self, task: Task) -> None:
        """Answer at once, unless `reply` is None."""
        self.tasks.append(task)
        if self.reply is not None:
            self.finish(self.reply)

    def finish(self, reply: Reply) -> None:
        """End the oldest task."""
        task = self.tasks[0] if self.reply is None else self.tasks[-1]
        at = 0
        for view in task.data_in:
            piece = self.data_in[at : at + len(view)]
            view[: len(piece)] = piece
            at += len(piece)
        if self.reply is None:
            del self.tasks[0]
        task.done(reply)

    def abort_task(self, nexus: object, lun: int, tag: int, over: Callable[[bool], None]) -> None:
        """Ends everything that waits, as the others do."""
        self._end("abort_task", nexus, lun, tag)
        over(True)

    def abort_task_set(self, nexus: object, lun: int, over: Callable[[], None]) -> None:
        """See `abort_task`."""
        self._end("abort_task_set", nexus, lun)
        over()

    def clear_task_set(self, lun: int, over: Callable[[], None]) -> None:
        """See `abort_task`."""
        self._end("clear_task_set", lun)
        over()

    def reset_lun(self, lun: int, over: Callable[[bool], None]) -> None:
        """See `abort_task`."""
        self._end("reset_lun", lun)
        over(True)

    def nexus_loss(self, nexus: object, over: Callable[[], None]) -> None:
        """See `abort_task`."""
        self._end("nexus_loss", nexus)
        over()

    def query_task(self, nexus: object, lun: int, tag: int) -> bool:
        """Tag 7 is there."""
        self.asked.append(("query_task", nexus, lun, tag))
        return tag == 7

    def plain_access(self, nexus: object, lun: int) -> None:
        """Every command is to be submitted."""

    def query_task_set(self, nexus: object, lun: int) -> bool:
        """LUN 3 has tasks."""
        self.asked.append(("query_task_set", nexus, lun))
        return lun == 3

    def _end(self, *asked: object) -> None:
        self.asked.append(asked)
        if self.reply is None:
            while self.tasks:
                self.finish(Reply(0, aborted=True))


class Bench:
    """A device with its control queue, event queue and two request queues."""

    def __init__(self, ram: GuestRam) -> None:
        self.target = FakeTarget()
        self.nexuses: list[object] = []
        self.device = ScsiDevice(self.target, 2, new_nexus=self._nexus)
        self.device.set_features(self.device.features)
        self.queues = [DriverQueue(ram, 16, kick=self._kicker(n)) for n in range(4)]
        for index, queue in enumerate(self.queues):
            self.device.start_queue(index, queue.ring(ram.memory()))
        self.control, self.events, self.requests, self.others = self.queues

    def _nexus(self) -> object:
        self.nexuses.append(object())
        return self.nexuses[-1]

    def _kicker(self, index: int) -> Callable[[], None]:
        return lambda: self.device.kick(index)

    def command(
        self, cdb: bytes = _TUR, out: bytes = b"", in_length: int = 0, lun: bytes = _LUN0, tag: int = 1
    ) -> Request:
        """Post a command in the usual layout; its completion is read if it is there."""
        header = wire.COMMAND.pack(lun, tag, 0, 0, 0, cdb)
        request = self.requests.submit(
            header + out, wire.RESPONSE_SIZE + in_length, cuts_out=[51], cuts_in=[108]
        )
        self.requests.completions()
        return request

    def manage(self, subtype: int, lun: bytes = _LUN0, tag: int = 0) -> int:
        """A task management function's response."""
        body = wire.TMF.pack(Control.TMF, subtype, lun, tag)
        return self.control.execute(body, 1).data_in[0]


@pytest.fixture
def bench(ram: GuestRam) -> Bench:
    """A started device."""
    return Bench(ram)


def _response(request: Request) -> tuple[int, int, int, int, bytes]:
    """Response code, status, residual, sense length, sense."""
    length, residual, qualifier, status, response, sense = wire.RESPONSE.unpack_from(request.data_in)
    assert qualifier == 0
    return response, status, residual, length, sense


# -- commands --------------------------------------------------------------------------------------


def test_task(bench: Bench) -> None:
    """The target gets nexus, LUN, tag, a 16-byte CDB, and the buffers behind request and response."""
    request = bench.command(
        bytes(range(32)), b"parameters", lun=wire.encode_lun(0, 3), tag=0x1122334455667788
    )
    (task,) = bench.target.tasks
    assert (task.nexus, task.lun, task.tag) == (bench.nexuses[0], 3, 0x1122334455667788)
    assert task.cdb == bytes(range(16))
    assert task.data_in == []
    assert request.written == wire.RESPONSE_SIZE


def test_long_cdb(bench: Bench) -> None:
    """A variable-length command keeps its 32 bytes."""
    bench.command(b"\x7f" + bytes(31))
    assert bench.target.tasks[0].cdb == b"\x7f" + bytes(31)


def test_data_in(bench: Bench) -> None:
    """Data follow the response; the length counts both, the residual what stayed empty."""
    bench.target.data_in = b"inquiry data"
    bench.target.reply = Reply(0, data_in_length=12)
    request = bench.command(in_length=20)
    assert request.written == 108 + 12
    assert request.data_in[108:] == b"inquiry data" + bytes(8)
    assert _response(request)[:3] == (Response.OK, 0, 8)


@pytest.mark.parametrize("cuts_out", [(), (1, 50), (52,), (51, 51, 55)])
@pytest.mark.parametrize("cuts_in", [(), (1, 107), (109,), (108, 108, 110)])
def test_any_layout(bench: Bench, cuts_out: tuple[int, ...], cuts_in: tuple[int, ...]) -> None:
    """Request, data-out, response and data-in may be cut anywhere."""
    header = wire.COMMAND.pack(_LUN0, 1, 0, 0, 0, b"\x12" + bytes(15))
    bench.target.data_in = b"abcdef"
    bench.target.reply = Reply(0, data_in_length=6)
    request = bench.requests.submit(
        header, 114, cuts_out=[cut for cut in cuts_out if cut <= 51], cuts_in=cuts_in
    )
    bench.requests.completions()
    assert request.data_in[108:] == b"abcdef"
    bench.target.reply = None
    bench.requests.submit(
        header + b"abcdef", 108, cuts_out=cuts_out, cuts_in=[cut for cut in cuts_in if cut <= 108]
    )
    assert b"".join(bench.target.tasks[-1].data_out) == b"abcdef"


def test_sense(bench: Bench) -> None:
    """CHECK CONDITION travels as response OK with status, sense and its length."""
    bench.target.reply = Reply(2, _SENSE)
    response, status, _, length, sense = _response(bench.command())
    assert (response, status, length) == (Response.OK, 2, len(_SENSE))
    assert sense[:length] == _SENSE
    assert not any(sense[length:])


def test_long_sense(bench: Bench) -> None:
    """Sense is cut to what the response holds."""
    bench.target.reply = Reply(2, bytes(range(120)))
    _, _, _, length, sense = _response(bench.command())
    assert (length, sense) == (96, bytes(range(96)))


def test_response_waits_for_the_command(bench: Bench, ram: GuestRam) -> None:
    """Until the command has ended its response buffer is untouched."""
    bench.target.reply = None
    request = bench.command()
    response = next(piece for piece in request.pieces if piece.writable)
    assert ram.read(response.gpa, 108) == bytes(108)


@pytest.mark.parametrize(
    ("reply", "residual", "response"),
    [
        (Reply(0, data_out_length=10), 0, Response.OK),
        (Reply(0, data_out_length=4), 6, Response.OK),
        (Reply(0, data_out_length=0), 10, Response.OK),
        (Reply(0, data_out_length=11), 0, Response.OVERRUN),
        (Reply(2, _SENSE, data_out_length=11), 0, Response.OK),
    ],
)
def test_residual_of_data_out(bench: Bench, reply: Reply, residual: int, response: Response) -> None:
    """What a command did not ask for is left over; asking for more than there is is an overrun."""
    bench.target.reply = reply
    assert _response(bench.command(b"\x2a", b"0123456789"))[::2][:2] == (response, residual)


def test_overrun_of_data_in(bench: Bench) -> None:
    """Data that did not fit."""
    bench.target.reply = Reply(0, data_in_length=4, overrun=3)
    assert _response(bench.command(in_length=4))[:3] == (Response.OVERRUN, 0, 0)


@pytest.mark.parametrize(("status", "residual"), [(0, 0), (2, 6)])
def test_token_commands_have_no_residual(bench: Bench, status: int, residual: int) -> None:
    """Windows takes a residual of a successful POPULATE TOKEN as failure."""
    bench.target.reply = Reply(status, data_out_length=4)
    assert _response(bench.command(b"\x83\x10", b"0123456789"))[2] == residual


def test_bidirectional(bench: Bench) -> None:
    """Data in both directions need INOUT, which is not offered."""
    assert _response(bench.command(out=b"x", in_length=1))[0] == Response.FAILURE
    assert bench.target.tasks == []


@pytest.mark.parametrize(
    "lun", ["0105400000000000", "0001400000000000", "0100800000000000", "ffffffffffffffff"]
)
def test_no_such_target(bench: Bench, lun: str) -> None:
    """Another target, or an address of no known form."""
    assert _response(bench.command(lun=bytes.fromhex(lun)))[0] == Response.BAD_TARGET
    assert bench.target.tasks == []


@pytest.mark.parametrize("lun", ["0100400500000000", "0100000500000000"])
def test_missing_unit_is_the_targets_business(bench: Bench, lun: str) -> None:
    """A LUN that does not exist still answers INQUIRY and REPORT LUNS: the target gets the command."""
    bench.command(lun=bytes.fromhex(lun))
    assert bench.target.tasks[0].lun == 5


def test_well_known_unit(bench: Bench) -> None:
    """REPORT LUNS to its own well-known unit is answered, nothing else is there."""
    bench.command(b"\xa0" + bytes(15), lun=wire.REPORT_LUNS_UNIT)
    assert [task.lun for task in bench.target.tasks] == [0]
    assert _response(bench.command(b"\x12", lun=wire.REPORT_LUNS_UNIT))[0] == Response.BAD_TARGET


# -- malformed -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("out", "in_length", "written"), [(50, 108, 108), (0, 108, 108), (51, 107, 0), (51, 0, 0)]
)
def test_malformed(bench: Bench, out: int, in_length: int, written: int) -> None:
    """A cut request is FAILURE, a response that does not fit is completed with length 0."""
    request = bench.requests.execute(wire.COMMAND.pack(_LUN0, 1, 0, 0, 0, _TUR)[:out], in_length)
    assert request.written == written
    if written:
        assert _response(request)[0] == Response.FAILURE
    assert bench.target.tasks == []


@pytest.mark.parametrize(("response_there", "written"), [(True, 108), (False, 0)])
def test_bad_buffer(bench: Bench, ram: GuestRam, response_there: bool, written: int) -> None:
    """A buffer outside guest memory is FAILURE if the response can be written."""
    header, response = ram.allocate(51), ram.allocate(108)
    ram.write(header, wire.COMMAND.pack(_LUN0, 1, 0, 0, 0, _TUR))
    place = Piece(response if response_there else 1 << 60, 108, writable=True)
    bench.requests.post([Piece(header, 51), place, Piece(1 << 61, 512, writable=True)])
    bench.requests.publish()
    assert bench.requests.take_used()[1] == written
    assert ram.read(response, 12)[11] == (Response.FAILURE if response_there else 0)
    assert bench.target.tasks == []


def test_cdb_is_a_copy(bench: Bench, ram: GuestRam) -> None:
    """A CDB changed after it was taken has no effect."""
    bench.target.reply = None
    request = bench.command(b"\x12\x34")
    ram.write(request.pieces[0].gpa, b"\xff" * 51)
    assert bench.target.tasks[0].cdb[:2] == b"\x12\x34"


# -- task management -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("subtype", "asked"),
    [
        (TaskManagement.ABORT_TASK, ("abort_task", 3, 9)),
        (TaskManagement.ABORT_TASK_SET, ("abort_task_set", 3)),
        (TaskManagement.CLEAR_TASK_SET, ("clear_task_set", 3)),
        (TaskManagement.I_T_NEXUS_RESET, ("nexus_loss",)),
        (TaskManagement.LOGICAL_UNIT_RESET, ("reset_lun", 3)),
    ],
)
def test_task_management(bench: Bench, subtype: TaskManagement, asked: tuple[object, ...]) -> None:
    """Each function reaches the target, with the nexus where it counts."""
    assert bench.manage(subtype, wire.encode_lun(0, 3), 9) == Response.OK
    (got,) = bench.target.asked
    assert tuple(part for part in got if part is not bench.nexuses[0]) == asked
    assert (bench.nexuses[0] in got) == (subtype in (0, 1, 4))


@pytest.mark.parametrize(
    ("subtype", "lun", "tag", "response"),
    [
        (TaskManagement.QUERY_TASK, 0, 7, Response.FUNCTION_SUCCEEDED),
        (TaskManagement.QUERY_TASK, 0, 8, Response.OK),
        (TaskManagement.QUERY_TASK_SET, 3, 0, Response.FUNCTION_SUCCEEDED),
        (TaskManagement.QUERY_TASK_SET, 0, 0, Response.OK),
        (TaskManagement.CLEAR_ACA, 0, 0, Response.FUNCTION_REJECTED),
        (99, 0, 0, Response.FUNCTION_REJECTED),
        (TaskManagement.LOGICAL_UNIT_RESET, 5, 0, Response.INCORRECT_LUN),
        (TaskManagement.I_T_NEXUS_RESET, 5, 0, Response.OK),
    ],
)
def test_task_management_answers(bench: Bench, subtype: int, lun: int, tag: int, response: Response) -> None:
    """Queries say whether a task is there; what does not exist is refused."""
    assert bench.manage(subtype, wire.encode_lun(0, lun), tag) == response


def test_task_management_of_another_target(bench: Bench) -> None:
    """There is one target."""
    assert (
        bench.manage(TaskManagement.LOGICAL_UNIT_RESET, bytes.fromhex("0105400000000000"))
        == Response.BAD_TARGET
    )


def test_windows_reset(bench: Bench) -> None:
    """What Windows sends after a time-out: LOGICAL UNIT RESET to target 0, LUN 0, in its LUN form."""
    assert bench.manage(TaskManagement.LOGICAL_UNIT_RESET, bytes.fromhex("0100000000000000")) == Response.OK


@pytest.mark.parametrize(
    ("subtype", "response"),
    [
        (TaskManagement.ABORT_TASK, Response.ABORTED),
        (TaskManagement.ABORT_TASK_SET, Response.ABORTED),
        (TaskManagement.LOGICAL_UNIT_RESET, Response.RESET),
        (TaskManagement.I_T_NEXUS_RESET, Response.RESET),
    ],
)
def test_hit_commands_come_first(bench: Bench, subtype: TaskManagement, response: Response) -> None:
    """When the function's answer is visible, every command it ended is, with the right response."""
    bench.target.reply = None
    request = bench.command(tag=5)
    seen: list[int] = []
    control = bench.control.ring(
        bench.control.ram.memory(), call=lambda: seen.append(bench.requests.used_pending())
    )
    bench.device.stop_queue(0, lambda _: None)
    bench.device.start_queue(0, control)
    assert bench.manage(subtype, tag=5) == Response.OK
    assert seen == [1]
    bench.requests.completions()
    assert _response(request)[:2] == (response, 0)


def test_answer_in_a_batch_of_commands(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also when the function ends while the queue of its commands is being drained."""
    bench.target.reply = None
    victim = bench.command(tag=5)
    pending: list[int] = []

    def end_both(_task: Task) -> None:
        bench.target.finish(Reply(0, aborted=True))
        bench.control.submit(wire.TMF.pack(Control.TMF, TaskManagement.ABORT_TASK, _LUN0, 5), 1)
        pending.append(bench.requests.used_pending())

    monkeypatch.setattr(bench.target, "submit", end_both)
    bench.command(tag=6)
    assert victim.written == 108
    assert pending == [1]


@pytest.mark.parametrize("kind", [Control.AN_QUERY, Control.AN_SUBSCRIBE])
def test_notifications_asked_for(bench: Bench, kind: Control) -> None:
    """No asynchronous notification is supported: none of the events asked for is granted."""
    body = kind.to_bytes(4, "little") + _LUN0 + b"\x7e\0\0\0"
    assert bench.control.execute(body, 5).data_in == bytes(5)


@pytest.mark.parametrize(
    ("out", "in_length", "written"),
    [(b"\0\0\0\0", 1, 1), (b"\x09\0\0\0" + bytes(20), 1, 1), (b"", 1, 0), (bytes(24), 0, 0)],
)
def test_malformed_control(bench: Bench, out: bytes, in_length: int, written: int) -> None:
    """Cut or unknown control requests fail, as far as there is room to say so."""
    request = bench.control.execute(out, in_length)
    assert request.written == written
    if written:
        assert request.data_in == bytes([Response.FAILURE])


# -- events ----------------------------------------------------------------------------------------


def _post_buffers(bench: Bench, count: int, length: int = 16) -> list[Request]:
    return [bench.events.submit(b"", length) for _ in range(count)]


def test_event(bench: Bench) -> None:
    """A capacity change reaches the driver in the next buffer."""
    first, _ = _post_buffers(bench, 2)
    assert bench.device.notify(3, Event.PARAM_CHANGE, wire.param_change(0x2A, 0x09))
    assert bench.events.completions() == [first]
    assert first.data_in == wire.EVENT.pack(3, wire.encode_lun(0, 3), 0x092A)
    assert first.written == 16


def test_missed_event(bench: Bench) -> None:
    """Without a buffer the driver is told, with the next one, that it missed something."""
    assert not bench.device.notify(0, Event.PARAM_CHANGE, 0)
    first, second = _post_buffers(bench, 2)
    assert bench.events.completions() == [first]
    assert wire.EVENT.unpack(first.data_in) == (wire.EVENTS_MISSED, bytes(8), 0)
    bench.device.notify(0, Event.TRANSPORT_RESET, 1)
    bench.events.completions()
    assert wire.EVENT.unpack(second.data_in)[0] == Event.TRANSPORT_RESET


def test_event_buffer_too_small(bench: Bench) -> None:
    """A buffer that cannot hold an event is given back, the next one is used."""
    (small,) = _post_buffers(bench, 1, 15)
    (good,) = _post_buffers(bench, 1)
    assert bench.device.notify(0, Event.PARAM_CHANGE, 0)
    assert bench.events.completions() == [small, good]
    assert (small.written, good.written) == (0, 16)


@pytest.mark.parametrize(
    ("acked", "event"), [(wire.F_CHANGE, Event.TRANSPORT_RESET), (wire.F_HOTPLUG, Event.PARAM_CHANGE)]
)
def test_event_not_wanted(bench: Bench, acked: int, event: Event) -> None:
    """Events that the driver did not acknowledge are not sent."""
    _post_buffers(bench, 1)
    bench.device.set_features(acked)
    assert not bench.device.notify(0, event, 0)
    assert bench.events.used_pending() == 0


def test_event_queue_stops_with_buffers(bench: Bench) -> None:
    """Buffers that wait for events do not hold up a stop, and serve after the next start."""
    _post_buffers(bench, 2)
    stopped: list[int] = []
    bench.device.stop_queue(1, stopped.append)
    assert stopped == [0]
    assert not bench.device.notify(0, Event.PARAM_CHANGE, 0)
    bench.device.start_queue(1, bench.events.ring(bench.events.ram.memory()))
    (done,) = bench.events.completions()
    assert wire.EVENT.unpack(done.data_in)[0] == wire.EVENTS_MISSED


# -- the device ------------------------------------------------------------------------------------


def test_new_nexus_for_each_driver(bench: Bench) -> None:
    """A reset ends the nexus; the next command comes over another one."""
    bench.command()
    bench.device.reset()
    bench.command()
    assert bench.target.asked == [("nexus_loss", bench.nexuses[0])]
    assert [task.nexus for task in bench.target.tasks] == bench.nexuses


def test_disconnected(bench: Bench) -> None:
    """So does a front end that goes away."""
    bench.device.disconnected()
    assert bench.target.asked == [("nexus_loss", bench.nexuses[0])]


def test_unoffered_features(bench: Bench) -> None:
    """QEMU acknowledges bits that nobody offered."""
    bench.device.set_features(0x1_4000_0004)
    assert _response(bench.command())[0] == Response.OK


def test_shape(bench: Bench) -> None:
    """Control and event queue count; the configuration is QEMU's."""
    assert bench.device.queue_count == 4
    assert bench.device.config() is None  # type: ignore[func-returns-value]
    with pytest.raises(ValueError, match="has none"):
        bench.device.write_config(0, b"\0")


def test_stop_waits_for_the_target(bench: Bench) -> None:
    """A request queue stops when the target has answered."""
    bench.target.reply = None
    bench.command()
    stopped: list[int] = []
    bench.device.stop_queue(2, stopped.append)
    assert stopped == []
    bench.target.finish(Reply(0))
    assert stopped == [1]
