"""A virtio-blk device with a mailbox, on a memory disk and a target whose clock and copies are the test's."""

from __future__ import annotations

from typing import TYPE_CHECKING

import mailbox_pages as pages

from qemu_odx.target.manager import CopyManager
from qemu_odx.target.target import Target
from qemu_odx.testing.clock import VirtualClock
from qemu_odx.testing.driver import DriverQueue, Request
from qemu_odx.testing.mailbox import MailboxClient
from qemu_odx.testing.runner import HeldRunner, InlineRunner
from qemu_odx.virtio.blk import BlkDevice
from qemu_odx.virtio.mailbox import Mailbox
from qemu_odx.wire.mailbox import Head
from qemu_odx.wire.virtio import blk as wire
from qemu_odx.wire.virtio.blk import RequestType, Status

if TYPE_CHECKING:
    from collections.abc import Callable

    from qemu_odx.disk.file import FileDisk
    from qemu_odx.testing.ram import GuestRam

PLACE, LENGTH = 524288, 278528
"""The window: `docs/mailbox.md`, "Where the window is"."""
TEST_UNIT_READY = bytes(6)


def slot(number: int) -> int:
    """Where a slot begins on the disk."""
    return PLACE + 16384 * (number + 1)


class Bench:
    """The device's first two queues, its disk, and the copies that wait."""

    def __init__(
        self, ram: GuestRam, disk: FileDisk, *, kept_out: Callable[[bool], bool] = lambda _writing: False
    ) -> None:
        self.disk = disk
        self.clock = VirtualClock(1000.0)
        self.copies = HeldRunner()
        manager = CopyManager(self.copies, self.clock)
        self.target = Target.on({0: disk}, manager, InlineRunner())
        head = Head(PLACE, disk.block_size, self.target.units[0].naa, disk.serial)
        self.mailbox = Mailbox(self.target, head, self.clock)
        self.device = BlkDevice(disk, InlineRunner(), num_queues=2, kept_out=kept_out, mailbox=self.mailbox)
        self.device.set_features(wire.F_FLUSH | wire.F_CONFIG_WCE)
        self.queue, self.second = (self._queue(ram, index) for index in range(2))

    def _queue(self, ram: GuestRam, index: int) -> DriverQueue:
        queue = DriverQueue(ram, 64, kick=lambda: self.device.kick(index))
        self.device.start_queue(index, queue.ring(ram.memory()))
        return queue

    def submit(self, kind: int, offset: int, data: bytes = b"", room: int = 0) -> Request:
        """Post a request as Linux lays it out: header, data and status in descriptors of their own."""
        header = wire.HEADER.pack(kind, 0, offset // 512)
        return self.queue.submit(
            header + data, room + 1, cuts_out=[16] if data else [], cuts_in=[room] if room else []
        )

    def do(self, kind: int, offset: int, data: bytes = b"", room: int = 0) -> tuple[int, bytes]:
        """A request, waited for as long as there are copies to wait for: its status and data."""
        request = self.submit(kind, offset, data, room)
        while not self.queue.completions():
            self.copies.step()
        return request.data_in[-1], request.data_in[:-1]

    def write(self, offset: int, data: bytes) -> None:
        """A write, which must succeed."""
        assert self.do(RequestType.OUT, offset, data)[0] == Status.OK

    def read(self, offset: int, length: int) -> bytes:
        """A read, which must succeed."""
        status, data = self.do(RequestType.IN, offset, room=length)
        assert status == Status.OK
        return data

    def image(self, offset: int = 0, length: int | None = None) -> bytes:
        """What the disk itself holds."""
        data = bytearray(self.disk.size - offset if length is None else length)
        self.disk.read(offset, [memoryview(data)])
        return bytes(data)

    def send(self, page: bytes, number: int = 0) -> None:
        """Write a request page, filled up with what does not matter."""
        self.write(slot(number), page + b"\xee" * (-len(page) % self.disk.block_size))

    def answer(self, number: int = 0) -> bytes:
        """The response area of a slot, sound if there is a response."""
        area = self.read(slot(number) + 8192, 8192)
        assert pages.sound(area) or not any(area)
        return area

    def result(self, page: bytes, number: int = 0) -> int:
        """Send a request and read what became of it."""
        self.send(page, number)
        return pages.get(self.answer(number), 24, 4)

    def client(self, number: int = 0, *, user: int | None = None) -> MailboxClient:
        """A well-behaved user of a slot."""
        return MailboxClient(
            lambda sector, data: self.write(sector * 512, data),
            lambda sector, length: self.read(sector * 512, length),
            slot=number,
            user=user,
        )
