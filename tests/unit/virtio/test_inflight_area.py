"""The in-flight area: a backend killed at any point runs nothing twice that was answered, and forgets nothing."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import pytest

from qemu_odx.testing.driver import Piece
from qemu_odx.virtio.inflight import InflightArea
from qemu_odx.virtio.queue import SplitQueue

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from conftest import Pair

    from qemu_odx.virtio.chain import Chain
    from qemu_odx.virtio.port import Begun

    MakePair = Callable[..., Pair]

_SIZE = 8
_BYTES = 16 + 16 * _SIZE


def _area() -> memoryview:
    return memoryview(bytearray(_BYTES))


def _crash(pair: Pair, area: memoryview) -> None:
    """The backend dies and comes back: as QEMU does, it starts at the ring's used index."""
    pair.held.clear()
    used = pair.ring.used.cast("H")[1]
    pair.start(area, next_avail=used)


def test_layout() -> None:
    """The layout of the vhost-user specification: version 1, number of descriptors, then 16 bytes for each."""
    view = _area()
    area = InflightArea(view, _SIZE)
    area.recover(5)
    area.mark(3)
    assert view[8:12].hex() == "01000800"
    assert view[14:16].hex() == "0500"
    assert view[16 + 3 * 16 : 16 + 3 * 16 + 8].hex() == "0100000000000000"
    assert int.from_bytes(view[16 + 3 * 16 + 8 : 16 + 4 * 16], "little") == area.stamp(3)


def test_too_small() -> None:
    """An area that is too small for the queue is refused."""
    with pytest.raises(ValueError, match="a queue of 16 needs"):
        InflightArea(_area(), 16)


def test_marked_before_it_runs(make_pair: MakePair) -> None:
    """The mark is there when the request reaches the device, and gone once it is published."""
    pair, area = make_pair(_SIZE, start=False), _area()
    marks: list[int] = []

    def take(chain: Chain) -> None:
        marks.append(area[16 + 16 * chain.head])
        pair.take(chain)

    pair.handle = take
    pair.start(area)
    request = pair.driver.submit(b"x")
    assert marks == [1]
    pair.held[0].complete(0)
    assert area[16 + 16 * request.head] == 0


def test_resubmitted_in_order(make_pair: MakePair) -> None:
    """After a crash what had begun runs again, oldest first, then what waits in the ring."""
    pair, area = make_pair(_SIZE, start=False), _area()
    pair.start(area)
    pair.driver.free = [5, 2, 7, 1]
    for text in (b"first", b"second", b"third"):
        pair.driver.submit(text)
    pair.held[1].complete(0)
    pair.driver.kick = lambda: None
    pair.driver.submit(b"fourth")
    _crash(pair, area)
    assert [chain.read_exact(chain.readable_length) for chain in pair.held] == [b"first", b"third", b"fourth"]
    for chain in list(pair.held):
        chain.complete(0)
    assert len(pair.driver.completions()) == 4
    assert pair.device.in_flight == 0


def test_killed_between_publishing_and_clearing(make_pair: MakePair, monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch whose used index was stored is not run again, though its marks were still set."""
    pair, area = make_pair(_SIZE, start=False), _area()
    pair.start(area)
    pair.driver.submit(b"kept")
    with monkeypatch.context() as patch, pair.device.batch():
        patch.setattr(InflightArea, "clear", lambda *_: None)
        for text in (b"done", b"done too"):
            pair.driver.submit(text)
        pair.held[1].complete(0)
        pair.held[2].complete(0)
        pair.device.publish()
    assert area[16 + 16 * pair.held[1].head] == 1
    _crash(pair, area)
    assert [chain.read_exact(4) for chain in pair.held] == [b"kept"]


def test_killed_before_publishing(make_pair: MakePair, monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch whose used index was not stored is run again."""
    pair, area = make_pair(_SIZE, start=False), _area()
    pair.start(area)
    pair.driver.submit(b"once")
    assert pair.device._area is not None
    pair.device._area.link([pair.held[0].head])
    _crash(pair, area)
    assert [chain.read_exact(4) for chain in pair.held] == [b"once"]


class Killed(BaseException):
    """The backend dies here."""


BEGUN = {0, 7}


class Lane:
    """An express lane that only begins some requests, does others that have an even head, and remembers those."""

    def __init__(self, pair: Pair) -> None:
        self.executed: list[int] = []
        self._desc = pair.ring.desc

    def __call__(self, heads: Sequence[int], done: list[int], begun: Begun) -> Sequence[int]:
        """See `virtio/queue.Express`."""
        for head in heads:
            if head in BEGUN:
                begun.begin(head)
            elif head % 2 == 0:
                self.executed.append(head)
                done += (head, 0)
        return [head for head in heads if head not in BEGUN and head % 2]


def _lane_pair(make_pair: MakePair, area: memoryview, free: list[int]) -> tuple[Pair, Lane]:
    """A pair with a lane; descriptors are taken from the end of `free`."""
    pair = make_pair(_SIZE, start=False)
    pair.start(area)
    lane = Lane(pair)
    pair.device._express = lane
    pair.driver.free = free
    return pair, lane


def _post_quietly(pair: Pair, number: int) -> None:
    """Offer requests, one index store for all, no kick."""
    for _ in range(number):
        pair.driver.post([Piece(pair.ram.allocate(16), 16)])
    pair.driver.kick = lambda: None
    pair.driver.publish()


@pytest.mark.parametrize(
    "fatal", ["run_ahead", "link", "clear", "_write_elements", "_mark"], ids=lambda name: f"in {name}"
)
@pytest.mark.parametrize(
    "free",
    [[4, 2, 6], [4, 3, 6], [3, 2, 1], [4, 7, 6], [7, 2, 1], [7, 0, 2]],
    ids=["all plain", "one not", "one plain", "one begun", "one of each", "two begun"],
)
def test_a_lane_killed_anywhere_loses_nothing(
    make_pair: MakePair, monkeypatch: pytest.MonkeyPatch, free: list[int], fatal: str
) -> None:
    """With an older request in flight: each one is published or run again, the older one first."""
    area = _area()
    pair, _ = _lane_pair(make_pair, area, [*free, 5])
    pair.driver.post([Piece(pair.ram.allocate(16), 16)])
    pair.driver.publish()
    assert [chain.head for chain in pair.held] == [5]
    _post_quietly(pair, 3)

    def die(*_: object) -> None:
        raise Killed

    owner = InflightArea if hasattr(InflightArea, fatal) else SplitQueue
    with monkeypatch.context() as patch, contextlib.suppress(Killed):
        patch.setattr(owner, fatal, die)
        if fatal == "_mark":  # who is dead does not publish on the way out
            patch.setattr(SplitQueue, "publish", lambda _: None)
        pair.device.drain(pair.handle)
    published = [pair.driver.take_used()[0] for _ in range(pair.driver.used_pending())]
    pair.held.clear()
    _crash(pair, area)
    again = [chain.head for chain in pair.held]
    assert again[0] == 5
    assert sorted([*published, *again]) == sorted([*free, 5])


def test_a_lane_killed_between_area_and_ring(make_pair: MakePair) -> None:
    """The area may say more than the ring does: nothing was published, all of it is run again."""
    area = _area()
    pair, _ = _lane_pair(make_pair, area, [4, 2, 1, 5])
    pair.driver.submit(b"once")
    pair.held.pop().complete(0)
    pair.driver.completions()
    pair.driver.submit(b"again")  # in flight, and on the list of an earlier marked batch too
    pair.driver.submit(b"later")
    pair.held.pop().complete(0)
    _post_quietly(pair, 2)
    assert pair.device._area is not None
    pair.device._area.run_ahead(4)
    pair.held.clear()
    _crash(pair, area)
    assert [chain.head for chain in pair.held] == [5, 2, 4]


def test_a_lane_that_fails_is_closed(make_pair: MakePair) -> None:
    """A bug in it costs no request: what it had not finished goes the plain way."""
    area = _area()
    pair, lane = _lane_pair(make_pair, area, [4, 7, 2, 6])

    def fail(heads: Sequence[int], done: list[int], begun: Begun) -> Sequence[int]:
        lane([head for head in heads if head in {2, 7}], done, begun)
        raise RuntimeError("a bug")

    pair.device._express = fail
    _post_quietly(pair, 4)
    pair.device.drain(pair.handle)
    assert [chain.head for chain in pair.held] == [6, 4]
    pair.device.end(7, 0)
    assert pair.driver.take_used() == (2, 0)
    assert pair.device._express is None


def test_an_unmarked_batch_leaves_the_list_alone(make_pair: MakePair) -> None:
    """What the last marked batch held may be in flight again: recovery after an unmarked one does not clear it."""
    area = _area()
    pair, _ = _lane_pair(make_pair, area, [4, 5])
    pair.driver.post([Piece(pair.ram.allocate(16), 16)])
    pair.driver.publish()
    pair.held.pop().complete(0)  # 5 is on the list of the last marked batch
    pair.driver.completions()
    pair.driver.submit(b"again")  # 5 once more, and it stays in flight
    _post_quietly(pair, 1)
    pair.device.drain(pair.handle)
    assert pair.driver.take_used()[0] == 4
    _crash(pair, area)
    assert [chain.head for chain in pair.held] == [5]


def test_counter_goes_on(make_pair: MakePair) -> None:
    """What is taken after a crash counts as newer than what was taken before."""
    pair, area = make_pair(_SIZE, start=False), _area()
    pair.start(area)
    pair.driver.free = [0, 7]
    pair.driver.submit(b"old")
    _crash(pair, area)
    pair.driver.submit(b"new")
    _crash(pair, area)
    assert [chain.read_exact(3) for chain in pair.held] == [b"old", b"new"]


def test_other_queue_size(make_pair: MakePair) -> None:
    """An area left by a queue of another size is set up afresh."""
    view = memoryview(bytearray(_BYTES))
    old = InflightArea(view[: 16 + 16 * 4], 4)
    old.recover(0)
    old.mark(2)
    assert InflightArea(view, _SIZE).recover(9) == []
    assert view[10:12].hex() == "0800"


def test_garbage_does_not_loop() -> None:
    """A list that leads nowhere or in circles ends after as many heads as the queue has."""
    view = _area()
    area = InflightArea(view, _SIZE)
    area.recover(0)
    area.link([3, 3])
    assert area.recover(0x8000) == []
    view[12:14] = b"\xff\xff"
    assert area.recover(0x9000) == []
