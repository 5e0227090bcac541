"""Two guests on one server's disks, all in one process, where nothing slow happens until the test says so.

The device, the target and the copy manager are the real ones; the guests are driver queues. Every job of a worker
waits to be run, every write of a disk can be interrupted in the middle.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from qemu_odx.disk.layers.layer import Layer
from qemu_odx.disk.memory import memory_disk
from qemu_odx.target.manager import CopyManager
from qemu_odx.target.target import Target
from qemu_odx.testing.clock import VirtualClock
from qemu_odx.testing.driver import DriverQueue
from qemu_odx.testing.initiator import Answer, Initiator
from qemu_odx.testing.ram import GuestRam
from qemu_odx.testing.runner import HeldRunner
from qemu_odx.virtio.scsi import ScsiDevice
from qemu_odx.wire.virtio import scsi as wire

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from qemu_odx.disk.file import FileDisk
    from qemu_odx.disk.port import Extent, Snapshot
    from qemu_odx.testing.driver import Request
    from qemu_odx.wire.virtio.scsi import TaskManagement

BLOCK, BLOCKS = 512, 64
SIZE = BLOCK * BLOCKS


class SlowDisk(Layer):
    """Everything is a job; a write may be interrupted before it happens; snapshots are remembered with their data."""

    def __init__(self, image: FileDisk) -> None:
        super().__init__(image)
        self.image = image
        self.interrupt: Callable[[], None] | None = None
        self.frozen: dict[int, bytes] = {}

    @property
    def stalled(self) -> bool:
        """Always."""
        return True

    def write(self, offset: int, data: Sequence[memoryview | bytes]) -> None:
        """What the event loop does meanwhile, first."""
        if self.interrupt is not None:
            self.interrupt()
        self.inner.write(offset, data)

    def snapshot(self, extents: Sequence[Extent]) -> Snapshot:
        """As ever, and remembered."""
        snapshot = self.inner.snapshot(extents)
        content = self.content()
        self.frozen[id(snapshot)] = b"".join(content[e.offset : e.end] for e in extents)
        return snapshot

    def content(self) -> bytes:
        """All of it."""
        data = bytearray(SIZE)
        self.inner.read(0, [memoryview(data)])
        return bytes(data)


@dataclass(eq=False)
class Open:
    """A command or task management function that was sent.

    Attributes:
        attention: the unit attention that it must meet; None if it is to be executed.
        hit: a reset or abort was sent while it was open.
    """

    request: Request
    lun: int
    tag: int
    life: int
    attention: tuple[int, int, int] | None = None
    hit: bool = False
    wrote: tuple[int, int, bytes] | None = None
    changes: bool = False

    @property
    def over(self) -> bool:
        """It has completed."""
        return self.request.written is not None

    @property
    def response(self) -> int:
        """Response code."""
        return int(wire.RESPONSE.unpack_from(self.request.data_in)[4])

    @property
    def answer(self) -> Answer:
        """Status, sense, data."""
        length, residual, _, status, _, sense = wire.RESPONSE.unpack_from(self.request.data_in)
        data = self.request.data_in[wire.RESPONSE_SIZE :]
        return Answer(status, sense[:length], data[: len(data) - residual])


@dataclass(eq=False)
class SimGuest:
    """A guest's driver, and the device of its export."""

    target: Target
    name: str
    life: int = 0
    tag: int = 0
    open: list[Open] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.device = ScsiDevice(self.target, 1, new_nexus=lambda: (self.name, self.life))
        self.initiator = Initiator(self._carry)
        self.last: Open
        self.load()

    def load(self) -> None:
        """The driver is loaded: new queues."""
        self.ram = GuestRam(4 << 20)
        self.device.set_features(self.device.features)
        memory = self.ram.memory()
        self.queues = [DriverQueue(self.ram, 64, kick=self._kicker(index)) for index in range(3)]
        for index, queue in enumerate(self.queues):
            self.device.start_queue(index, queue.ring(memory))

    def unload(self, runner: HeldRunner) -> None:
        """The driver is unloaded, or the guest is reset: the rings stop once all is over, then the device resets."""
        stopped: list[int] = []
        for index in range(3):
            self.device.stop_queue(index, stopped.append)
        while len(stopped) < 3:
            runner.step()
        self.collect()
        assert all(item.over for item in self.open), "a stopped queue has a request that was never completed"
        self.life += 1
        self.device.reset()
        self.ram.close()

    def collect(self) -> list[Open]:
        """What has completed since the last time. AssertionError if something completed twice."""
        for queue in self.queues:
            queue.completions()
        done = [item for item in self.open if item.over]
        self.open = [item for item in self.open if not item.over]
        return done

    def has_ended(self, item: Open) -> bool:
        """Whether it has completed by now."""
        for queue in self.queues:
            queue.completions()
        return item.over

    def manage(self, subtype: TaskManagement, lun: int, tag: int = 0) -> Open:
        """Send a task management function."""
        body = wire.TMF.pack(wire.Control.TMF, subtype, wire.encode_lun(0, lun), tag)
        item = Open(self.queues[wire.CONTROL_QUEUE].submit(body, 1), lun, 0, self.life)
        self.open.append(item)
        return item

    def _kicker(self, index: int) -> Callable[[], None]:
        return lambda: self.device.kick(index)

    def _carry(self, lun: int, cdb: bytes, data_out: bytes) -> Answer:
        """Send, and do not wait: `last` is what was sent."""
        self.tag += 1
        header = wire.COMMAND.pack(wire.encode_lun(0, lun), self.tag, 0, 0, 0, cdb)
        room = 0 if data_out else 8192
        request = self.queues[wire.FIRST_REQUEST_QUEUE].submit(header + data_out, wire.RESPONSE_SIZE + room)
        self.last = Open(request, lun, self.tag, self.life)
        self.open.append(self.last)
        return Answer(0, b"", b"")


class Bench:
    """Two disks, two guests that see both, one copy manager."""

    def __init__(self) -> None:
        self.runner = HeldRunner()
        self.manager = CopyManager(self.runner, clock=VirtualClock())
        self.disks = [SlowDisk(memory_disk(f"d{n}", SIZE)) for n in range(2)]
        units = dict(enumerate(self.disks))
        self.guests = [SimGuest(Target.on(units, self.manager, self.runner), name) for name in ("A", "B")]

    def close(self) -> None:
        """Nothing may be left of anything."""
        for guest in self.guests:
            guest.unload(self.runner)
        self.runner.run_all()
        assert all(not len(guest.target.tasks) for guest in self.guests)
        assert all(not self.manager.operations.touching(disk.name) for disk in self.disks)
        for token in self.manager.tokens:
            token.payload.release()
        assert [disk.image._side.used for disk in self.disks] == [0, 0]
        for disk in self.disks:
            disk.close()
