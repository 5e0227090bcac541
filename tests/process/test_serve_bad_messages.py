"""Front ends that break the protocol: only they suffer, and nothing of them is left."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
from guests import Blk, eventually

from qemu_odx.testing.frontend import RefusedError
from qemu_odx.wire.vhost_user import (
    HEADER,
    U64,
    ConfigSpace,
    Inflight,
    MemoryRegion,
    Request,
    VringAddress,
    VringState,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from qemu_odx.testing.serve import ServeProcess


@pytest.fixture
def server(shared: ServeProcess) -> ServeProcess:
    """One server for all of them."""
    return shared


def message(request: int, payload: bytes = b"", flags: int = 1, size: int | None = None) -> bytes:
    """A message whose header may lie."""
    return HEADER.pack(request, flags, len(payload) if size is None else size) + payload


REGION = MemoryRegion(1 << 40, 1 << 30, 1 << 40, 0)
BAD: dict[str, tuple[bytes, int, str]] = {
    "protocol version 2": (message(1, flags=2), 0, "GET_FEATURES has flags 0x2"),
    "payload of 4 GiB": (message(2, size=0xFFFFFFFF), 0, "SET_FEATURES announces 4294967295 bytes"),
    "unknown request": (message(77), 0, "request 77: this back end does not know"),
    "request 0": (message(0), 0, "request 0: this back end does not know"),
    "short payload": (message(2, b"abc"), 0, "SET_FEATURES: a payload of 3 bytes, not 8"),
    "nine descriptors": (message(3), 9, "more than 8 file descriptors"),
    "200 descriptors": (message(3), 200, "more than 8 file descriptors"),
    "descriptors where none belong": (message(1), 3, "GET_FEATURES: 3 file descriptors, not 0"),
    "queue that is not there": (message(8, VringState(9999, 128).pack()), 0, "there is no queue 9999"),
    "kick of a queue that is not there": (message(12, U64.pack(0xFF)), 1, "there is no queue 255"),
    "kick without a descriptor": (message(12, U64.pack(0)), 0, "contradicts"),
    "kick that is a file": (message(12, U64.pack(0)), 1, "is no eventfd"),
    "queue of 1000 entries": (message(8, VringState(0, 1000).pack()), 0, "queue 0 of 1000 entries"),
    "memory beyond its file": (message(37, REGION.pack_single()), 1, "larger than its file"),
    "memory removed twice": (message(38, REGION.pack_single()), 0, "REM_MEM_REG: no memory region"),
    "configuration beyond its end": (
        message(24, ConfigSpace(0xFFFFFFFF, 1, 0, b"x").pack()),
        0,
        "GET_CONFIG: a configuration space of 4294967296 bytes",
    ),
    "in-flight area of nothing": (message(31, Inflight(0, 0, 1, 0).pack()), 0, "1 queues of 0 entries"),
    "in-flight file too short": (
        message(32, Inflight(1 << 40, 1 << 41, 1, 128).pack()),
        1,
        "the in-flight area is larger than its file",
    ),
    "a reply": (message(1, flags=0x5), 0, "GET_FEATURES has flags 0x5: not a request"),
    "noise": (b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", 0, "has flags 0x5448202f"),
}


@pytest.mark.parametrize(("data", "fds", "text"), BAD.values(), ids=BAD.keys())
def test_a_bad_message_hurts_only_its_sender(
    server: ServeProcess, guests: Callable[..., Blk], data: bytes, fds: int, text: str
) -> None:
    """One line names the fault; the other guest reads on; nothing leaks; the next front end is served."""
    other = guests(server.sockets[2]).go()
    other.write(0, b"other" * 102 + b"!!")
    before = server.descriptors(), server.mappings()
    guest = guests(server.sockets[0]).go()
    guest.front.sync()
    guest.front.send_bytes(data, [guest.front.ram.fd] * fds)
    assert guest.front.closed_by_back_end()
    assert other.read(0, 512) == b"other" * 102 + b"!!"
    eventually(lambda: (server.descriptors(), server.mappings()) == before, "something leaked")
    assert server.alive
    (line,) = server.errors().splitlines()
    assert line.startswith("qemu-odx serve: b0.sock: the front end was dropped: ")
    assert text in line
    assert guests(server.sockets[0]).go().read(0, 512) == bytes(512)


@pytest.mark.parametrize(
    ("field", "value", "text"),
    [
        ("descriptor", 0x10_0000, "descriptor table of queue 0 at 0x100000"),
        ("used", (1 << 64) - 4, "used ring of queue 0"),
        ("available", 3, "is not aligned to 2 bytes"),
    ],
)
def test_a_ring_outside_memory_is_refused(
    server: ServeProcess, guests: Callable[..., Blk], field: str, value: int, text: str
) -> None:
    """The guest chooses these addresses. A front end that asks for acknowledgements is told so and goes on."""
    guest = guests(server.sockets[0], modern=True).go()
    guest.front.stop()
    names = ("index", "flags", "descriptor", "used", "available", "log")
    good = guest.front.ring_address(0)
    fields = {name: getattr(good, name) for name in names}
    guest.front.send(Request.SET_VRING_ADDR, VringAddress(**{**fields, field: value}).pack())
    guest.front.send(Request.SET_VRING_KICK, U64.pack(0), [guest.front.vrings[0].kick])
    with pytest.raises(RefusedError):
        guest.front.enable(0, on=True)
    assert text in server.errors()
    guest.front.send(Request.SET_VRING_ADDR, good.pack())
    guest.front.enable(0, on=True)
    assert guest.read(0, 512) == bytes(512)


def test_a_flood_of_messages_leaves_the_others_their_turn(
    server: ServeProcess, guests: Callable[..., Blk]
) -> None:
    """Ten thousand at once, while another guest reads."""
    other = guests(server.sockets[2]).go()
    guest = guests(server.sockets[0])
    guest.front.connect()
    for _ in range(100):
        guest.front.send_bytes(message(Request.SET_OWNER) * 100)
        assert other.read(0, 512) == bytes(512)
    guest.front.sync()
    assert server.errors() == ""


def test_a_front_end_that_never_reads_is_dropped(server: ServeProcess, guests: Callable[..., Blk]) -> None:
    """Its replies are not kept for it."""
    guest = guests(server.sockets[0])
    guest.front.connect()

    def ask_for_ever() -> None:
        for _ in range(100_000):
            guest.front.send(Request.GET_FEATURES)

    with pytest.raises((BrokenPipeError, ConnectionResetError)):
        ask_for_ever()
    eventually(lambda: "does not read its replies" in server.errors(), "it was not dropped")
    assert guests(server.sockets[0]).go().read(0, 512) == bytes(512)


def test_a_kick_descriptor_of_somebody_else_is_harmless(
    server: ServeProcess, guests: Callable[..., Blk]
) -> None:
    """The same eventfd as kick and call: the queue kicks itself, and other exports are served."""
    guest = guests(server.sockets[0])
    os.close(guest.front.vrings[0].call)
    guest.front.vrings[0].call = os.dup(guest.front.vrings[0].kick)
    guest.go()
    guest.queue.submit(bytes(16), 513)
    other = guests(server.sockets[2]).go()
    assert other.read(0, 512) == bytes(512)
