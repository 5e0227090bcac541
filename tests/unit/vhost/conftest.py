"""A session between a recording link and a recording device."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest

from qemu_odx.testing.ram import GuestRam
from qemu_odx.vhost.message import Message
from qemu_odx.vhost.session import Session
from qemu_odx.wire.vhost_user import (
    FLAG_NEED_REPLY,
    U64,
    VERSION,
    MemoryRegion,
    Request,
    VringAddress,
    VringState,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from qemu_odx.virtio.port import Pollable, Ring


class FakeDevice:
    """A device that writes down what is asked of it. With `slow`, stopping waits for `drained`."""

    def __init__(self, config: bytes | None = bytes(range(60))) -> None:
        self.queue_count = 2
        self.features = 1 << 9
        self.calls: list[object] = []
        self.rings: dict[int, Ring] = {}
        self.slow = False
        self.stopping: dict[int, Callable[[int], None]] = {}
        self._config = config

    def config(self) -> bytes | None:
        """See `Device`."""
        return self._config

    def write_config(self, offset: int, data: bytes) -> None:
        """See `Device`."""
        if offset != 32:
            raise ValueError("only byte 32 may be written")
        self.calls.append(("write_config", offset, data))

    def kept(self) -> bytes:
        """See `Device`."""
        return b""

    def restore(self, kept: bytes | None) -> None:
        """See `Device`."""

    def set_features(self, features: int) -> None:
        """See `Device`."""
        self.calls.append(("set_features", features))

    def start_queue(self, index: int, ring: Ring) -> None:
        """See `Device`."""
        self.rings[index] = ring
        self.calls.append(("start", index))

    def kick(self, index: int) -> None:
        """See `Device`."""
        self.calls.append(("kick", index))

    def stop_queue(self, index: int, stopped: Callable[[int], None]) -> None:
        """See `Device`."""
        self.calls.append(("stop", index))
        self.rings.pop(index)
        self.stopping[index] = stopped
        if not self.slow:
            self.drained(index, 7)

    def drained(self, index: int, next_avail: int) -> None:
        """The last request of a stopping queue has ended."""
        self.stopping.pop(index)(next_avail)

    def resized(self, disk_name: str) -> None:
        """See `Device`."""

    def reset(self) -> None:
        """See `Device`."""
        self.calls.append("reset")

    def disconnected(self) -> None:
        """See `Device`."""
        self.calls.append("disconnected")


@dataclass
class FakeLink:
    """The way out of a session, written down."""

    sent: list[tuple[int, bytes, int]] = field(default_factory=list)
    dropped: list[str] = field(default_factory=list)
    watched: dict[int, Callable[[], None]] = field(default_factory=dict)
    soon: list[Callable[[], None]] = field(default_factory=list)
    resumed: int = 0
    fds: list[int] = field(default_factory=list)

    def send(self, request: int, payload: bytes, fds: Sequence[int]) -> None:
        """See `Link`."""
        self.sent.append((request, payload, len(fds)))
        self.fds += [os.dup(fd) for fd in fds]

    def drop(self, reason: str) -> None:
        """See `Link`."""
        self.dropped.append(reason)

    def resume(self) -> None:
        """See `Link`."""
        self.resumed += 1

    def watch(self, fd: int, callback: Callable[[], None]) -> None:
        """See `Link`."""
        assert fd not in self.watched
        self.watched[fd] = callback

    def unwatch(self, fd: int) -> None:
        """See `Link`."""
        del self.watched[fd]

    def at_turn_end(self, callback: Callable[[], None]) -> None:
        """At once."""
        callback()

    def poll(self, queue: Pollable, serve: Callable[[], None]) -> bool:
        """Never: kicks only."""
        del queue, serve
        return False

    def call_soon(self, callback: Callable[[], None]) -> None:
        """See `Link`."""
        self.soon.append(callback)

    def broken(self, index: int, reason: str) -> None:
        """See `Link`."""
        self.sent.append((index, reason.encode(), -1))


class Talk:
    """Speaks to a session as a front end would, with its own memory and event descriptors."""

    def __init__(self, device: FakeDevice) -> None:
        self.device = device
        self.link = FakeLink()
        self.session = Session(device, self.link)
        self.ram = GuestRam(1 << 20)
        self.kick, self.call, self.error = (os.eventfd(0, os.EFD_NONBLOCK) for _ in range(3))
        self.closed = False

    def say(
        self, request: int, payload: bytes = b"", fds: Sequence[int] = (), *, ack: bool = False
    ) -> list[tuple[int, bytes, int]]:
        """One message; what was sent back."""
        before = len(self.link.sent)
        flags = VERSION | (FLAG_NEED_REPLY if ack else 0)
        self.session.receive(Message(request, flags, payload, [os.dup(fd) for fd in fds]))
        return self.link.sent[before:]

    def negotiate(self, features: int | None = None) -> None:
        """Take every protocol feature, and every feature."""
        protocol = self.session.offered_protocol_features
        self.say(Request.SET_PROTOCOL_FEATURES, U64.pack(protocol))
        wanted = self.session.offered_features if features is None else features
        self.say(Request.SET_FEATURES, U64.pack(wanted))

    def share_memory(self) -> None:
        """ADD_MEM_REG for all of it."""
        for r in self.ram.regions:
            region = MemoryRegion(r.gpa, r.size, r.uva, r.offset)
            self.say(Request.ADD_MEM_REG, region.pack_single(), [self.ram.fd])

    def address(self, index: int = 0) -> VringAddress:
        """A ring at the start of memory."""
        uva = self.ram.regions[0].uva
        return VringAddress(index, 0, uva, uva + 0x2000, uva + 0x1000, 0)

    def describe_ring(self, index: int = 0, base: int = 0) -> None:
        """All but the kick."""
        self.say(Request.SET_VRING_CALL, U64.pack(index), [self.call])
        self.say(Request.SET_VRING_ERR, U64.pack(index), [self.error])
        self.say(Request.SET_VRING_NUM, VringState(index, 128).pack())
        self.say(Request.SET_VRING_BASE, VringState(index, base).pack())
        self.say(Request.SET_VRING_ADDR, self.address(index).pack())

    def start(self, index: int = 0, base: int = 0) -> None:
        """A running ring."""
        self.describe_ring(index, base)
        self.start_described(index)

    def start_described(self, index: int) -> None:
        """Kick and enable."""
        self.say(Request.SET_VRING_KICK, U64.pack(index), [self.kick])
        self.say(Request.SET_VRING_ENABLE, VringState(index, 1).pack())

    def close(self) -> None:
        """The front end is gone."""
        self.session.close(lambda: setattr(self, "closed", True))

    def signalled(self) -> bool:
        """True if the call descriptor was written since the last look."""
        try:
            return os.eventfd_read(self.call) > 0
        except BlockingIOError:
            return False


@pytest.fixture
def device() -> FakeDevice:
    """A block-like device: it has a configuration space."""
    return FakeDevice()


def _talk(device: FakeDevice) -> Iterator[Talk]:
    before = set(os.listdir("/proc/self/fd"))  # noqa: PTH208  # names are enough
    talk = Talk(device)
    yield talk
    device.slow = False
    for index in list(device.stopping):
        device.drained(index, 0)
    if not talk.closed:
        talk.close()
    assert talk.closed, "the session did not close"
    assert not talk.link.watched, "the session left watches behind"
    for fd in [talk.kick, talk.call, talk.error, *talk.link.fds]:
        os.close(fd)
    talk.ram.close()
    del talk
    leaked = set(os.listdir("/proc/self/fd")) - before  # noqa: PTH208
    assert len(leaked) <= 1, f"descriptors leaked: {leaked}"


@pytest.fixture
def talk(device: FakeDevice) -> Iterator[Talk]:
    """A fresh session with a block-like device; descriptors are counted at the end."""
    yield from _talk(device)


@pytest.fixture
def ready(talk: Talk) -> Talk:
    """Negotiated, with memory, rings not yet described."""
    talk.negotiate()
    talk.share_memory()
    assert not talk.link.dropped
    return talk


@pytest.fixture
def scsi_talk() -> Iterator[Talk]:
    """A session with a device whose configuration space belongs to the front end."""
    yield from _talk(FakeDevice(config=None))
