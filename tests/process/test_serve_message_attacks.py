"""What a hostile front end can send besides bad bytes: descriptors of every kind, crowds, and half of everything.

After each row: the process lives, another export serves, nothing leaks, and the log has one line.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import struct
from typing import TYPE_CHECKING

import pytest
from guests import MIB, Blk, Watch, eventually

from qemu_odx.testing.frontend import RefusedError
from qemu_odx.testing.ram import GuestRam
from qemu_odx.wire.vhost_user import (
    FLAG_NEED_REPLY,
    HEADER,
    U64,
    VERSION,
    Inflight,
    LogBase,
    MemoryRegion,
    Request,
    VringState,
    pack_memory_table,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from qemu_odx.testing.serve import ServeProcess

REGION = MemoryRegion(1 << 40, 1 << 20, 1 << 41, 0)

TAKERS: dict[str, tuple[int, bytes]] = {
    "memory": (Request.ADD_MEM_REG, REGION.pack_single()),
    "memory table": (Request.SET_MEM_TABLE, pack_memory_table((REGION,))),
    "kick": (Request.SET_VRING_KICK, U64.pack(0)),
    "call": (Request.SET_VRING_CALL, U64.pack(0)),
    "error": (Request.SET_VRING_ERR, U64.pack(0)),
    "log": (Request.SET_LOG_BASE, LogBase(4096, 0).pack()),
    "in-flight area": (Request.SET_INFLIGHT_FD, Inflight(4096, 0, 1, 128).pack()),
    "back end socket": (Request.SET_BACKEND_REQ_FD, b""),
}
"""Messages that bring one descriptor."""


def _pipe() -> int:
    read, write = os.pipe()
    os.close(write)
    return read


def _short() -> int:
    fd = os.memfd_create("short")
    os.ftruncate(fd, 100)
    return fd


def _read_only() -> int:
    fd = os.memfd_create("read-only")
    os.ftruncate(fd, 1 << 21)
    try:
        return os.open(f"/proc/self/fd/{fd}", os.O_RDONLY)
    finally:
        os.close(fd)


def _epoll() -> int:
    with select.epoll() as poll:
        return os.dup(poll.fileno())


KINDS: dict[str, Callable[[], int]] = {
    "a folder": lambda: os.open("/", os.O_RDONLY),
    "the name of a file": lambda: os.open("/etc/hostname", os.O_PATH),
    "/dev/null": lambda: os.open("/dev/null", os.O_RDWR),
    "/dev/zero": lambda: os.open("/dev/zero", os.O_RDWR),
    "a pipe whose other end is closed": _pipe,
    "an epoll": _epoll,
    "a file that is too short": _short,
    "a file for reading only": _read_only,
}


@pytest.fixture
def server(survivor: ServeProcess) -> ServeProcess:
    """The server, as if it had said nothing yet."""
    survivor.forget_errors()
    return survivor


@pytest.fixture
def guest(server: ServeProcess, guests: Callable[..., Blk], watch: Watch) -> Iterator[Blk]:
    """Who attacks; at the end a guest elsewhere must serve, and then the next one here."""
    other = guests(server.sockets[2]).go()
    attacker = guests(server.sockets[0]).go()
    yield attacker
    assert other.read(0, 512) == bytes(512)
    for one in (attacker, other):
        one.front.lose()
    again = guests(server.sockets[0]).go()
    again.read(0, 512)
    again.front.lose()
    watch.check()


def dropped(server: ServeProcess) -> str:
    """The only line in the log, which says so."""
    eventually(lambda: server.errors().endswith("\n"), "nothing was logged")
    (line,) = server.errors().splitlines()
    assert line.startswith("qemu-odx serve: b0.sock: the front end was dropped: ")
    return line


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("taker", TAKERS)
def test_a_descriptor_of_the_wrong_kind(guest: Blk, server: ServeProcess, taker: str, kind: str) -> None:
    """Refused, whatever it is, and closed."""
    request, payload = TAKERS[taker]
    fd = KINDS[kind]()
    guest.front.send(request, payload, [fd])
    os.close(fd)
    assert guest.front.closed_by_back_end()
    assert Request(request).name in dropped(server)


@pytest.mark.parametrize("count", [0, 2, 8])
@pytest.mark.parametrize("taker", TAKERS)
def test_too_few_and_too_many_descriptors(guest: Blk, server: ServeProcess, taker: str, count: int) -> None:
    """None where one belongs; more than one."""
    request, payload = TAKERS[taker]
    guest.front.send(request, payload, [guest.front.ram.fd] * count)
    assert guest.front.closed_by_back_end()
    assert Request(request).name in dropped(server)


@pytest.mark.parametrize("request_id", [*Request, 44, 255, 0xFFFF_FFFF])
@pytest.mark.parametrize("size", [0, 7, 300])
def test_every_request_with_a_payload_of_nonsense(
    guest: Blk, server: ServeProcess, request_id: int, size: int
) -> None:
    """Served if it is well-formed by chance, refused or dropped else: at most one line."""
    guest.front.send_bytes(HEADER.pack(request_id, VERSION | FLAG_NEED_REPLY, size) + b"\xa5" * size)
    with contextlib.suppress(ConnectionError, AssertionError):
        guest.front.sync()
    assert len(server.errors().splitlines()) <= 1


@pytest.mark.parametrize("number", [0, 3, 100, 32769, 65536, 0xFFFF_FFFF])
def test_a_queue_of_an_impossible_size(guest: Blk, server: ServeProcess, number: int) -> None:
    """By a front end that asks for an answer; the queue still runs."""
    with pytest.raises(RefusedError):
        guest.front.acknowledged(Request.SET_VRING_NUM, VringState(0, number).pack())
    assert f"queue 0 of {number} entries" in server.errors()
    assert len(guest.read(0, 512)) == 512


def test_more_regions_than_slots(guest: Blk, server: ServeProcess) -> None:
    """Every one of 512 is taken, the next one is refused, and all are given back."""

    def plug(place: int) -> None:
        at = place << 20
        guest.front.plug(MemoryRegion((1 << 40) + at, 4096, (1 << 41) + at, 0), guest.front.ram.fd)

    for place in range(512 - len(guest.front.ram.regions)):
        plug(place)
    with pytest.raises(RefusedError):
        plug(513)
    assert "more than 512 memory regions" in server.errors()
    assert len(guest.read(0, 512)) == 512


def test_memory_taken_away_under_the_rings(guest: Blk) -> None:
    """What is in flight and the rings themselves stay mapped; requests after that are errors."""
    for region in guest.front.ram.regions:
        guest.front.unplug(MemoryRegion(region.gpa, region.size, region.uva, region.offset))
    done = guest.queue.execute(bytes(16), 513)
    assert done.data_in[-1] != 0 or done.written == 0


def test_half_a_message_holds_up_nobody(guest: Blk, server: ServeProcess, guests: Callable[..., Blk]) -> None:
    """Nor do descriptors that came with it; and its end closes them."""
    message = HEADER.pack(Request.ADD_MEM_REG, VERSION, 40) + REGION.pack_single()
    guest.front.send_bytes(message[:1], [guest.front.ram.fd])
    guest.front.send_bytes(message[1:30])
    other = guests(server.sockets[1]).go()
    assert len(other.read(0, 512)) == 512
    other.front.lose()
    assert server.errors() == ""


def test_a_message_byte_by_byte(guest: Blk, server: ServeProcess) -> None:
    """The stream has no borders."""
    for byte in HEADER.pack(Request.GET_QUEUE_NUM, VERSION, 0):
        guest.front.send_bytes(bytes([byte]))
    assert U64.unpack(guest.front.reply(Request.GET_QUEUE_NUM)[0]) == (8,)
    assert server.errors() == ""


def test_hundreds_of_connections(guest: Blk, server: ServeProcess) -> None:
    """One front end at a time: all others are turned away, with a line each, and the one goes on."""
    crowd = []
    for _ in range(300):
        one = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        one.connect(server.sockets[0])  # waits for room in the queue
        one.settimeout(60)
        crowd.append(one)
    for one in crowd:
        assert one.recv(1) == b""
        one.close()
    assert len(guest.read(0, 512)) == 512
    lines = server.errors().splitlines()
    assert lines == ["qemu-odx serve: b0.sock: a second front end was refused: one at a time is served"] * 300


def test_connections_that_come_and_go(server: ServeProcess, guests: Callable[..., Blk], watch: Watch) -> None:
    """Two hundred, each with its descriptors and memory, each dropped in the middle of something."""
    for number in range(200):
        guest = guests(server.sockets[0], ram=GuestRam(MIB))
        guest.front.connect()
        if number % 2:
            guest.front.start()
        guest.front.send_bytes(struct.pack("=IIIQ", Request.SET_VRING_KICK, VERSION, 8, 0)[: number % 20])
        guest.front.lose()
    watch.check()
    assert server.errors() == ""


def test_a_reply_that_nobody_takes(server: ServeProcess, guests: Callable[..., Blk], watch: Watch) -> None:
    """In-flight areas for nothing: their descriptors are closed with the connection."""
    guest = guests(server.sockets[0])
    guest.front.connect()
    with contextlib.suppress(ConnectionError):
        for _ in range(500):
            guest.front.send(Request.GET_INFLIGHT_FD, Inflight(0, 0, 8, 1024).pack())
    guest.front.lose()
    watch.check()
    assert len(server.errors().splitlines()) <= 1
