"""Dirty logging over a real socket: the pages that the server writes, and only those, are marked."""

from __future__ import annotations

import functools
import mmap
import os
from typing import TYPE_CHECKING

import pytest
from guests import MIB, Blk

from qemu_odx.cli.monitor_client import MonitorClient
from qemu_odx.testing.monitor_faults import MonitorFaults
from qemu_odx.testing.ram import GuestRam
from qemu_odx.testing.serve import ServeProcess
from qemu_odx.wire.virtio import blk

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from qemu_odx.testing.driver import Request

PAGE = 4096
LOG_SIZE = 4096
"""Bytes: for 128 MiB of guest addresses."""


@pytest.fixture
def server(shared: ServeProcess) -> ServeProcess:
    """One server for all of them."""
    return shared


@pytest.fixture
def bitmap() -> Iterator[tuple[int, mmap.mmap]]:
    """A log file that QEMU could have made, and its bytes."""
    fd = os.memfd_create("vhost-log", os.MFD_ALLOW_SEALING)
    os.ftruncate(fd, LOG_SIZE)
    with mmap.mmap(fd, LOG_SIZE) as pages:
        yield fd, pages
    os.close(fd)


def taken(bits: mmap.mmap) -> set[int]:
    """The pages marked since the last call, as QEMU takes them. The used ring's page is marked after its index."""
    found = {n for n in range(8 * LOG_SIZE) if bits[n // 8] >> n % 8 & 1}
    bits[:] = bytes(LOG_SIZE)
    return found


def pages(gpa: int, length: int) -> set[int]:
    """The pages of a range."""
    return set(range(gpa // PAGE, (gpa + length - 1) // PAGE + 1))


def written(request: Request) -> set[int]:
    """The pages of a request's writable part."""
    return set().union(*(pages(piece.gpa, piece.length) for piece in request.pieces if piece.writable))


def used_ring(guest: Blk) -> set[int]:
    """The pages of the used ring."""
    queue = guest.queue
    return pages(queue.used_gpa, 6 + 8 * queue.size)


def first_bytes(ram: GuestRam) -> bytes:
    """The first byte of each page: enough to see random data arrive, and quick."""
    return bytes(ram.view(ram.base, ram.size)[::PAGE])


def execute(guest: Blk, kind: int, data: bytes = b"", room: int = 0) -> Request:
    """One request, and the bits that follow it."""
    done = guest.queue.execute(blk.HEADER.pack(kind, 0, 0) + data, room + 1)
    guest.front.sync()
    return done


def test_every_kind_of_write_to_guest_memory_is_logged(guest: Blk, bitmap: tuple[int, mmap.mmap]) -> None:
    """Data, status bytes and the used ring, from 4 KiB reads inline to 8 MiB on a worker."""
    fd, bits = bitmap
    guest.write(0, os.urandom(MIB))
    guest.front.start_log(fd, LOG_SIZE)
    assert taken(bits) == set()
    for room in (512, 4096, 5000 // 512 * 512, 65536, MIB, 8 * MIB):
        done = execute(guest, blk.RequestType.IN, room=room)
        assert taken(bits) == written(done) | used_ring(guest)
    others = (
        (blk.RequestType.OUT, b"x" * 4096, 0),
        (blk.RequestType.FLUSH, b"", 0),
        (blk.RequestType.GET_ID, b"", 20),
        (77, b"", 0),
        (blk.RequestType.IN, b"", 513),
    )
    for kind, data, room in others:
        done = execute(guest, kind, data, room)
        assert taken(bits) == written(done) | used_ring(guest)


def test_a_broken_request_is_logged_too(guest: Blk, bitmap: tuple[int, mmap.mmap]) -> None:
    """A status byte written into a chain that makes no sense otherwise."""
    fd, bits = bitmap
    guest.front.start_log(fd, LOG_SIZE)
    queue, ram = guest.queue, guest.front.ram
    status = ram.allocate(1, PAGE)
    ram.write(status, b"\xff")
    queue.write_descriptor(0, 1 << 50, 16, flags=1, following=1)
    queue.write_descriptor(1, status, 1, flags=2)
    queue.offer(0)
    queue.publish()
    queue.wait()
    guest.front.sync()
    assert ram.read(status, 1) == bytes([blk.Status.IOERR])
    assert taken(bits) == pages(status, 1) | used_ring(guest)


def read_while_logging_begins(
    guest: Blk, bitmap: tuple[int, mmap.mmap], sectors: Sequence[int], logging: Callable[[], None]
) -> int:
    """Reads that run when logging begins: how many pages changed from then on. Each of them is marked.

    `logging` is called once it has begun. In the end it is over, and nothing is marked any more.
    """
    fd, bits = bitmap
    ram = guest.front.ram
    headers = [blk.HEADER.pack(blk.RequestType.IN, 0, sector) for sector in sectors]
    requests = [guest.queue.submit(header, 4 * MIB + 1) for header in headers]
    guest.front.start_log(fd, LOG_SIZE)
    before = first_bytes(ram)
    logging()
    while any(request.written is None for request in requests):
        if not guest.queue.completions():
            guest.queue.wait()
    guest.front.sync()
    changed = {n for n, (old, new) in enumerate(zip(before, first_bytes(ram), strict=True)) if old != new}
    assert {ram.base // PAGE + n for n in changed} <= taken(bits)
    guest.front.stop_log()
    guest.read(0, 65536)
    guest.front.sync()
    assert taken(bits) == set()
    return len(changed)


def test_logging_begins_and_ends_while_requests_run(
    tmp_path: Path, guests: Callable[..., Blk], bitmap: tuple[int, mmap.mmap]
) -> None:
    """From the acknowledgement on, no page changes unmarked; after the end nothing is marked.

    One request is held until the log is there; later, without that, it is up to the machine how many still run then.
    """
    arguments = [
        *("--disk", "id=d0,path=a.img,size=64M", "--export", "type=vhost-user-blk,socket=b.sock,disk=d0"),
        *("--monitor", "m.sock", "--fault", f"name=held,op=IN,lba={32 * 2048},action=stall"),
    ]
    with ServeProcess(arguments, cwd=tmp_path), MonitorClient(str(tmp_path / "m.sock")) as monitor:
        guest = guests(str(tmp_path / "b.sock"), ram=GuestRam(100 * MIB)).go()
        guest.write(32 * 2048, os.urandom(4 * MIB))
        release = functools.partial(MonitorFaults(monitor.execute).release, "held")
        changes = read_while_logging_begins(guest, bitmap, [*[0] * 15, 32 * 2048], release)
        assert changes > 2 * MIB // PAGE, "the held request had ended before the log was there"
        for _ in range(5):
            guest.write(0, os.urandom(4 * MIB))
            read_while_logging_begins(guest, bitmap, [0] * 16, lambda: None)


def test_a_reconnect_during_a_migration(
    guest: Blk, server: ServeProcess, bitmap: tuple[int, mmap.mmap]
) -> None:
    """The log comes again with the start."""
    fd, bits = bitmap
    guest.front.start_log(fd, LOG_SIZE)
    guest.read(0, 512)
    guest.front.resume()
    taken(bits)
    done = execute(guest, blk.RequestType.IN, room=4096)
    assert taken(bits) == written(done) | used_ring(guest)
    assert "dropped" not in server.errors()


def test_two_devices_of_one_guest_share_a_log(
    server: ServeProcess, guests: Callable[..., Blk], bitmap: tuple[int, mmap.mmap]
) -> None:
    """QEMU gives both the same bitmap."""
    fd, bits = bitmap
    pair = [guests(server.sockets[n]).go() for n in (0, 2)]
    for one in pair:
        one.front.start_log(fd, LOG_SIZE)
    expected: set[int] = set()
    for one in pair:
        expected |= written(execute(one, blk.RequestType.IN, room=65536)) | used_ring(one)
    assert taken(bits) == expected


def test_a_log_that_is_shrunk_hurts_only_its_owner(
    server: ServeProcess, guests: Callable[..., Blk], bitmap: tuple[int, mmap.mmap]
) -> None:
    """The bits have nowhere to go: the connection ends."""
    fd, _ = bitmap
    guest = guests(server.sockets[0]).go()
    guest.front.start_log(fd, LOG_SIZE)
    os.ftruncate(fd, 0)
    guest.queue.submit(blk.HEADER.pack(blk.RequestType.FLUSH, 0, 0), 1)
    assert guest.front.closed_by_back_end()
    os.ftruncate(fd, LOG_SIZE)
    assert "made shorter" in server.errors()
    assert guests(server.sockets[2]).go().read(0, 512) == bytes(512)
