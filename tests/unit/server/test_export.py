"""An export's front ends: one at a time, the next one only when nothing of the last is in flight."""

from __future__ import annotations

import contextlib
import socket
from typing import TYPE_CHECKING

import pytest

from qemu_odx.server.export import Export
from qemu_odx.server.loop import Loop
from qemu_odx.testing.frontend import FrontEnd
from qemu_odx.testing.ram import GuestRam
from qemu_odx.wire.vhost_user import HEADER, U64, Feature, ProtocolFeature, Request

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from qemu_odx.virtio.port import Ring


class SlowDevice:
    """A device whose queues stop when the test says so."""

    queue_count = 1
    features = 0

    def __init__(self) -> None:
        self.started = 0
        self.gone = 0
        self.stopping: list[Callable[[int], None]] = []
        self.fail = False
        self.features_set = 0

    def config(self) -> None:
        """See `Device`."""

    def write_config(self, offset: int, data: bytes) -> None:
        """See `Device`."""

    def kept(self) -> bytes:
        """See `Device`."""
        return b""

    def restore(self, kept: bytes | None) -> None:
        """See `Device`."""

    def set_features(self, _features: int) -> None:
        """See `Device`."""
        self.features_set += 1
        if self.fail:
            raise RuntimeError("a bug of ours")

    def start_queue(self, _index: int, _ring: Ring) -> None:
        """See `Device`."""
        self.started += 1

    def kick(self, index: int) -> None:
        """See `Device`."""

    def stop_queue(self, _index: int, stopped: Callable[[int], None]) -> None:
        """See `Device`."""
        self.stopping.append(stopped)

    def resized(self, disk_name: str) -> None:
        """See `Device`."""

    def reset(self) -> None:
        """See `Device`."""

    def disconnected(self) -> None:
        """See `Device`."""
        self.gone += 1


class Rig:
    """An export with its loop, run as far as a test wants."""

    def __init__(self, folder: Path) -> None:
        self.path = str(folder / "s.sock")
        self.loop = Loop()
        self.device = SlowDevice()
        self.export = Export(self.path, self.loop, self.device)
        self.fronts: list[FrontEnd] = []

    def until(self, true: Callable[[], bool]) -> None:
        """Run the loop until something is true."""
        for _ in range(2000):
            if true():
                return
            self.turns(1)
        raise AssertionError("it did not come true")

    def turns(self, number: int) -> None:
        """Run the loop for some milliseconds."""
        self.loop.call_later(0.001 * number, self.loop.stop)
        self.loop.run()

    def front_end(self) -> FrontEnd:
        """A started front end, spoken to without waiting for answers (nobody answers meanwhile)."""
        front = FrontEnd(self.path, ram=GuestRam(1 << 20))
        self.fronts.append(front)
        front._socket = socket.socket(socket.AF_UNIX)
        front._socket.settimeout(10)
        front._socket.connect(self.path)
        return front

    def replies(self, front: FrontEnd) -> list[int]:
        """Requests answered so far."""
        assert front._socket is not None
        front._socket.setblocking(False)
        answered = []
        with contextlib.suppress(BlockingIOError):
            while True:
                head = front._socket.recv(HEADER.size)
                request, _, size = HEADER.unpack(head)
                front._socket.recv(size)
                answered.append(request)
        return answered

    def start(self, front: FrontEnd) -> None:
        """Everything up to a running ring."""
        front.features = Feature.PROTOCOL_FEATURES
        front.send(Request.SET_PROTOCOL_FEATURES, U64.pack(ProtocolFeature.MQ.mask))
        front.send(Request.SET_FEATURES, U64.pack(front.features))
        front._share_memory()
        front.start_ring(0)
        front.enable(0, on=True)


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    """An export on a slow device."""
    rig = Rig(tmp_path)
    yield rig
    for front in rig.fronts:
        front.close()
    rig.export.close(lambda: None)
    while rig.device.stopping:
        rig.device.stopping.pop()(0)
    rig.loop.close()


def test_the_next_front_end_waits_for_the_drain(rig: Rig) -> None:
    """Or an old write could overtake a new one. It waits in the queue of the socket and is then served."""
    first = rig.front_end()
    rig.start(first)
    rig.until(lambda: rig.device.started == 1)
    first.lose()
    rig.until(lambda: bool(rig.device.stopping))
    second = rig.front_end()
    rig.start(second)
    rig.turns(50)
    assert rig.device.started == 1
    assert rig.device.gone == 0
    rig.device.stopping.pop()(0)
    rig.until(lambda: rig.device.started == 2)


def test_waiting_for_a_drain_costs_no_processor(rig: Rig) -> None:
    """The loop sleeps although a newcomer knocks."""
    first = rig.front_end()
    rig.start(first)
    rig.until(lambda: rig.device.started == 1)
    first.lose()
    rig.until(lambda: bool(rig.device.stopping))
    rig.front_end()
    rig.turns(5)
    rounds = 0
    wait = rig.loop._wait_seconds

    def counted() -> float | None:
        nonlocal rounds
        rounds += 1
        return wait()

    rig.loop._wait_seconds = counted  # type: ignore[method-assign]
    rig.turns(100)
    assert rounds < 10


def test_close_waits_for_the_drain(rig: Rig) -> None:
    """And says when it is over."""
    rig.start(rig.front_end())
    rig.until(lambda: rig.device.started == 1)
    over: list[bool] = []
    rig.export.close(lambda: over.append(True))
    rig.turns(20)
    assert over == []
    rig.device.stopping.pop()(0)
    assert over == [True]
    assert rig.device.gone == 1


def test_a_bug_of_ours_ends_one_connection(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    """It is logged; the next front end is served."""
    rig.device.fail = True
    first = rig.front_end()
    first.send(Request.SET_FEATURES, bytes(8))
    rig.until(lambda: rig.device.gone == 1)
    assert "a bug of ours" in caplog.text
    rig.device.fail = False
    rig.start(rig.front_end())
    rig.until(lambda: rig.device.started == 1)


def test_a_successor_that_knocks_before_the_farewell_is_served(rig: Rig) -> None:
    """Both events are there in one round, the newcomer's first."""
    first = rig.front_end()
    rig.start(first)
    rig.until(lambda: rig.device.started == 1)
    second = rig.front_end()
    first.lose()
    rig.until(lambda: bool(rig.device.stopping))
    rig.device.stopping.pop()(0)
    rig.start(second)
    rig.until(lambda: rig.device.started == 2)


def test_messages_wait_behind_a_drain_and_go_on_after_it(rig: Rig) -> None:
    """GET_VRING_BASE is answered late; what was sent after it is answered after it."""
    front = rig.front_end()
    rig.start(front)
    rig.until(lambda: rig.device.started == 1)
    front.send(Request.GET_VRING_BASE, bytes(8))
    front.send(Request.GET_QUEUE_NUM)
    rig.until(lambda: bool(rig.device.stopping))
    rig.turns(20)
    assert rig.replies(front) == []
    rig.device.stopping.pop()(0)
    rig.turns(20)
    assert rig.replies(front) == [Request.GET_VRING_BASE, Request.GET_QUEUE_NUM]


def test_a_flood_is_taken_in_portions(rig: Rig) -> None:
    """Other descriptors have their turn between them."""
    front = rig.front_end()
    front.send_bytes((HEADER.pack(Request.SET_FEATURES, 1, 8) + bytes(8)) * 1000)
    rig.until(lambda: rig.device.features_set > 0)
    assert rig.device.features_set < 1000
    assert rig.device.features_set % 64 == 0
    rig.until(lambda: rig.device.features_set == 1000)
