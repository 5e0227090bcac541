"""A virtio-scsi and a virtio-blk device on one disk, behind gates whose time is moved by hand: for tests of taps.

May import anything but `lab` and `cli`.

    bench = TapBench()
    bench.scsi.add(Rule("WRITE(16)", Decision(before=Delay(2.0))))
    request = bench.send(cdb, data)     # request.written is None: it is held
    bench.advance(2.0)
    bench.collect()
    answer(request).good
    bench.close()                       # checks that every queue stops and no task is left
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from qemu_odx.disk.memory import memory_disk
from qemu_odx.tap.gate import Gate
from qemu_odx.target.manager import CopyManager
from qemu_odx.target.target import Target
from qemu_odx.testing.clock import VirtualClock
from qemu_odx.testing.driver import DriverQueue
from qemu_odx.testing.initiator import Answer, Initiator
from qemu_odx.testing.ram import GuestRam
from qemu_odx.testing.runner import InlineRunner
from qemu_odx.virtio.blk import BlkDevice
from qemu_odx.virtio.scsi import ScsiDevice
from qemu_odx.wire.virtio import blk, scsi

if TYPE_CHECKING:
    from collections.abc import Callable

    from qemu_odx.tap.decision import Decision
    from qemu_odx.tap.exchange import Exchange, Outcome
    from qemu_odx.testing.driver import Request

BLOCKS = 4096
OLD = bytes(range(1, 252)) * 8400
"""What the disk holds first, cut to its size."""


class Rule:
    """A tap that decides the same about every exchange of an operation, and notes all."""

    def __init__(self, operation: str = "", decision: Decision | None = None) -> None:
        self.operation = operation
        self.decision = decision
        self.took: list[Exchange] = []
        self.ends: list[tuple[Exchange, Outcome]] = []
        self.data_in: list[bytes] = []

    def taken(self, exchange: Exchange) -> Decision | None:
        """See `Tap`."""
        self.took.append(exchange)
        return self.decision if exchange.operation == self.operation else None

    def ended(self, exchange: Exchange, outcome: Outcome) -> None:
        """See `Tap`."""
        self.ends.append((exchange, outcome))
        self.data_in.append(b"".join(exchange.data_in))

    @property
    def last(self) -> Outcome:
        """The newest end."""
        return self.ends[-1][1]


class TapBench:
    """Two devices; `scsi` and `blk` are their gates."""

    def __init__(self) -> None:
        self.ram = GuestRam(16 << 20)
        self.clock = VirtualClock()
        self.timers: list[tuple[float, Callable[[], None]]] = []
        self.disk = memory_disk("d0", BLOCKS * 512, 512)
        self.disk.write(0, [OLD[: BLOCKS * 512]])
        runner = InlineRunner()
        self.scsi, self.blk = (
            Gate(name, clock=self.clock, later=self._later) for name in ("s.sock", "b.sock")
        )
        manager = CopyManager(runner, clock=self.clock)
        self.target = Target.on({0: self.disk}, manager, runner, gate=self.scsi)
        self.scsi_device = ScsiDevice(self.target)
        self.blk_device = BlkDevice(self.disk, runner, gate=self.blk)
        self.blk_device.set_features(blk.F_FLUSH)
        self.control, _, self.commands = (self._queue(self.scsi_device, n) for n in range(3))
        self.requests = self._queue(self.blk_device, 0)
        self.initiator = Initiator(self._carry)
        self.initiator.command(0, "00")  # takes the unit attention of a new nexus

    def close(self) -> None:
        """Stop all queues: this must always come to an end."""
        stopped: list[int] = []
        for n in (2, 0):
            self.scsi_device.stop_queue(n, stopped.append)
        self.blk_device.stop_queue(0, stopped.append)
        self.scsi_device.disconnected()
        if len(stopped) != 3 or len(self.target.tasks):
            raise AssertionError(f"queues stopped: {len(stopped)} of 3, tasks left: {len(self.target.tasks)}")
        self.ram.close()
        self.disk.close()

    def advance(self, seconds: float) -> None:
        """Let time pass, and what was to be called meanwhile be called."""
        self.clock.advance(seconds)
        due = [callback for when, callback in self.timers if when <= self.clock.now]
        self.timers = [item for item in self.timers if item[0] > self.clock.now]
        for callback in due:
            callback()

    def send(self, cdb: bytes, data: bytes = b"", room: int = 0, tag: int = 1) -> Request:
        """Post a command; `written` of what is returned is None until `collect` finds it completed."""
        header = scsi.COMMAND.pack(scsi.encode_lun(0, 0), tag, 0, 0, 0, cdb.ljust(32, b"\0"))
        request = self.commands.submit(header + data, scsi.RESPONSE_SIZE + room)
        self.collect()
        return request

    def post(self, kind: int, sector: int, data: bytes = b"", room: int = 0) -> Request:
        """Post a virtio-blk request."""
        request = self.requests.submit(blk.HEADER.pack(kind, 0, sector) + data, room + 1)
        self.collect()
        return request

    def manage(self, subtype: scsi.TaskManagement, tag: int = 0) -> Request:
        """Post a task management function."""
        body = scsi.TMF.pack(scsi.Control.TMF, subtype, scsi.encode_lun(0, 0), tag)
        request = self.control.submit(body, 1)
        self.collect()
        return request

    def collect(self) -> None:
        """Read the completions of every queue."""
        for queue in (self.control, self.commands, self.requests):
            queue.completions()

    def content(self, block: int, blocks: int) -> bytes:
        """What the disk holds."""
        data = bytearray(blocks * 512)
        self.disk.read(block * 512, [memoryview(data)])
        return bytes(data)

    def _later(self, seconds: float, callback: Callable[[], None]) -> None:
        self.timers.append((self.clock.now + seconds, callback))

    def _queue(self, device: ScsiDevice | BlkDevice, index: int) -> DriverQueue:
        queue = DriverQueue(self.ram, 64, kick=lambda: device.kick(index))
        if (device, index) != (self.scsi_device, 1):
            device.start_queue(index, queue.ring(self.ram.memory()))
        return queue

    def _carry(self, lun: int, cdb: bytes, data_out: bytes) -> Answer:
        del lun
        room = 0 if data_out else 1 << 16
        request = self.send(cdb, data_out, room)
        return answer(request, room)


def answer(request: Request, room: int = 0) -> Answer:
    """The response to a command."""
    if request.written is None:
        raise AssertionError("the command is not completed")
    length, residual, _, status, response, sense = scsi.RESPONSE.unpack_from(request.data_in)
    if response != scsi.Response.OK:
        raise AssertionError(f"virtio-scsi response {scsi.Response(response).name}")
    return Answer(status, sense[:length], request.data_in[scsi.RESPONSE_SIZE :][: room - residual])


def response(request: Request) -> int:
    """The virtio response of a command."""
    return int(scsi.RESPONSE.unpack_from(request.data_in)[4])
