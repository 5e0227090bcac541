"""A Windows machine whose disks are those of our own target, and a carrier that changes answers."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from qemu_odx.target.manager import CopyManager
from qemu_odx.target.port import Task
from qemu_odx.target.target import Target
from qemu_odx.testing.clock import VirtualClock
from qemu_odx.testing.initiator import Answer
from qemu_odx.testing.runner import InlineRunner
from qemu_odx.windows.carriers import to_unit
from qemu_odx.windows.driver import ClassDriver, Environment
from qemu_odx.windows.request import Request
from qemu_odx.wire.dsm.codes import ControlCode
from qemu_odx.wire.dsm.structures import OffloadReadOutput, OffloadWriteOutput

if TYPE_CHECKING:
    from qemu_odx.disk.file import FileDisk
    from qemu_odx.target.port import Reply
    from qemu_odx.windows.port import Carrier, Completion
    from qemu_odx.windows.request import IoStatus

ROOM = 1 << 20


@dataclass(slots=True)
class Machine:
    """A Windows machine with disks of our own target.

    Attributes:
        sent: all commands, with their unit.
    """

    disks: dict[int, FileDisk]
    clock: VirtualClock = field(default_factory=VirtualClock)
    sent: list[tuple[int, bytes]] = field(default_factory=list)
    target: Target = field(init=False)
    environment: Environment = field(init=False)

    def __post_init__(self) -> None:
        runner = InlineRunner()
        self.target = Target.on(self.disks, CopyManager(runner, self.clock), runner)
        self.environment = Environment(clock=self.clock, wait=self.clock.advance)

    def _command(self, lun: int, cdb: bytes, data_out: bytes) -> Answer:
        self.sent.append((lun, cdb))
        replies: list[Reply] = []
        room = memoryview(bytearray(ROOM))
        given = [memoryview(data_out)] if data_out else []
        self.target.submit(Task("I0", lun, cdb, given, [room], replies.append))
        return Answer(replies[0].status, replies[0].sense, bytes(room[: replies[0].data_in_length]))

    def carrier(self, lun: int = 0) -> Carrier:
        """To one unit."""
        return to_unit(self._command, lun)

    def start(self, lun: int = 0) -> ClassDriver:
        """Device start of one unit."""
        return ClassDriver.start(self.carrier(lun), self.environment)

    def codes(self) -> list[str]:
        """Operation codes and service actions of the token commands that were sent, and forget them."""
        found = [cdb[:2].hex() for _, cdb in self.sent if cdb[0] in {0x83, 0x84}]
        self.sent.clear()
        return found


def manage(driver: ClassDriver, data: bytes) -> IoStatus:
    """The offload IOCTL from kernel mode."""
    return driver.control(Request(ControlCode.IOCTL_STORAGE_MANAGE_DATA_SET_ATTRIBUTES, data, 536))


def read_output(end: IoStatus) -> OffloadReadOutput:
    """The answer to an offload read."""
    return OffloadReadOutput.parse(end.output)


def write_output(end: IoStatus) -> OffloadWriteOutput:
    """The answer to an offload write."""
    return OffloadWriteOutput.parse(end.output)


@dataclass(slots=True)
class Altered:
    """A carrier that changes bytes of some answers.

    Attributes:
        changes: command (its first bytes, of any length) to the bytes to put at offsets of its data-in.
        answers: commands that are answered here.
    """

    carry: Carrier
    changes: dict[bytes, dict[int, int]] = field(default_factory=dict)
    answers: dict[bytes, Completion] = field(default_factory=dict)

    def __call__(self, cdb: bytes, data_out: bytes) -> Completion:
        """Carry, then change."""
        for head, answer in self.answers.items():
            if cdb.startswith(head):
                return answer
        done = self.carry(cdb, data_out)
        for head, bytes_at in self.changes.items():
            if cdb.startswith(head) and done.data:
                data = bytearray(done.data)
                for place, value in bytes_at.items():
                    data[place] = value
                return type(done)(done.status, done.sense, bytes(data), done.residual, done.delivery)
        return done
