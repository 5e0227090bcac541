"""io_uring against plain reads, and the way to it through the workers."""

from __future__ import annotations

import errno
import mmap
import os
import select
from typing import TYPE_CHECKING

import pytest

from qemu_odx.server.loop import Loop
from qemu_odx.server.uring import MAX_BUFFERS, Uring
from qemu_odx.server.workers import Workers

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SIZE = 1 << 20


@pytest.fixture
def ring() -> Iterator[Uring]:
    """An io_uring of 16 entries."""
    try:
        ring = Uring(16)
    except OSError as error:
        pytest.skip(f"no io_uring here: {error}")
    yield ring
    ring.close()


@pytest.fixture
def fd(tmp_path: Path) -> Iterator[int]:
    """A file of 1 MiB that is not in the page cache."""
    path = tmp_path / "data"
    path.write_bytes(os.urandom(SIZE))
    fd = os.open(path, os.O_RDWR)
    os.fdatasync(fd)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    yield fd
    os.close(fd)


def results(ring: Uring, number: int) -> list[int]:
    """Wait for so many reads; their results in the order of their end."""
    found: list[int] = []
    while len(found) < number:
        assert select.select([ring.eventfd], [], [], 60)[0], "nothing ends"
        for done, result in ring.reap():
            done(result)
            found.append(result)
    return found


def test_reads_what_is_there(ring: Uring, fd: int) -> None:
    """More reads than the ring has entries, in one and in several buffers, each to its own place."""
    memory = memoryview(mmap.mmap(-1, SIZE))
    ended: list[tuple[int, int]] = []
    step = 4096
    for number in range(64):
        at = number * step
        cuts = (
            [memory[at : at + 512], memory[at + 512 : at + step]] if number % 2 else [memory[at : at + step]]
        )
        while not ring.read(
            fd, at, cuts, lambda result, number=number: ended.append((number, result)), apart=bool(number % 3)
        ):  # type: ignore[misc]
            assert ring.submit()
            results(ring, 1)
    assert ring.submit()
    results(ring, ring.in_flight)
    assert sorted(ended) == [(number, step) for number in range(64)]
    assert memory[: 64 * step] == os.pread(fd, 64 * step, 0)
    assert ring.in_flight == 0


def test_bad_ends_are_told(ring: Uring, fd: int) -> None:
    """A read over the end of the file is short, one from no file is an errno."""
    memory = memoryview(bytearray(8192))
    ended: list[int] = []
    assert ring.read(fd, SIZE - 4096, [memory], ended.append, apart=False)
    ring.submit()
    results(ring, 1)
    closed = os.dup(fd)
    os.close(closed)
    assert ring.read(closed, 0, [memory], ended.append, apart=True)
    ring.submit()
    results(ring, 1)
    assert ended == [4096, -errno.EBADF]


def test_too_many_buffers_are_refused(ring: Uring, fd: int) -> None:
    """A worker is as good for those."""
    memory = memoryview(bytearray(MAX_BUFFERS + 1))
    assert not ring.read(
        fd, 0, [memory[n : n + 1] for n in range(MAX_BUFFERS + 1)], lambda _: None, apart=True
    )


def test_the_buffers_live_as_long_as_the_read(ring: Uring, fd: int) -> None:
    """Whoever asked may have forgotten them."""
    memory = bytearray(4096)
    assert ring.read(fd, 0, [memoryview(memory)], lambda _: None, apart=True)
    with pytest.raises(BufferError):
        memory.extend(b"more")
    ring.submit()
    results(ring, 1)
    memory.extend(b"more")


@pytest.mark.parametrize("io_uring", [True, False])
def test_workers_read_beside_the_loop(fd: int, *, io_uring: bool) -> None:
    """Several in one turn, or not at all: then the caller is to run a job."""
    loop = Loop()
    workers = Workers(loop, 1, io_uring=io_uring)
    memory = memoryview(bytearray(8192))
    ended: list[int] = []

    def done(result: int) -> None:
        ended.append(result)
        if len(ended) == 2:
            loop.stop()

    started = [
        workers.read(fd, 0, [memory[:4096]], done, apart=False),
        workers.read(fd, 4096, [memory[4096:]], done, apart=True),
    ]
    assert loop.polling.jobs == started[1]  # nobody spins while a thread of the kernel's wants the processor
    if any(started):
        loop.call_later(60, loop.stop)
        loop.run()
        assert (ended, memory) == ([4096, 4096], os.pread(fd, 8192, 0))
    workers.close()
    loop.close()
    assert (started, loop.polling.jobs) == ([io_uring, io_uring], 0)
