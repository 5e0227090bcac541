"""Guest memory that comes, goes, and is cut off under the server."""

from __future__ import annotations

import os
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
from guests import MIB, Blk, eventually, frozen

from qemu_odx.testing.driver import Piece
from qemu_odx.testing.ram import GuestRam
from qemu_odx.wire.vhost_user import MemoryRegion
from qemu_odx.wire.virtio import blk

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from qemu_odx.testing.serve import ServeProcess

READ = blk.HEADER.pack(blk.RequestType.IN, 0, 0)
SHORTER = "a memory file that it shares was made shorter than it said; do not truncate it"


@pytest.fixture
def server(shared: ServeProcess) -> ServeProcess:
    """One server for all of them."""
    return shared


@contextmanager
def reading(guest: Blk) -> Iterator[None]:
    """Another guest reads without a pause, and gets what it wrote."""
    data, over, failed = os.urandom(4096), threading.Event(), []
    guest.write(0, data)

    def read() -> None:
        while not over.is_set():
            if guest.read(0, 4096) != data:
                failed.append("other data")

    thread = threading.Thread(target=read)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
    assert not failed


def cut(server: ServeProcess, guest: Blk, keep: int) -> None:
    """Truncate a guest's memory between its kick and the server's look at the ring; then wait for the end."""
    ram = guest.front.ram
    with frozen(server):
        for _ in range(20):
            guest.queue.submit(READ, 65536 + 1)
        guest.queue.submit(blk.HEADER.pack(blk.RequestType.OUT, 0, 1000) + b"x" * 4096, 1)
        os.ftruncate(ram.fd, keep)
    assert guest.front.closed_by_back_end()
    os.ftruncate(ram.fd, ram.size)  # so that we can touch it again


@pytest.mark.parametrize(
    ("keep", "what"), [(0, "everything"), (4096, "the buffers"), (20480, "part of the used ring")]
)
def test_memory_cut_off_under_load_ends_that_connection_alone(
    server: ServeProcess, guests: Callable[..., Blk], keep: int, what: str
) -> None:
    """One line each time; the other guest reads on; nothing leaks; the next front end is served."""
    size = 128 if keep < 8192 else 1024  # descriptors 16 KiB, available ring 2 KiB, then the used ring
    before = server.descriptors(), server.mappings()
    for _ in range(3):
        guest = guests(server.sockets[0], queue_size=size).go()
        guest.write(0, b"before" * 85 + b"!!")
        other = guests(server.sockets[2]).go()
        with reading(other):
            cut(server, guest, keep)
        guest.front.lose()
        other.front.lose()
        eventually(lambda: (server.descriptors(), server.mappings()) == before, f"{what}: something leaked")
    lines = server.errors().splitlines()
    assert lines == [f"qemu-odx serve: b0.sock: the front end was dropped: {SHORTER}"] * 3
    again = guests(server.sockets[0]).go()
    assert again.read(0, 512) == b"before" * 85 + b"!!"
    assert again.read(1000, 512) in (bytes(512), b"x" * 512)


def test_a_shrunk_in_flight_area_ends_that_connection_alone(
    server: ServeProcess, guests: Callable[..., Blk]
) -> None:
    """Ours is sealed; a front end may hand over another file."""
    guest = guests(server.sockets[0])
    guest.front.connect()
    area = os.memfd_create("inflight")
    os.ftruncate(area, 8192)
    guest.front.use_inflight(area, 4096)
    guest.front.start()
    guest.write(0, b"1" * 512)
    os.ftruncate(area, 0)
    guest.queue.submit(blk.HEADER.pack(blk.RequestType.FLUSH, 0, 0), 1)
    assert guest.front.closed_by_back_end()
    assert SHORTER in server.errors()
    assert guests(server.sockets[2]).go().read(0, 512) == bytes(512)
    assert guests(server.sockets[0]).go().read(0, 512) == b"1" * 512


class Dimm:
    """Memory that is plugged in and out: one file, somewhere above the rest."""

    GPA, UVA, SIZE = 1 << 32, 1 << 46, 32 * MIB

    def __init__(self) -> None:
        self.fd = os.memfd_create("dimm")
        os.ftruncate(self.fd, self.SIZE)
        self.region = MemoryRegion(self.GPA, self.SIZE, self.UVA, 0)


def read_into(guest: Blk, gpa: int, length: int) -> int:
    """Post a read of the start of the disk to any address; address of the status byte."""
    ram, queue = guest.front.ram, guest.queue
    header, status = ram.allocate(16), ram.allocate(1, 1)
    ram.write(header, READ)
    ram.write(status, b"\xff")
    pieces = [Piece(header, 16), Piece(gpa, length, writable=True), Piece(status, 1, writable=True)]
    queue.post(pieces)
    queue.publish()
    return status


def finish(guest: Blk, count: int) -> None:
    """Wait for so many completions. The buffers may be out of our reach: only the descriptors are free again."""
    queue = guest.queue
    while count:
        if not queue.used_pending():
            queue.wait()
            continue
        head, _ = queue.take_used()
        queue.free.extend(queue._posted.pop(head).slots)
        count -= 1


def test_memory_is_plugged_used_and_unplugged(guest: Blk, server: ServeProcess) -> None:
    """Before and after, a buffer there is an I/O error."""
    dimm, ram = Dimm(), guest.front.ram
    data = os.urandom(65536)
    guest.write(0, data)

    def status() -> int:
        place = read_into(guest, dimm.GPA + 4096, 65536)
        finish(guest, 1)
        return ram.read(place, 1)[0]

    for _ in range(3):
        assert status() == blk.Status.IOERR
        before = server.mappings()
        guest.front.plug(dimm.region, dimm.fd)
        assert server.mappings() == before + 1
        assert status() == blk.Status.OK
        assert os.pread(dimm.fd, 65536, 4096) == data
        guest.front.unplug(dimm.region)
        eventually(lambda: server.mappings() == before, "the region is still mapped")  # noqa: B023
    assert server.errors() == ""
    os.close(dimm.fd)


def test_memory_is_unplugged_with_requests_in_flight_there(guest: Blk, server: ServeProcess) -> None:
    """They end one way or the other, and the mapping goes with the last of them."""
    dimm, ram = Dimm(), guest.front.ram
    guest.write(0, os.urandom(8 * MIB))
    before = server.mappings()
    ends = {blk.Status.OK: 0, blk.Status.IOERR: 0}
    for round_number in range(12):
        guest.front.plug(dimm.region, dimm.fd)
        places = [read_into(guest, dimm.GPA + n * 4 * MIB, 4 * MIB) for n in range(8)]
        if round_number % 2:
            guest.front.sync()
        guest.front.unplug(dimm.region)
        finish(guest, len(places))
        for place in places:
            ends[blk.Status(ram.read(place, 1)[0])] += 1
    eventually(lambda: server.mappings() == before, "the region is still mapped")
    assert ends[blk.Status.OK]
    assert server.errors() == ""
    assert len(guest.read(0, 512)) == 512
    os.close(dimm.fd)


def test_huge_pages(server: ServeProcess, guests: Callable[..., Blk], huge_pages: None) -> None:
    """memory-backend-memfd,hugetlb=on: rings and buffers in 2 MiB pages, cut in the middle of one."""
    ram = GuestRam(8 * MIB, pieces=8, flags=os.MFD_HUGETLB)
    guest = guests(server.sockets[0], ram=ram).go()
    data = os.urandom(3 * MIB)
    guest.write(0, data)
    assert guest.read(0, 3 * MIB) == data
    cut(server, guest, 0)
    assert SHORTER in server.errors()
