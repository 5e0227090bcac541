"""What a hostile guest can write into its rings, row by row, on the real server.

After each row: the process lives, another queue of the same guest and another export serve, nothing leaks, the log
has one line at most, and after a reset the attacked queue serves too.
"""

from __future__ import annotations

import contextlib
import os
import random
import threading
import time
from typing import TYPE_CHECKING

import pytest
from guests import MIB, SIZE, Blk, Watch, eventually
from ring_attacks import BREAKING, END, NOWHERE, ONE_REQUEST, RAM, READ, UNTOUCHED, Stage, ended

from qemu_odx.testing.driver import Piece
from qemu_odx.testing.ram import GuestRam
from qemu_odx.wire.virtio import blk
from qemu_odx.wire.virtio.ring import DESCRIPTOR, F_INDIRECT, F_NEXT, F_WRITE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from qemu_odx.testing.serve import ServeProcess


@pytest.fixture
def server(survivor: ServeProcess) -> ServeProcess:
    """The server, as if it had said nothing yet."""
    survivor.forget_errors()
    return survivor


@pytest.fixture
def stage(server: ServeProcess, guests: Callable[..., Blk], watch: Watch) -> Iterator[Stage]:
    """Two queues of one guest, and a guest elsewhere: both must serve at the end."""
    guest = guests(server.sockets[0], queues=2, ram=GuestRam(RAM)).go()
    guest.write(0, b"sector 0" * 8192)
    other = guests(server.sockets[2]).go()
    yield Stage(guest, guest.queue, guest.front.ram)
    beside = guest.front.queues[1].execute(READ, 513)
    assert beside.data_in[-1] == blk.Status.OK
    assert other.read(0, 512) == bytes(512)
    guest.front.lose()
    other.front.lose()
    again = guests(server.sockets[0]).go()
    assert len(again.read(0, 512)) == 512
    again.front.lose()
    watch.check()


@pytest.mark.parametrize(("attack", "status"), ONE_REQUEST.values(), ids=ONE_REQUEST.keys())
def test_a_bad_request_is_answered(
    stage: Stage, server: ServeProcess, attack: Callable[[Stage], object], status: int
) -> None:
    """By an error status where one can be given; the queue goes on, and nobody is troubled by a line in the log."""
    for _ in range(3):
        stage.ram.write(stage.status, bytes([UNTOUCHED]))
        attack(stage)
        ended(stage, status)
    stage.ram.write(stage.status, bytes([UNTOUCHED]))
    stage.chain(*stage.whole)
    ended(stage, blk.Status.OK)
    assert stage.ram.read(stage.data, 8) == b"sector 0"
    assert server.errors() == ""


@pytest.mark.parametrize(("attack", "reason"), BREAKING.values(), ids=BREAKING.keys())
def test_a_broken_ring_is_out_of_service_until_the_reset(
    stage: Stage, server: ServeProcess, attack: Callable[[Stage], object], reason: str
) -> None:
    """Nothing more is taken from it, its error descriptor is signalled, one line says why."""
    attack(stage)
    front = stage.guest.front
    eventually(lambda: "queue 0 is out of service" in server.errors(), "it was not noticed")
    assert os.eventfd_read(front.vrings[0].error) == 1
    for _ in range(3):
        stage.queue.kick()
    front.sync()
    (line,) = server.errors().splitlines()
    assert line.startswith("qemu-odx serve: b0.sock: queue 0 is out of service until the guest resets: ")
    assert reason in line
    assert stage.queue.used_pending() == 0


def test_the_same_head_twice(stage: Stage, server: ServeProcess) -> None:
    """The first is executed, the second given back with nothing written."""
    stage.queue.write_descriptor(0, stage.header, 16, F_NEXT, 1)
    stage.queue.write_descriptor(1, stage.data, 4096, F_NEXT | F_WRITE, 2)
    stage.queue.write_descriptor(2, stage.status, 1, F_WRITE, 0)
    stage.send(0, 0, 0)
    assert sorted(stage.answers(3)) == [(0, 0), (0, 0), (0, 4097)]
    assert server.errors() == ""


def test_a_read_over_the_rings_themselves(stage: Stage, server: ServeProcess) -> None:
    """The guest's own queue is ruined; ours is the only one that notices."""
    stage.chain((stage.header, 16, 0), (stage.queue.desc_gpa, 4096, F_WRITE), (stage.status, 1, F_WRITE))
    stage.guest.front.sync()
    assert len(server.errors().splitlines()) <= 1


def test_a_flood_of_kicks(stage: Stage, server: ServeProcess) -> None:
    """The counter at its end, again and again; the other queue answers all the while."""
    kick = stage.guest.front.vrings[0].kick
    for _ in range(300):
        with contextlib.suppress(BlockingIOError):  # it is full already
            os.eventfd_write(kick, (1 << 64) - 2)
        done = stage.guest.front.queues[1].execute(READ, 513)
        assert done.data_in[-1] == blk.Status.OK
    assert server.errors() == ""


def _mutate(ram: GuestRam, places: Sequence[int], values: Sequence[bytes], until: threading.Event) -> None:
    chance = random.Random(7)
    while not until.is_set():
        ram.write(chance.choice(places), chance.choice(values))


@pytest.mark.parametrize("indirect", [False, True])
def test_descriptors_that_change_all_the_time(stage: Stage, server: ServeProcess, *, indirect: bool) -> None:
    """A thread rewrites addresses, lengths and flags while requests are taken: each is answered exactly once."""
    table = stage.ram.allocate(48) if indirect else stage.queue.desc_gpa
    entries = (
        DESCRIPTOR.pack(stage.header, 16, F_NEXT, 1),
        DESCRIPTOR.pack(stage.data, 4096, F_NEXT | F_WRITE, 2),
        DESCRIPTOR.pack(stage.status, 1, F_WRITE, 0),
    )
    stage.ram.write(table, b"".join(entries))
    if indirect:
        stage.queue.write_descriptor(0, table, 48, F_INDIRECT, 0)
    values = [
        *entries,
        DESCRIPTOR.pack(NOWHERE, 4096, F_NEXT | F_WRITE, 2),
        DESCRIPTOR.pack(stage.data, 0xFFFF_FFFF, F_NEXT | F_WRITE, 2),
        DESCRIPTOR.pack(stage.data, 512, F_NEXT | F_WRITE, 0),
        DESCRIPTOR.pack(stage.data, 512, F_INDIRECT, 9999),
        DESCRIPTOR.pack(stage.header, 15, F_NEXT, 1),
        DESCRIPTOR.pack(END - 8, 64, F_NEXT, 2),
    ]
    over = threading.Event()
    places = [table + 16 * place for place in range(3)]
    thread = threading.Thread(target=_mutate, args=(stage.ram, places, values, over))
    thread.start()
    count, deadline = 0, time.monotonic() + 1
    try:
        while time.monotonic() < deadline or count <= 100:
            stage.send(0)
            ((head, written),) = stage.answers()
            assert head == 0
            assert written <= 64 * MIB
            count += 1
    finally:
        over.set()
        thread.join()
    assert stage.queue.used_pending() == 0
    assert server.errors() == ""


def test_a_header_that_changes_all_the_time(stage: Stage, server: ServeProcess) -> None:
    """The type and the sector are looked at once: never anything outside of the disk, never a write of a read.

    It goes on until good requests and bad ones were seen.
    """
    stage.ram.write(stage.data, b"\xdd" * 4096)
    headers = [READ, blk.HEADER.pack(0, 0, 1 << 54), blk.HEADER.pack(0, 0, SIZE // 512 - 1), bytes([9]) * 16]
    over = threading.Event()
    thread = threading.Thread(target=_mutate, args=(stage.ram, [stage.header], headers, over))
    thread.start()
    seen, deadline = set(), time.monotonic() + 1
    try:
        while time.monotonic() < deadline or not {blk.Status.OK, blk.Status.IOERR} <= seen:
            stage.chain(*stage.whole)
            stage.answers()
            seen.add(stage.ram.read(stage.status, 1)[0])
    finally:
        over.set()
        thread.join()
    assert server.errors() == ""


def test_an_index_that_changes_all_the_time(stage: Stage, server: ServeProcess) -> None:
    """One line; then the ring is out of service. Which of the values is seen is up to the two processes."""
    chance = random.Random(3)
    for _ in range(3000):
        stage.queue.set_avail_index(chance.choice([stage.queue._published, chance.randrange(1 << 16)]))
        stage.queue.kick()
    stage.queue.set_avail_index(stage.queue._published + 1000 & 0xFFFF)
    stage.queue.kick()
    eventually(lambda: server.errors().endswith("\n"), "it was not noticed")
    stage.guest.front.sync()
    assert len(server.errors().splitlines()) == 1


@pytest.mark.parametrize("seed", range(4))
def test_noise_in_the_whole_ring(stage: Stage, server: ServeProcess, seed: int) -> None:
    """Random bytes as descriptors, with valid heads: every one is answered once."""
    chance = random.Random(seed)
    size = stage.queue.size
    for _ in range(20):
        noise = b"".join(
            DESCRIPTOR.pack(
                chance.choice([stage.header, stage.data, stage.data + 4000, NOWHERE, END - 10, 0]),
                chance.choice([0, 1, 16, 512, 4096, 1 << 20, 0xFFFF_FFFF]),
                chance.randrange(8),
                chance.choice([chance.randrange(size), chance.randrange(1 << 16)]),
            )
            for _ in range(size)
        )
        stage.ram.write(stage.queue.desc_gpa, noise)
        stage.send(*range(size))
        assert sorted(head for head, _ in stage.answers(size)) == list(range(size))
    assert server.errors() == ""


def test_a_good_chain_of_many_forms_is_still_served(stage: Stage) -> None:
    """The attacks above do not pass because everything is refused."""
    pieces = [Piece(gpa, length, writable=bool(flags)) for gpa, length, flags in stage.whole]
    request = stage.queue.post(pieces, indirect=1)
    stage.queue.publish()
    assert stage.answers() == [(request.head, 4097)]
    assert stage.ram.read(stage.status, 1) == b"\0"
