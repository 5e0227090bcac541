from __future__ import annotations

import threading
import time
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, ClassVar

import pytest

from qemu_odx.disk import guard
from qemu_odx.disk.file import open_disk
from qemu_odx.disk.port import Extent

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from qemu_odx.disk.file import FileDisk
    from qemu_odx.disk.port import Snapshot

SIZE = 1 << 20
CLUSTER = 65536
PATIENCE = 60.0


class Gate:
    """Stops one call of a method half-way, for the test to look around."""

    def __init__(self, target: Any, name: str) -> None:
        self._original = getattr(target, name)
        self._reached, self._open = threading.Event(), threading.Event()
        self._once = threading.Lock()
        setattr(target, name, self)

    def __call__(self, *arguments: Any) -> Any:
        """The call: the first one stops here."""
        if self._once.acquire(blocking=False):
            self._reached.set()
            assert self._open.wait(PATIENCE)
        return self._original(*arguments)

    def wait(self) -> None:
        """Until the call is there."""
        assert self._reached.wait(PATIENCE)

    def open(self) -> None:
        """Let it go on."""
        self._open.set()


class Watched(threading.Condition):
    """A guard's condition that knows which threads wait for it."""

    waiting: ClassVar[set[int]] = set()

    def wait(self, timeout: float | None = None) -> bool:
        """As ever."""
        self.waiting.add(threading.get_ident())
        try:
            return super().wait(timeout)
        finally:
            self.waiting.discard(threading.get_ident())


@pytest.fixture(autouse=True)
def watched_guards(monkeypatch: pytest.MonkeyPatch) -> None:
    """No other module's conditions are watched."""
    monkeypatch.setattr(guard, "threading", SimpleNamespace(Lock=threading.Lock, Condition=Watched))


class Task(threading.Thread):
    """A call on a thread of its own, with its result."""

    def __init__(self, call: Callable[[], Any]) -> None:
        super().__init__(daemon=True)
        self._call = call
        self.result: Any = None
        self.start()

    def run(self) -> None:
        """Make the call."""
        self.result = self._call()

    def waits(self) -> bool:
        """True once a guard makes it wait, False if it gets through."""
        while self.is_alive() and self.ident not in Watched.waiting:
            time.sleep(0.001)
        return self.is_alive()

    def finish(self) -> Any:
        """Its result."""
        self.join(PATIENCE)
        assert not self.is_alive(), "the thread hangs"
        return self.result


@pytest.fixture
def filled(disk: FileDisk) -> Iterator[FileDisk]:
    """A disk full of "1"."""
    disk.write(0, [b"1" * SIZE])
    yield disk
    assert not disk._guard._writes
    assert not disk._guard._still
    assert not disk._guard._keeping


def read(source: FileDisk, offset: int = 0, length: int = SIZE) -> bytes:
    """What the disk says now."""
    data = bytearray(length)
    source.read(offset, [memoryview(data)])
    return bytes(data)


def snapshot_bytes(snapshot: Snapshot) -> bytes:
    """What the snapshot says."""
    data = bytearray(snapshot.length)
    snapshot.read(0, memoryview(data))
    return bytes(data)


def test_a_snapshot_waits_for_the_writes_in_flight(filled: FileDisk) -> None:
    """A write that passed the guard before may not change bytes after."""
    gate = Gate(filled._file, "write")
    writer = Task(lambda: filled.write(0, [b"2" * 512]))
    gate.wait()
    taking = Task(lambda: filled.snapshot([Extent(0, 4096)]))
    assert taking.waits()
    gate.open()
    writer.finish()
    assert snapshot_bytes(taking.finish()) == b"2" * 512 + b"1" * 3584


def test_a_snapshot_does_not_wait_for_writes_elsewhere(filled: FileDisk) -> None:
    """They are no business of its."""
    gate = Gate(filled._file, "write")
    writer = Task(lambda: filled.write(8192, [b"2" * 512]))
    gate.wait()
    Task(lambda: filled.snapshot([Extent(0, 8192), Extent(8704, 512)])).finish()
    gate.open()
    writer.finish()


def test_a_write_waits_while_a_snapshot_of_its_range_is_taken(filled: FileDisk) -> None:
    """So that the writes in flight come to an end; the late write is kept out of the snapshot."""
    gate = Gate(filled._file, "write")
    early = Task(lambda: filled.write(0, [b"2" * 512]))
    gate.wait()
    taking = Task(lambda: filled.snapshot([Extent(0, 4096)]))
    assert taking.waits()
    late = Task(lambda: filled.write(1024, [b"3" * 512]))
    assert late.waits()
    Task(lambda: filled.write(4096, [b"4" * 512])).finish()
    gate.open()
    early.finish()
    late.finish()
    assert snapshot_bytes(taking.finish()) == b"2" * 512 + b"1" * 3584
    assert read(filled, 0, 1536) == b"2" * 512 + b"1" * 512 + b"3" * 512


def test_a_write_waits_for_a_copy_that_reads_its_range(make_disk: Callable[[str], FileDisk]) -> None:
    """The copy goes on with old data; elsewhere nobody waits."""
    source, destination = make_disk("source"), make_disk("destination")
    source.write(0, [b"1" * SIZE])
    snapshot = source.snapshot([Extent(0, CLUSTER)])
    gate = Gate(destination._copier, "copy")
    copy = Task(lambda: snapshot.copy_to(0, destination, 0, CLUSTER))
    gate.wait()
    writer = Task(lambda: source.write(512, [b"2" * 512]))
    assert writer.waits()
    Task(lambda: source.write(CLUSTER, [b"2" * 512])).finish()
    gate.open()
    copy.finish()
    writer.finish()
    assert read(destination, 0, CLUSTER) == b"1" * CLUSTER
    assert snapshot_bytes(snapshot) == b"1" * CLUSTER


def test_a_stream_of_copies_does_not_starve_a_writer(make_disk: Callable[[str], FileDisk]) -> None:
    """A waiting write has its old data kept, so that later copies read that."""
    source, destination = make_disk("source"), make_disk("destination")
    source.write(0, [b"1" * SIZE])
    snapshot = source.snapshot([Extent(0, CLUSTER)])
    first, second = Gate(destination._copier, "copy"), None
    copy = Task(lambda: snapshot.copy_to(0, destination, 0, CLUSTER))
    first.wait()
    writer = Task(lambda: source.write(512, [b"2" * 512]))
    assert writer.waits()
    second = Gate(destination._copier, "copy")
    next_copy = Task(lambda: snapshot.copy_to(0, destination, CLUSTER, CLUSTER))
    second.wait()
    first.open()
    copy.finish()
    writer.finish()  # although the second copy still runs
    second.open()
    next_copy.finish()
    assert read(destination, 0, 2 * CLUSTER) == b"1" * 2 * CLUSTER


@pytest.mark.parametrize("policy", ["copy-before-write", "reflink"])
def test_a_release_leaves_the_data_to_a_copy_that_reads_it(
    policy: Any, make_disk: Callable[[str], FileDisk], tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """The space is given back, and used again, only after the copy."""
    folder = request.getfixturevalue("xfs") if policy == "reflink" else tmp_path
    source = open_disk("source", folder / "released.img", size=SIZE, snapshots=policy)
    destination = make_disk("destination")
    source.write(0, [b"1" * SIZE])
    snapshot = source.snapshot([Extent(0, CLUSTER)])
    source.write(0, [b"2" * CLUSTER])
    gate = Gate(destination._copier, "copy")
    copy = Task(lambda: snapshot.copy_to(0, destination, 0, CLUSTER))
    gate.wait()
    snapshot.release()
    other = source.snapshot([Extent(0, CLUSTER)])
    source.write(0, [b"3" * CLUSTER])
    assert source._side.used == 2 * CLUSTER
    gate.open()
    copy.finish()
    assert read(destination, 0, CLUSTER) == b"1" * CLUSTER
    assert source._side.used == CLUSTER
    assert snapshot_bytes(other) == b"2" * CLUSTER
    source.close()
    (folder / "released.img").unlink()


def test_two_writers_of_one_cluster_keep_it_once(filled: FileDisk) -> None:
    """The second waits for the first one's copy."""
    snapshot = filled.snapshot([Extent(0, SIZE)])
    gate = Gate(filled.vaults()._copier, "copy")  # type: ignore[attr-defined]
    writers = [Task(lambda: filled.write(0, [b"2" * 512]))]
    gate.wait()
    writers.append(Task(lambda: filled.write(4096, [b"3" * 512])))
    assert writers[1].waits()
    Task(lambda: filled.write(CLUSTER, [b"4" * 512])).finish()
    assert filled._side.used == 2 * CLUSTER
    gate.open()
    for writer in writers:
        writer.finish()
    assert filled._side.used == 2 * CLUSTER
    assert snapshot_bytes(snapshot) == b"1" * SIZE


def test_old_data_is_still_while_it_is_kept_though_its_snapshot_goes(filled: FileDisk) -> None:
    """A writer may not slip in between and spoil what a new snapshot is given as old data."""
    first = filled.snapshot([Extent(0, CLUSTER)])
    gate = Gate(filled.vaults()._copier, "copy")  # type: ignore[attr-defined]
    keeper = Task(lambda: filled.write(0, [b"2" * 512]))
    gate.wait()
    first.release()
    intruder = Task(lambda: filled.write(4096, [b"3" * 512]))
    assert intruder.waits()
    taking = Task(lambda: filled.snapshot([Extent(0, CLUSTER)]))
    assert taking.waits()
    gate.open()
    second = taking.finish()
    keeper.finish()
    intruder.finish()
    assert snapshot_bytes(second) == b"1" * CLUSTER


def test_copies_that_cross_do_not_deadlock(make_disk: Callable[[str], FileDisk]) -> None:
    """Each disk is the source of one and the destination of the other, range by range."""
    disks = [make_disk("a"), make_disk("b")]
    for disk, fill in zip(disks, b"ab", strict=True):
        disk.write(0, [bytes([fill]) * SIZE])
    snapshots = [disk.snapshot([Extent(0, SIZE)]) for disk in disks]
    gate = Gate(disks[1]._copier, "copy")
    first = Task(lambda: snapshots[0].copy_to(0, disks[1], 0, SIZE))
    gate.wait()
    second = Task(lambda: snapshots[1].copy_to(0, disks[0], 0, SIZE))
    assert second.waits()
    gate.open()
    first.finish()
    second.finish()
    assert (read(disks[0]), read(disks[1])) == (b"b" * SIZE, b"a" * SIZE)


def test_a_snapshot_waits_for_a_copy_into_its_range(filled: FileDisk) -> None:
    """Also if that copy reads from the same disk."""
    source = filled.snapshot([Extent(0, SIZE)])
    filled.write(0, [b"2" * SIZE])
    gate = Gate(filled._copier, "copy")
    copy = Task(lambda: source.copy_to(0, filled, CLUSTER, CLUSTER))
    gate.wait()
    taking = Task(lambda: filled.snapshot([Extent(0, SIZE)]))
    assert taking.waits()
    gate.open()
    copy.finish()
    assert snapshot_bytes(taking.finish()) == b"2" * CLUSTER + b"1" * CLUSTER + b"2" * (SIZE - 2 * CLUSTER)


def test_a_failed_write_leaves_the_guard_clean(filled: FileDisk, monkeypatch: pytest.MonkeyPatch) -> None:
    """The fixture looks at the guard's tables afterwards."""

    def broken(*_: object) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(filled._file, "write", broken)
        with pytest.raises(OSError, match="Input/output"):
            filled.write(0, [b"x" * 512])
    Task(lambda: filled.snapshot([Extent(0, SIZE)])).finish()
