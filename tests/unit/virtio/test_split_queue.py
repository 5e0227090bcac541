"""The split queue with a driver that keeps the rules."""

from __future__ import annotations

import logging
from itertools import count
from typing import TYPE_CHECKING

import pytest

from qemu_odx.virtio import queue as split_queue
from qemu_odx.virtio.chain import DoubleCompletionError
from qemu_odx.virtio.queue import SLICE, LostCompletionError

if TYPE_CHECKING:
    from collections.abc import Callable

    from conftest import Pair

    from qemu_odx.testing.ram import GuestRam
    from qemu_odx.virtio.chain import Chain

    MakePair = Callable[..., Pair]


def test_request_travels(make_pair: MakePair) -> None:
    """The device sees the readable bytes; the driver sees what was written and how much."""
    pair = make_pair()
    request = pair.driver.submit(b"question", 6)
    (chain,) = pair.held
    assert chain.read_exact(8) == b"question"
    chain.write(0, b"answer")
    chain.complete(6)
    assert pair.driver.completions() == [request]
    assert (request.written, request.data_in) == (6, b"answer")


@pytest.mark.parametrize("indirect", [None, 0, 1, 3])
def test_layout_does_not_matter(make_pair: MakePair, indirect: int | None) -> None:
    """Cuts, empty descriptors and indirect tables (also after ordinary descriptors) give the same bytes."""
    pair = make_pair()
    pair.driver.submit(b"abcdefgh", 6, cuts_out=[1, 1, 5], cuts_in=[2], indirect=indirect)
    (chain,) = pair.held
    assert [bytes(view) for view in chain.readable] == [b"a", b"bcde", b"fgh"]
    assert [len(view) for view in chain.writable] == [2, 4]
    assert (chain.readable_length, chain.writable_length, chain.fault) == (8, 6, None)


def test_read_exact_is_a_private_copy(make_pair: MakePair) -> None:
    """What was read once does not change with guest memory, and is not read again."""
    pair = make_pair()
    request = pair.driver.submit(b"abcdefgh", cuts_out=[3])
    (chain,) = pair.held
    first = chain.read_exact(5)
    pair.ram.write(request.pieces[0].gpa, b"XXX")
    pair.ram.write(request.pieces[1].gpa, b"XXXXX")
    assert first == b"abcde"
    assert chain.read_exact(3) == b"XXX"
    assert chain.readable_length == 0


def test_read_too_much(make_pair: MakePair) -> None:
    """More than there is cannot be read."""
    pair = make_pair()
    pair.driver.submit(b"abc")
    with pytest.raises(ValueError, match="3 are readable"):
        pair.held[0].read_exact(4)


def test_write_anywhere(make_pair: MakePair) -> None:
    """The writable part is written at any offset, across descriptors, and not behind its end."""
    pair = make_pair()
    request = pair.driver.submit(b"", 8, cuts_in=[3, 4])
    (chain,) = pair.held
    chain.write(2, b"abc")
    chain.write(7, b"z")
    with pytest.raises(ValueError, match="of 8 writable ones"):
        chain.write(7, b"zz")
    chain.complete(8)
    pair.driver.completions()
    assert request.data_in == b"\0\0abc\0\0z"


def test_longer_than_the_queue(make_pair: MakePair) -> None:
    """An indirect table of 515 descriptors, as Windows sends it, on a queue of 8."""
    pair = make_pair()
    pair.driver.submit(b"h", 514, cuts_in=range(1, 514), indirect=0)
    (chain,) = pair.held
    assert chain.fault is None
    assert len(chain.writable) == 514


def test_any_order(make_pair: MakePair) -> None:
    """Requests are completed in the order the device likes."""
    pair = make_pair()
    requests = [pair.driver.submit(bytes([n])) for n in range(3)]
    for place in (2, 0, 1):
        pair.held[place].complete(0)
    assert pair.driver.completions() == [requests[2], requests[0], requests[1]]


def test_batch_is_published_once(make_pair: MakePair) -> None:
    """Requests drained together are shown together, with one call."""
    pair = make_pair(inline=True)
    seen: list[int] = []

    def take(chain: Chain) -> None:
        pair.take(chain)
        seen.append(pair.driver.used_pending())

    pair.handle = take
    for _ in range(5):
        pair.driver.post(pair.driver._out(b"x", ()))
    pair.driver.publish()
    assert seen == [0] * 5
    assert pair.driver.used_pending() == 5
    assert pair.calls == 1


def test_indices_wrap(make_pair: MakePair) -> None:
    """Free-running indices go through 65535, with a batch across the end of the ring."""
    pair = make_pair(4, inline=True, start=False, event_idx=True)
    pair.driver.start_at(0xFFFE)
    pair.start(next_avail=0xFFFE)
    for _ in range(3):
        posted = [pair.driver.post(pair.driver._out(b"xy", ())) for _ in range(3)]
        pair.driver.publish()
        assert pair.driver.completions() == posted
    assert pair.device.next_avail == (0xFFFE + 9) & 0xFFFF
    assert not pair.device.broken


def test_completed_twice(make_pair: MakePair) -> None:
    """The second completion of a request is a bug that shows, and the driver does not see it."""
    pair = make_pair()
    pair.driver.submit(b"x")
    pair.held[0].complete(0)
    with pytest.raises(DoubleCompletionError):
        pair.held[0].complete(0)
    assert pair.driver.used_pending() == 1
    assert (pair.device.taken, pair.device.completed) == (1, 1)


def test_never_completed(make_pair: MakePair) -> None:
    """A request that nobody completed is found when the queue is given up."""
    pair = make_pair()
    pair.driver.submit(b"x")
    with pytest.raises(LostCompletionError, match=r"\[0\] were never completed"):
        pair.device.assert_idle()
    pair.held[0].complete(0)
    pair.device.assert_idle()


def test_failing_device(make_pair: MakePair, caplog: pytest.LogCaptureFixture) -> None:
    """A request that fails inside the backend ends; the next one is served."""
    pair = make_pair()

    def fail(chain: Chain) -> None:
        raise ZeroDivisionError

    pair.handle = fail
    with caplog.at_level(logging.ERROR):
        first = pair.driver.submit(b"x")
    pair.handle = pair.take
    pair.driver.submit(b"y")
    assert pair.driver.completions() == [first]
    assert first.written == 0
    assert len(pair.held) == 1
    assert "failed inside the backend" in caplog.text


def test_views_end_with_the_request(make_pair: MakePair) -> None:
    """A completed request holds no guest memory."""
    pair = make_pair()
    pair.driver.submit(b"x", 1)
    (chain,) = pair.held
    chain.complete(0)
    assert chain.readable == chain.writable == []


# -- stopping --------------------------------------------------------------------------------------


def test_stop_when_idle(make_pair: MakePair) -> None:
    """An idle queue stops at once and says where to go on."""
    pair = make_pair(inline=True)
    pair.driver.submit(b"x")
    ends: list[int] = []
    pair.device.stop(ends.append)
    assert ends == [1]


def test_stop_waits(make_pair: MakePair) -> None:
    """Stopping waits for the last completion to be published; nothing more is taken meanwhile."""
    pair = make_pair()
    for _ in range(2):
        pair.driver.submit(b"x")
    ends: list[tuple[int, int]] = []
    pair.device.stop(lambda next_avail: ends.append((next_avail, pair.driver.used_pending())))
    pair.driver.submit(b"late")
    pair.kick()
    pair.held[0].complete(0)
    assert ends == []
    pair.held[1].complete(0)
    assert ends == [(2, 2)]
    assert len(pair.held) == 2


def test_restart(make_pair: MakePair) -> None:
    """What was not taken before a stop is taken after the next start."""
    pair = make_pair(inline=True)
    pair.driver.submit(b"x")
    ends: list[int] = []
    pair.device.stop(ends.append)
    late = pair.driver.submit(b"late")
    pair.start(next_avail=ends[0])
    assert late in pair.driver.completions()


def test_busy_queue_yields(make_pair: MakePair, monkeypatch: pytest.MonkeyPatch) -> None:
    """With `again`, a queue that refills itself is left after some time, and kicked once more later."""
    ticks = count()
    monkeypatch.setattr(split_queue, "monotonic", lambda: next(ticks) * SLICE / 4)
    pair = make_pair(inline=True)
    again: list[None] = []
    pair.ring.again = lambda: again.append(None)

    def refill(chain: Chain) -> None:
        pair.take(chain)
        pair.driver.offer(chain.head)
        pair.driver.publish()

    pair.handle = refill
    pair.driver.submit(b"x")
    assert len(again) == 1
    assert pair.device.completed == 3
    pair.handle = pair.take
    pair.kick()
    assert len(again) == 1


# -- dirty log -------------------------------------------------------------------------------------


def test_dirty_log(make_pair: MakePair, ram: GuestRam) -> None:
    """Writable buffers are marked before the used ring is; readable ones are not."""
    pair = make_pair()
    request = pair.driver.submit(b"abc", 6, cuts_in=[2])
    marks: list[tuple[int, int, int]] = []
    pair.ring.used_log_gpa = pair.driver.used_gpa
    pair.ring.memory.mark_written = lambda gpa, length: marks.append(
        (gpa, length, pair.driver.used_pending())
    )
    pair.held[0].complete(6)
    data = [(piece.gpa, piece.length, 0) for piece in request.pieces if piece.writable]
    assert marks == [*data, (pair.driver.used_gpa, 6 + 8 * pair.driver.size, 1)]
