"""What a hostile or broken driver does to a queue, and what becomes of it: that request or that queue, no more."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from qemu_odx.testing.driver import Piece
from qemu_odx.virtio.chain import MAX_REQUEST_BYTES
from qemu_odx.wire.virtio import ring as wire

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from conftest import Pair

    from qemu_odx.testing.ram import GuestRam

    MakePair = Callable[..., Pair]
    Attack = Callable[[Pair], object]

_SIZE = 8
_NOWHERE = 0xDEAD_0000_0000


@pytest.fixture
def pair(make_pair: MakePair) -> Iterator[Pair]:
    """The queue under attack; afterwards another queue of the same guest must work as ever."""
    other = make_pair(_SIZE, inline=True)
    yield make_pair(_SIZE)
    request = other.driver.submit(b"still here", 4)
    assert other.driver.completions() == [request]
    assert request.written == 10


def _go(pair: Pair, head: int) -> None:
    pair.driver.offer(head)
    pair.driver.publish()


def _still_serves(pair: Pair) -> None:
    """The queue itself goes on."""
    taken = len(pair.held)
    pair.driver.free = [7]
    pair.driver.submit(b"good")
    assert pair.held[taken].read_exact(4) == b"good"
    assert not pair.device.broken


# -- the ring --------------------------------------------------------------------------------------


def _jump(pair: Pair) -> None:
    pair.driver.set_avail_index(pair.device.next_avail + _SIZE + 1)
    pair.kick()


def _jump_back(pair: Pair) -> None:
    pair.driver.set_avail_index(0xFFFF)
    pair.kick()


def _foreign_head(pair: Pair) -> None:
    _go(pair, _SIZE)


@pytest.mark.parametrize("attack", [_jump, _jump_back, _foreign_head])
def test_ring_is_broken(pair: Pair, attack: Attack) -> None:
    """Without a valid entry nothing can be answered: the queue ends, and says why, once."""
    pair.driver.submit(b"before")
    attack(pair)
    pair.kick()
    pair.kick()
    assert pair.device.broken
    (reason,) = pair.errors
    assert "in a ring of" in reason
    assert pair.driver.used_pending() == 0


def test_broken_queue_finishes_what_it_has(pair: Pair) -> None:
    """Requests taken before are completed, nothing is taken after, and the queue can be stopped."""
    pair.driver.submit(b"before")
    _jump(pair)
    pair.driver.set_avail_index(2)
    pair.kick()
    ends: list[int] = []
    pair.device.stop(ends.append)
    pair.held[0].complete(0)
    assert pair.driver.used_pending() == 1
    assert ends == [1]
    assert len(pair.held) == 1


def test_entries_before_a_foreign_head_are_served(pair: Pair) -> None:
    """Good entries of the same batch run."""
    pair.driver.post([Piece(pair.ram.allocate(16), 16)])
    _go(pair, _SIZE)
    assert len(pair.held) == 1
    assert pair.device.broken


def test_same_head_twice(pair: Pair) -> None:
    """The second is given back at once with length 0; the first runs once and is completed once."""
    request = pair.driver.submit(b"x")
    _go(pair, request.head)
    assert pair.driver.take_used() == (request.head, 0)
    assert len(pair.held) == 1
    pair.held[0].complete(1)
    assert pair.driver.take_used() == (request.head, 1)
    assert pair.device.taken == pair.device.completed == 2
    _still_serves(pair)


def test_same_head_twice_in_a_batch(pair: Pair) -> None:
    """The same, published at once."""
    request = pair.driver.post([Piece(pair.ram.allocate(16), 16)])
    _go(pair, request.head)
    assert pair.driver.take_used() == (request.head, 0)
    assert len(pair.held) == 1


def test_used_index_is_not_read_back(pair: Pair) -> None:
    """A driver that overwrites the used index confuses itself only."""
    pair.driver.submit(b"x")
    pair.driver._used[wire.INDEX_WORD] = 0x1234
    pair.held[0].complete(0)
    assert pair.driver._used[wire.INDEX_WORD] == 1


def test_ring_over_its_own_descriptors(pair: Pair) -> None:
    """A buffer that lies over the used ring can be written without harm to the device."""
    pair.driver.post([Piece(pair.driver.used_gpa, wire.used_size(_SIZE), writable=True)])
    pair.driver.publish()
    (chain,) = pair.held
    chain.write(0, b"\xff" * wire.used_size(_SIZE))
    chain.complete(wire.used_size(_SIZE))
    assert pair.driver._used[wire.INDEX_WORD] == 1


# -- chains ----------------------------------------------------------------------------------------


def _next_outside(pair: Pair) -> None:
    pair.driver.write_descriptor(0, pair.ram.base, 1, wire.F_NEXT, _SIZE)


def _loop(pair: Pair) -> None:
    pair.driver.write_descriptor(0, pair.ram.base, 1, wire.F_NEXT, 1)
    pair.driver.write_descriptor(1, pair.ram.base, 1, wire.F_NEXT, 0)


def _table(pair: Pair, length: int, entries: list[tuple[int, int, int, int]], flags: int = 0) -> None:
    """An indirect table behind descriptor 0."""
    gpa = pair.ram.allocate(max(16 * len(entries), 16))
    for place, entry in enumerate(entries):
        pair.ram.write(gpa + 16 * place, wire.DESCRIPTOR.pack(*entry))
    pair.driver.write_descriptor(0, gpa, length, wire.F_INDIRECT | flags)


def _good(pair: Pair) -> tuple[int, int, int, int]:
    return (pair.ram.base, 1, 0, 0)


def _empty_table(pair: Pair) -> None:
    _table(pair, 0, [])


def _odd_table(pair: Pair) -> None:
    _table(pair, 17, [_good(pair), _good(pair)])


def _huge_table(pair: Pair) -> None:
    gpa = pair.ram.allocate(1025 * 16)
    pair.driver.write_descriptor(0, gpa, 1025 * 16, wire.F_INDIRECT)


def _four_gigabyte_table(pair: Pair) -> None:
    _table(pair, 0xFFFF_FFF0, [_good(pair)])


def _table_nowhere(pair: Pair) -> None:
    pair.driver.write_descriptor(0, _NOWHERE, 16, wire.F_INDIRECT)


def _nested_table(pair: Pair) -> None:
    _table(pair, 16, [(pair.ram.base, 16, wire.F_INDIRECT, 0)])


def _table_and_next(pair: Pair) -> None:
    _table(pair, 16, [_good(pair)], wire.F_NEXT)


def _loop_in_table(pair: Pair) -> None:
    _table(pair, 32, [(pair.ram.base, 1, wire.F_NEXT, 1), (pair.ram.base, 1, wire.F_NEXT, 0)])


def _next_outside_table(pair: Pair) -> None:
    _table(pair, 16, [(pair.ram.base, 1, wire.F_NEXT, 1)])


def _too_many(pair: Pair) -> None:
    pair.driver.write_descriptor(1, pair.ram.base, 1, wire.F_NEXT, 0)
    _table(pair, 1024 * 16, [(pair.ram.base, 1, wire.F_NEXT, n + 1) for n in range(1023)] + [_good(pair)])


_SHAPELESS = [
    (_next_outside, "next descriptor 8 in a table of 8"),
    (_loop, "loop"),
    (_empty_table, "indirect table of 0 bytes"),
    (_odd_table, "indirect table of 17 bytes"),
    (_huge_table, "indirect table of 16400 bytes"),
    (_four_gigabyte_table, "indirect table of 4294967280 bytes"),
    (_table_nowhere, "indirect table: no guest memory"),
    (_nested_table, "inside an indirect table"),
    (_table_and_next, "both INDIRECT and NEXT"),
    (_loop_in_table, "loop"),
    (_next_outside_table, "next descriptor 1 in an indirect table of 1"),
]


@pytest.mark.parametrize(("attack", "why"), _SHAPELESS)
def test_chain_without_shape(pair: Pair, attack: Attack, why: str) -> None:
    """Descriptors that form no chain: the device is told why, and has nothing it could read or write."""
    attack(pair)
    _go(pair, 0)
    (chain,) = pair.held
    assert why in (chain.fault or "")
    assert chain.readable == chain.writable == []
    assert not chain.patch(0, b"x")
    assert not chain.patch(-1, b"x")
    chain.complete(0)
    assert pair.driver.take_used() == (0, 0)
    _still_serves(pair)


def test_too_many_descriptors(pair: Pair) -> None:
    """A table of 1024 after one more descriptor is one too many."""
    _too_many(pair)
    _go(pair, 1)
    assert "1025 descriptors" in (pair.held[0].fault or "")
    _still_serves(pair)


def test_write_flag_on_a_table(pair: Pair) -> None:
    """WRITE on the descriptor of an indirect table means nothing (VIRTIO 2.7.5.3.2)."""
    _table(pair, 16, [_good(pair)], wire.F_WRITE)
    _go(pair, 0)
    assert pair.held[0].fault is None
    assert pair.held[0].readable_length == 1


def _hole(ram: GuestRam) -> list[Piece]:
    return [Piece(_NOWHERE, 16)]


def _over_the_end(ram: GuestRam) -> list[Piece]:
    return [Piece(ram.base + ram.size - 8, 16)]


def _wrap(ram: GuestRam) -> list[Piece]:
    return [Piece((1 << 64) - 8, 16)]


def _writable_hole(ram: GuestRam) -> list[Piece]:
    return [Piece(_NOWHERE, 16, writable=True)]


def _wrong_order(ram: GuestRam) -> list[Piece]:
    return [Piece(ram.allocate(4), 4, writable=True), Piece(ram.allocate(16), 16)]


def _too_long(ram: GuestRam) -> list[Piece]:
    step = ram.size - 4096
    return [Piece(ram.base, step)] * (MAX_REQUEST_BYTES // step + 1)


_FAULTY = [_hole, _over_the_end, _wrap, _writable_hole, _wrong_order]
_WHY = ["no guest memory", "no guest memory", "no guest memory", "no guest memory", "after a writable one"]


@pytest.mark.parametrize(("pieces", "why"), list(zip(_FAULTY, _WHY, strict=True)))
def test_faulty_buffer(pair: Pair, pieces: Callable[[GuestRam], list[Piece]], why: str) -> None:
    """Good shape, bad buffer: the device gets no views but can still write a status into what is reachable."""
    status = Piece(pair.ram.allocate(2), 2, writable=True)
    request = pair.driver.post([*pieces(pair.ram), status])
    pair.driver.publish()
    (chain,) = pair.held
    assert why in (chain.fault or "")
    assert chain.readable == chain.writable == []
    assert chain.patch(-1, b"\x01")
    assert pair.ram.read(status.gpa, 2) == b"\0\x01"
    chain.complete(0)
    assert pair.driver.take_used() == (request.head, 0)
    _still_serves(pair)


def test_unreachable_status(pair: Pair) -> None:
    """A status outside guest memory, wholly or in part, is not written at all."""
    last = pair.ram.base + pair.ram.size - 1
    pair.driver.post([Piece(last, 1, writable=True), Piece(_NOWHERE, 1, writable=True)])
    pair.driver.publish()
    (chain,) = pair.held
    assert not chain.patch(-1, b"x")
    assert not chain.patch(0, b"xy")
    assert not chain.patch(1, b"xy")
    assert not chain.patch(-3, b"x")
    assert pair.ram.read(last, 1) == b"\0"


def test_total_length(make_pair: MakePair) -> None:
    """Descriptors that add up to more than a request may have, though each is guest memory."""
    pair = make_pair(64)
    pair.driver.post([*_too_long(pair.ram), Piece(pair.ram.allocate(1), 1, writable=True)])
    pair.driver.publish()
    assert "bytes in one request" in (pair.held[0].fault or "")
    assert pair.held[0].patch(-1, b"x")


def test_empty_descriptors(pair: Pair) -> None:
    """Descriptors of no length are skipped, wherever they point; a chain of nothing else is empty."""
    pair.driver.post([Piece(_NOWHERE, 0), Piece(_NOWHERE, 0, writable=True)])
    pair.driver.publish()
    (chain,) = pair.held
    assert (chain.fault, chain.readable, chain.writable) == (None, [], [])
    _still_serves(pair)


def test_descriptor_changed_after_it_was_taken(pair: Pair) -> None:
    """The device works on the copy that it checked."""
    request = pair.driver.submit(b"x", 4)
    for slot in request.slots:
        pair.driver.write_descriptor(slot, _NOWHERE, 1 << 31, wire.F_WRITE)
    (chain,) = pair.held
    chain.write(0, b"done")
    chain.complete(4)
    pair.driver.completions()
    assert request.data_in == b"done"


def test_faulty_request_is_not_logged_as_dirty(pair: Pair) -> None:
    """The dirty log sees only what was written, not the wild addresses of a faulty chain."""
    status = Piece(pair.ram.allocate(1), 1, writable=True)
    marks: list[tuple[int, int]] = []
    pair.ring.memory.mark_written = lambda gpa, length: marks.append((gpa, length))
    pair.driver.post([Piece(_NOWHERE, 1 << 31, writable=True), status])
    pair.driver.publish()
    pair.held[0].patch(-1, b"\x01")
    pair.held[0].complete(0)
    assert marks == [(status.gpa, 1)]


def test_more_in_use_than_entries(pair: Pair) -> None:
    """A full ring of entries while one is in flight: that one's double is refused, the others run."""
    heads = [*range(_SIZE)]
    for head in heads:
        pair.driver.write_descriptor(head, pair.ram.base, 1)
    _go(pair, 0)
    for head in heads:
        pair.driver.offer(head)
    pair.driver.publish()
    assert pair.driver.take_used() == (0, 0)
    assert [chain.head for chain in pair.held] == heads
    assert pair.device.in_flight == _SIZE
