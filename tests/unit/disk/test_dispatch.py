from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING, Any

import pytest

from qemu_odx.disk import file
from qemu_odx.disk.dispatch import INLINE_LIMIT, LONG_READ, TRY_AGAIN, DiskQueue
from qemu_odx.disk.file import FileDisk
from qemu_odx.disk.memory import memory_disk
from qemu_odx.testing.runner import HeldRunner, InlineRunner

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from qemu_odx.disk.port import Io


@pytest.fixture
def disk() -> Iterator[FileDisk]:
    """2 MiB in memory."""
    disk = memory_disk("m", 2 << 20)
    yield disk
    disk.close()


@pytest.fixture
def runner() -> HeldRunner:
    """A runner whose jobs wait."""
    return HeldRunner()


@pytest.fixture
def queue(disk: FileDisk, runner: HeldRunner) -> DiskQueue:
    """A queue whose slow work waits for the test."""
    return DiskQueue(disk, runner)


def test_small_writes_and_cached_reads_are_done_at_once(
    queue: DiskQueue, runner: HeldRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No hand-off for them."""
    done: list[int] = []
    queue.write(0, [b"x" * INLINE_LIMIT], done.append)
    monkeypatch.setattr(queue.disk, "try_read", lambda _offset, into: into[0].__setitem__(0, 7) is None)
    into = bytearray(512)
    queue.read(0, [memoryview(into)], done.append)
    assert (done, into[0], len(runner), queue.idle) == ([0, 0], 7, 0, True)


def test_a_read_miss_goes_to_a_worker(
    queue: DiskQueue, runner: HeldRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is done until the worker was there."""
    queue.disk.write(0, [b"x" * 512])
    monkeypatch.setattr(queue.disk, "try_read", lambda *_: False)
    done: list[int] = []
    into = bytearray(512)
    queue.read(0, [memoryview(into)], done.append)
    assert (done, queue.idle, len(runner)) == ([], False, 1)
    runner.step()
    assert (done, queue.idle, into) == ([0], True, b"x" * 512)


def test_nobody_waits_for_a_host_that_is_behind(
    disk: FileDisk, queue: DiskQueue, runner: HeldRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a write that took long, writes go to a worker for a while, single ones and batches."""
    now = [1000.0]
    monkeypatch.setattr(file, "monotonic", lambda: now[0])
    slow = disk._file.write

    def write(*arguments: Any) -> None:
        now[0] += file.STALL * 1.1
        slow(*arguments)

    done: list[int] = []
    with monkeypatch.context() as patch:
        patch.setattr(disk._file, "write", write)
        queue.write(0, [b"x" * 512], done.append)
    batch: list[Io] = [(True, 0, 512, [b"y" * 512])]
    assert (done, list(disk.try_batch(batch))) == ([0], [0])
    queue.write(0, [b"x" * 512], done.append)
    assert (done, len(runner)) == ([0], 1)
    runner.step()
    now[0] += file.RESPITE
    queue.write(0, [b"x" * 512], done.append)
    assert (done, list(disk.try_batch(batch))) == ([0, 0, 0], [])


class BesideRunner(HeldRunner):
    """A runner that reads beside the loop when the test says so."""

    def __init__(self) -> None:
        super().__init__()
        self.reads: list[tuple[int, Callable[[int], None]]] = []
        self.apart: list[bool] = []

    def read(
        self, fd: int, offset: int, into: Sequence[memoryview], done: Callable[[int], None], *, apart: bool
    ) -> bool:
        """Remember it."""
        assert fd >= 0
        assert into
        self.reads.append((offset, done))
        self.apart.append(apart)
        return True


def test_a_read_miss_is_done_beside_the_loop(disk: FileDisk, monkeypatch: pytest.MonkeyPatch) -> None:
    """No worker; those that follow do not even try the page cache, for a while."""
    runner, tries, done = BesideRunner(), [], []
    queue = DiskQueue(disk, runner)
    monkeypatch.setattr(disk, "try_read", lambda offset, _: tries.append(offset) or len(tries) > 1)
    for number in range(TRY_AGAIN + 2):
        queue.read(512 * number, [memoryview(bytearray(512))], done.append)
    assert not any(runner.apart)
    assert [offset for offset, _ in runner.reads] == [512 * number for number in range(TRY_AGAIN + 1)]
    assert tries == [0, 512 * (TRY_AGAIN + 1)]
    assert (done, queue.idle) == ([0], False)
    for _, ended in runner.reads:
        ended(512)
    assert (done, queue.idle, len(runner)) == ([0] * (TRY_AGAIN + 2), True, 0)


def test_a_long_read_is_copied_apart(disk: FileDisk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a try at the page cache; in the ordinary way if the runner cannot."""
    runner, tries, done = BesideRunner(), [], []
    queue = DiskQueue(disk, runner)
    monkeypatch.setattr(disk, "try_read", lambda offset, _: tries.append(offset) or True)
    queue.read(0, [memoryview(bytearray(LONG_READ))], done.append)
    assert (tries, done, runner.apart) == ([], [], [True])
    runner.reads[0][1](LONG_READ)
    queue.read(512, [memoryview(bytearray(LONG_READ - 1))], done.append)
    monkeypatch.setattr(runner, "read", lambda *_, **__: False)
    queue.read(1024, [memoryview(bytearray(LONG_READ))], done.append)
    assert (tries, done, len(runner)) == ([512, 1024], [0, 0, 0], 0)


def test_a_batch_with_a_miss_spares_the_tries_of_those_that_follow(
    disk: FileDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For as many reads as single ones; writes are always tried."""
    tried: list[Sequence[Io]] = []
    monkeypatch.setattr(disk, "try_batch", lambda batch: tried.append(batch) or [len(batch) - 1])
    queue = DiskQueue(disk, HeldRunner())
    write, read = ((is_write, 0, 512, [memoryview(bytearray(512))]) for is_write in (True, False))
    assert list(queue.try_batch([read, write])) == [1]
    assert list(queue.try_batch([write, read])) == [1]
    tried.clear()
    assert list(queue.try_batch([read, write, write])) == [0, 2]
    assert list(queue.try_batch([read] * (TRY_AGAIN - 1))) == list(range(TRY_AGAIN - 1))
    assert tried == [[write, write]]
    assert list(queue.try_batch([read])) == [0]
    assert tried == [[write, write], [read]]


def test_a_disk_without_a_descriptor_is_always_tried(disk: FileDisk, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a layer on it no batch is done at once, but single reads are, if they are cached."""
    done: list[int] = []
    queue = DiskQueue(disk, HeldRunner())
    monkeypatch.setattr(FileDisk, "descriptor", None)
    monkeypatch.setattr(disk, "try_batch", lambda batch: range(len(batch)))
    read = (False, 0, 512, [memoryview(bytearray(512))])
    assert list(queue.try_batch([read])) == [0]
    queue.read(0, [memoryview(bytearray(512))], done.append)
    assert done == [0]


@pytest.mark.parametrize("result", [511, 0, -errno.EIO, -errno.EFAULT])
def test_what_ends_badly_beside_the_loop_is_a_workers(
    disk: FileDisk, monkeypatch: pytest.MonkeyPatch, result: int
) -> None:
    """Whose word is the last."""
    disk.write(0, [b"x" * 512])
    runner, done, into = BesideRunner(), [], bytearray(512)
    queue = DiskQueue(disk, runner)
    monkeypatch.setattr(disk, "try_read", lambda *_: False)
    queue.read(0, [memoryview(into)], done.append)
    runner.reads[0][1](result)
    assert (done, queue.idle) == ([], False)
    runner.step()
    assert (done, queue.idle, into) == ([0], True, b"x" * 512)


def test_large_reads_and_writes_go_to_a_worker(queue: DiskQueue, runner: HeldRunner) -> None:
    """One byte above the limit is large."""
    done: list[int] = []
    data = os.urandom(INLINE_LIMIT + 1)
    queue.write(0, [data[:9], data[9:]], done.append)
    assert done == []
    runner.step()
    into = bytearray(INLINE_LIMIT + 1)
    queue.read(0, [memoryview(into)], done.append)
    assert done == [0]
    runner.step()
    assert (done, into) == ([0, 0], data)


def test_flush_discard_and_zeroes_go_to_a_worker(queue: DiskQueue, runner: HeldRunner) -> None:
    """They may take as long as the host likes."""
    queue.disk.write(0, [b"x" * 4096])
    done: list[int] = []
    queue.flush(done.append)
    queue.discard(0, 512, done.append)
    queue.write_zeroes(1024, 512, done.append, unmap=False)
    queue.write_zeroes(2048, 512, done.append, unmap=True)
    assert (done, len(runner)) == ([], 4)
    runner.run_all()
    now = bytearray(4096)
    queue.disk.read(0, [memoryview(now)])
    x, o = b"x" * 512, bytes(512)
    assert (done, now) == ([0, 0, 0, 0], o + x + o + x + o + x + x + x)


@pytest.mark.parametrize("large", [False, True])
@pytest.mark.parametrize("operation", ["read", "write"])
def test_a_host_error_is_its_errno(queue: DiskQueue, runner: HeldRunner, operation: str, large: bool) -> None:
    """Inline and on a worker."""
    done: list[int] = []
    data = [memoryview(bytearray(INLINE_LIMIT + 512 if large else 512))]
    getattr(queue, operation)(queue.disk.size, data, done.append)
    runner.run_all()
    assert done == [errno.EINVAL]


def test_any_other_failure_of_a_job_is_an_io_error(
    queue: DiskQueue, runner: HeldRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bug in a disk must not lose a guest's request."""

    def broken() -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(queue.disk, "flush", broken)
    done: list[int] = []
    queue.flush(done.append)
    runner.step()
    assert (done, queue.idle) == ([errno.EIO], True)


def test_drain_calls_back_after_the_last_request(queue: DiskQueue, runner: HeldRunner) -> None:
    """And after that request's own end was told."""
    events: list[object] = []
    queue.flush(events.append)
    queue.flush(events.append)
    queue.drain(lambda: events.append("idle"))
    runner.step()
    assert events == [0]
    runner.step()
    assert events == [0, 0, "idle"]


def test_drain_of_an_idle_queue_calls_back_at_once(queue: DiskQueue) -> None:
    """There is nothing to wait for."""
    events: list[str] = []
    queue.drain(lambda: events.append("idle"))
    assert events == ["idle"]


def test_a_request_made_at_the_end_of_another_is_waited_for(queue: DiskQueue, runner: HeldRunner) -> None:
    """Draining means that nothing is left, whoever asked for it."""
    events: list[object] = []
    queue.flush(lambda _: queue.flush(events.append))
    queue.drain(lambda: events.append("idle"))
    runner.step()
    assert events == []
    runner.step()
    assert events == [0, "idle"]


def test_an_inline_runner_finishes_within_the_call(disk: FileDisk) -> None:
    """Result and exception alike."""
    done: list[int] = []
    queue = DiskQueue(disk, InlineRunner())
    queue.flush(done.append)
    queue.discard(disk.size, 512, done.append)
    assert (done, queue.idle) == ([0, errno.EINVAL], True)
