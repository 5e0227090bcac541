"""A vhost-user session under a front end that is made of a fuzzer's bytes, and what must hold whatever it says.

Nothing raises, every message is answered at most once and never while another one waits, after a drop nothing is
sent, and when the front end is gone every ring is stopped and every descriptor and mapping is given back.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
from typing import TYPE_CHECKING

from byte_source import ByteSource

from qemu_odx.disk.memory import memory_disk
from qemu_odx.testing.runner import HeldRunner
from qemu_odx.vhost.bus_guard import bus_guard
from qemu_odx.vhost.message import Message
from qemu_odx.vhost.session import Session
from qemu_odx.virtio.blk import BlkDevice
from qemu_odx.wire.vhost_user import (
    U64,
    ConfigSpace,
    Inflight,
    LogBase,
    MemoryRegion,
    Request,
    VringAddress,
    VringState,
    pack_memory_table,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from qemu_odx.virtio.port import Pollable

RAM = 16 * 4096
GPA, UVA = 0x10000, 1 << 40
QUEUES = 2
SIZE = 16
NUMBERS = (0, 1, 2, SIZE, 100, 1 << 15, 1 << 16, (1 << 32) - 1)
LARGE = (0, 1, 0x1000, RAM, RAM - 1, 1 << 20, 1 << 40, 1 << 63, (1 << 64) - 1)
ADDRESSES = (UVA, UVA + 0x1000, UVA + 0x2000, UVA + RAM - 16, UVA + 1, GPA, 0, (1 << 64) - 16)
MOST_STEPS = 60

Shape = tuple[int, bytes, int]
"""Request, payload, descriptors."""


class Link:
    """What `server/export.py` is to a session, without a loop and a socket."""

    def __init__(self) -> None:
        self.session: Session | None = None
        self.watched: dict[int, Callable[[], None]] = {}
        self.later: list[Callable[[], None]] = []
        self.answers = 0
        self.dropped = False
        self.closed = False

    def watch(self, fd: int, callback: Callable[[], None]) -> None:
        """See `Watcher`."""
        assert fd not in self.watched
        os.fstat(fd)
        self.watched[fd] = callback

    def unwatch(self, fd: int) -> None:
        """See `Watcher`."""
        os.fstat(fd)
        del self.watched[fd]

    def poll(self, queue: Pollable, serve: Callable[[], None]) -> bool:
        """See `Watcher`."""
        del queue, serve
        return False

    def call_soon(self, callback: Callable[[], None]) -> None:
        """See `Watcher`."""
        self.later.append(callback)

    at_turn_end = call_soon

    def broken(self, index: int, reason: str) -> None:
        """See `Watcher`."""

    def send(self, request: int, payload: bytes, fds: Sequence[int]) -> None:
        """See `Link`."""
        del request, payload, fds
        assert not self.dropped
        self.answers += 1

    def resume(self) -> None:
        """See `Link`."""

    def drop(self, reason: str) -> None:
        """See `Link`."""
        assert reason
        if not self.dropped:
            self.leave()

    def leave(self) -> None:
        """The front end is gone."""
        self.dropped = True
        assert self.session
        self.session.close(lambda: setattr(self, "closed", True))

    def turn(self) -> None:
        """What was put off."""
        later, self.later = self.later, []
        for callback in later:
            callback()


class Play:
    """One front end's life."""

    def __init__(self, source: ByteSource) -> None:
        self.source = source
        self.disk = memory_disk("d", 1 << 20)
        self.runner = HeldRunner()
        self.link = Link()
        self.session = Session(BlkDevice(self.disk, self.runner, num_queues=QUEUES), self.link)
        self.link.session = self.session
        self.ram = os.memfd_create("ram")
        os.ftruncate(self.ram, RAM)
        self.event = os.eventfd(0, os.EFD_NONBLOCK)
        self.null = os.open("/dev/null", os.O_RDWR)
        self.pair = socket.socketpair()
        self.kinds = (self.ram, self.ram, self.event, self.event, self.null, self.pair[0].fileno())
        self.shapes: tuple[Callable[[], Shape], ...] = (
            *(
                self.bare,
                self.word,
                self.vring,
                self.vring,
                self.vring_fd,
                self.vring_fd,
                self.address,
                self.region,
            ),
            *(self.region, self.table, self.config, self.inflight, self.log, self.noise),
        )
        self.steps = (
            *(self.message,) * 8,
            self.kick,
            self.job,
            self.turn,
            self.write_ram,
            self.ready,
            self.cut,
        )

    # -- messages ----------------------------------------------------------------------------------

    def bare(self) -> Shape:
        """No payload."""
        return self.source.pick(list(Request)), b"", self.source.pick((0, 0, 0, 1, 9))

    def word(self) -> Shape:
        """A number: features, mostly those offered."""
        requests = (Request.SET_FEATURES, Request.SET_PROTOCOL_FEATURES)
        offered = self.session.offered_features, self.session.offered_protocol_features
        which = self.source.below(2)
        value = offered[which] & ~(1 << self.source.below(64)) if self.source.chance(2) else offered[which]
        return requests[which], U64.pack(value), 0

    def vring(self) -> Shape:
        """A queue and a number."""
        requests = (
            *(Request.SET_VRING_NUM, Request.SET_VRING_BASE, Request.GET_VRING_BASE),
            *(Request.SET_VRING_ENABLE, Request.SET_VRING_ENABLE),
        )
        return (
            self.source.pick(requests),
            VringState(self.source.below(3), self.source.pick(NUMBERS)).pack(),
            0,
        )

    def vring_fd(self) -> Shape:
        """A queue and a descriptor."""
        requests = (Request.SET_VRING_KICK, Request.SET_VRING_CALL, Request.SET_VRING_ERR)
        word = self.source.below(3) | (0x100 if self.source.chance(8) else 0)
        return self.source.pick(requests), U64.pack(word), 0 if word & 0x100 else 1

    def address(self) -> Shape:
        """Where a ring is."""
        desc, used, avail = (self.source.pick(ADDRESSES) for _ in range(3))
        if self.source.chance(2):
            desc, used, avail = UVA, UVA + 0x2000, UVA + 0x1000
        return (
            Request.SET_VRING_ADDR,
            VringAddress(self.source.below(3), self.source.below(2), desc, used, avail, GPA).pack(),
            0,
        )

    def one_region(self) -> MemoryRegion:
        """The good one, or another."""
        if self.source.chance(3):
            return MemoryRegion(*(self.source.pick(LARGE) for _ in range(4)))
        return MemoryRegion(GPA, RAM, UVA, 0)

    def region(self) -> Shape:
        """More memory, or less."""
        request = Request.REM_MEM_REG if self.source.chance(3) else Request.ADD_MEM_REG
        return request, self.one_region().pack_single(), int(request == Request.ADD_MEM_REG)

    def table(self) -> Shape:
        """All memory."""
        count = self.source.below(4)
        return Request.SET_MEM_TABLE, pack_memory_table(tuple(self.one_region() for _ in range(count))), count

    def config(self) -> Shape:
        """The configuration space."""
        size = self.source.pick((0, 1, 57, 60, 256, 257))
        space = ConfigSpace(self.source.pick((0, 32, 255, 1 << 31)), size, 0, self.source.take(size))
        return self.source.pick((Request.GET_CONFIG, Request.SET_CONFIG)), space.pack(), 0

    def inflight(self) -> Shape:
        """The in-flight area."""
        area = Inflight(
            self.source.pick(LARGE),
            self.source.pick(LARGE),
            self.source.below(4),
            self.source.pick((0, SIZE, 128)),
        )
        give = self.source.chance(2)
        return (Request.SET_INFLIGHT_FD if give else Request.GET_INFLIGHT_FD), area.pack(), int(give)

    def log(self) -> Shape:
        """The dirty log."""
        return Request.SET_LOG_BASE, LogBase(self.source.pick(LARGE), self.source.pick(LARGE)).pack(), 1

    def noise(self) -> Shape:
        """Whatever it is."""
        return self.source.number(2), self.source.take(self.source.below(64)), self.source.below(4)

    # -- what happens ------------------------------------------------------------------------------

    def send(self, request: int, payload: bytes, fds: int) -> None:
        """One message, unless one waits for its answer or all is over."""
        if self.session.busy or self.link.dropped:
            return
        before = self.link.answers
        flags = 0x1 | (0x8 if self.source.chance(2) else 0)
        handed = [os.dup(self.source.pick(self.kinds)) for _ in range(min(fds, 8))]
        self.session.receive(Message(request, flags, payload, handed))
        assert self.link.answers <= before + 1

    def message(self) -> None:
        """Any message; now and then it is cut or brings more than it should."""
        request, payload, fds = self.source.pick(self.shapes)()
        if self.source.chance(16):
            payload, fds = payload[:-1], fds + 1
        self.send(request, payload, fds)

    def ready(self) -> None:
        """The whole start as QEMU does it, so that rings run."""
        session = self.session
        self.kinds = (self.ram, self.event)
        self.send(Request.SET_PROTOCOL_FEATURES, U64.pack(session.offered_protocol_features), 0)
        self.send(Request.SET_FEATURES, U64.pack(session.offered_features), 0)
        self.exactly(self.ram, Request.ADD_MEM_REG, MemoryRegion(GPA, RAM, UVA, 0).pack_single())
        self.send(Request.SET_VRING_NUM, VringState(0, SIZE).pack(), 0)
        self.send(Request.SET_VRING_ADDR, VringAddress(0, 1, UVA, UVA + 0x2000, UVA + 0x1000, GPA).pack(), 0)
        self.exactly(self.event, Request.SET_VRING_KICK, U64.pack(0))
        self.send(Request.SET_VRING_ENABLE, VringState(0, 1).pack(), 0)
        self.kinds = (self.ram, self.ram, self.event, self.event, self.null, self.pair[0].fileno())

    def exactly(self, fd: int, request: int, payload: bytes) -> None:
        """A message with this descriptor."""
        if not self.session.busy and not self.link.dropped:
            self.session.receive(Message(request, 0x1, payload, [os.dup(fd)]))

    def write_ram(self) -> None:
        """The guest does something in the rings."""
        with contextlib.suppress(OSError):
            os.pwrite(
                self.ram, self.source.take(16), self.source.pick((0, 16, 0x1000, 0x1002, 0x2000, 0x3000))
            )

    def kick(self) -> None:
        """Every descriptor that is watched is readable."""
        for callback in list(self.link.watched.values()):
            callback()

    def job(self) -> None:
        """A worker has done something."""
        if self.runner:
            self.runner.step()

    def turn(self) -> None:
        """The event loop goes round."""
        self.link.turn()
        if guard := bus_guard():
            guard.report()

    def cut(self) -> None:
        """The memory file becomes shorter, or whole again."""
        os.ftruncate(self.ram, self.source.pick((0, 0x1000, 0x2000, RAM)))

    def run(self) -> None:
        """Until the bytes are used up; then the front end leaves."""
        for _ in range(MOST_STEPS):
            if not self.source:
                break
            self.source.pick(self.steps)()
        if not self.link.dropped:
            self.link.leave()
        while self.runner or self.link.later:
            self.runner.run_all()
            self.turn()
        assert self.link.closed, "it waits for something that never comes"
        assert not self.link.watched

    def close(self) -> None:
        """Give back what the run held."""
        for fd in (self.ram, self.event, self.null):
            os.close(fd)
        for sock in self.pair:
            sock.close()
        self.disk.close()


def _open_descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208  # names are enough


def play(data: bytes) -> None:
    """One input.

    Raises:
        AssertionError: something that must hold does not; any other exception is a failure as well.
    """
    bus_guard()
    logging.disable()
    before = _open_descriptors()
    life = Play(ByteSource(data))
    try:
        life.run()
    finally:
        life.close()
        logging.disable(logging.NOTSET)
    del life
    assert _open_descriptors() <= before, "descriptors or mappings are left"
