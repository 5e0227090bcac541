"""Read-modify-write that no write passes by, and a capacity that changes under snapshots and writes."""

from __future__ import annotations

import contextlib
import errno
import threading
from typing import TYPE_CHECKING

import pytest

from qemu_odx.disk.file import open_disk
from qemu_odx.disk.layers.layer import Layer
from qemu_odx.disk.layers.table import layered
from qemu_odx.disk.memory import memory_disk
from qemu_odx.disk.port import Extent

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from qemu_odx.disk.file import FileDisk
    from qemu_odx.disk.port import Snapshot

MIB = 1 << 20


@pytest.fixture
def disk() -> Iterator[FileDisk]:
    """A mebibyte of "a"."""
    made = memory_disk("d", MIB)
    made.write(0, [b"a" * MIB])
    yield made
    made.close()


def content(disk: FileDisk, offset: int, length: int) -> bytes:
    """What is there."""
    data = bytearray(length)
    disk.read(offset, [memoryview(data)])
    return bytes(data)


def frozen(snapshot: Snapshot) -> bytes:
    """All of a snapshot."""
    data = bytearray(snapshot.length)
    snapshot.read(0, memoryview(data))
    return bytes(data)


def later(job: object) -> threading.Thread:
    """A thread that runs something now."""
    thread = threading.Thread(target=job, daemon=True)  # type: ignore[arg-type]
    thread.start()
    return thread


def test_update_writes_what_change_makes(disk: FileDisk) -> None:
    """Of the bytes that are there; the neighbours stay."""
    assert disk.update(512, 512, lambda old: old.upper())
    assert content(disk, 0, 1536) == b"a" * 512 + b"A" * 512 + b"a" * 512


def test_update_that_changes_nothing(disk: FileDisk) -> None:
    """None: not written."""
    assert not disk.update(0, 512, lambda _: None)
    assert content(disk, 0, 512) == b"a" * 512


def test_updates_of_many_threads_are_not_lost(disk: FileDisk) -> None:
    """A counter that everybody raises."""
    disk.write(0, [bytes(512)])

    def raise_it(old: bytes) -> bytes:
        return (int.from_bytes(old, "big") + 1).to_bytes(512, "big")

    def work() -> None:
        for _ in range(200):
            disk.update(0, 512, raise_it)

    threads = [later(work) for _ in range(4)]
    for thread in threads:
        thread.join(60)
    assert int.from_bytes(content(disk, 0, 512), "big") == 800


@pytest.mark.parametrize("way", ["write", "discard", "batch"])
def test_no_write_passes_an_update_by(disk: FileDisk, way: str) -> None:
    """A write that comes while it decides waits, and wins; one elsewhere does not wait."""
    started, ended = threading.Event(), threading.Event()

    def other() -> None:
        started.set()
        if way == "write":
            disk.write(0, [b"w" * 512])
        elif way == "discard":
            disk.discard(0, 512)
        else:
            data = [memoryview(bytearray(b"w" * 512))]
            while disk.try_batch([(True, 0, 512, data)]):
                pass
        ended.set()

    threads: list[threading.Thread] = []

    def change(old: bytes) -> bytes:
        threads.append(later(other))
        assert started.wait(60)
        disk.write(4096, [b"e" * 512])
        assert not ended.wait(0.2)
        return old.upper()

    assert disk.update(0, 512, change)
    threads[0].join(60)
    assert ended.is_set()
    assert content(disk, 0, 512) == (bytes(512) if way == "discard" else b"w" * 512)
    assert content(disk, 4096, 512) == b"e" * 512


@pytest.mark.parametrize("layers", ["", "faults", "verify", "power-cut", "verify+faults+power-cut"])
def test_what_is_around_the_write_of_an_update(disk: FileDisk, layers: str) -> None:
    """Entered before the first byte and left after the last, while other writes wait; nothing changes: not at all."""
    top = layered(Layer(disk), tuple(filter(None, layers.split("+"))), {})
    seen: list[object] = []

    def look() -> None:
        data = [memoryview(bytearray(b"w" * 512))]
        seen.append((content(disk, 0, 512)[:1], list(disk.try_batch([(True, 0, 512, data)]))))

    @contextlib.contextmanager
    def around() -> Iterator[None]:
        look()
        yield
        look()

    waits = [0]
    assert top.update(0, 512, lambda old: old.upper(), around)
    assert not top.update(0, 512, lambda _: None, around)
    assert seen == [(b"a", waits), (b"A", waits)]
    look()
    assert seen[2:] == [(b"A", [])]
    top.close()


def test_what_is_around_a_write_that_fails(disk: FileDisk, monkeypatch: pytest.MonkeyPatch) -> None:
    """It hears of that while other writes wait."""
    seen: list[object] = []

    def fail(*_: object) -> None:
        raise OSError(errno.EIO, "no")

    @contextlib.contextmanager
    def around() -> Iterator[None]:
        try:
            yield
        except OSError as error:
            seen.append((error.errno, disk._guard.try_begin([(0, 512)])))
            raise

    monkeypatch.setattr(disk._file, "write", fail)
    with pytest.raises(OSError, match="no"):
        disk.update(0, 512, lambda old: old.upper(), around)
    assert seen == [(errno.EIO, None)]


def test_an_update_waits_for_writes_in_flight(disk: FileDisk) -> None:
    """It must not read half of one."""
    ticket = disk._guard.begin(0, 512)
    ended = threading.Event()

    def update() -> None:
        disk.update(0, 512, lambda old: old.upper())
        ended.set()

    thread = later(update)
    assert not ended.wait(0.2)
    disk._guard.end(ticket)
    thread.join(60)
    assert ended.is_set()


def test_an_update_keeps_what_a_snapshot_protects(disk: FileDisk) -> None:
    """It is a write like any other."""
    snapshot = disk.snapshot([Extent(0, 4096)])
    assert disk.update(512, 512, lambda old: old.upper())
    assert frozen(snapshot) == b"a" * 4096
    snapshot.release()


def test_no_snapshot_slips_into_an_update(disk: FileDisk) -> None:
    """One taken while it decides has all of it or, as here, waits for it."""
    taken: list[Snapshot] = []
    threads: list[threading.Thread] = []

    def change(old: bytes) -> bytes:
        threads.append(later(lambda: taken.append(disk.snapshot([Extent(0, 512)]))))
        threads[0].join(0.2)
        assert not taken
        return old.upper()

    disk.update(0, 512, change)
    threads[0].join(60)
    disk.write(0, [bytes(512)])
    assert frozen(taken[0]) == b"A" * 512
    taken[0].release()


def test_update_of_a_read_only_disk_or_outside(disk: FileDisk) -> None:
    """EROFS, EINVAL."""
    with pytest.raises(OSError, match="outside"):
        disk.update(MIB, 512, lambda old: old)
    disk.readonly = True
    with pytest.raises(OSError, match="read-only") as error:
        disk.update(0, 512, lambda old: old)
    assert error.value.errno == errno.EROFS


# Capacity


def test_growing_adds_zeros(disk: FileDisk) -> None:
    """What was there stays."""
    disk.resize(2 * MIB)
    assert disk.size == 2 * MIB
    assert content(disk, MIB - 512, 1024) == b"a" * 512 + bytes(512)


def test_shrinking_forgets(disk: FileDisk) -> None:
    """Beyond the end nothing can be read, and nothing old comes back."""
    disk.resize(MIB // 2)
    with pytest.raises(OSError, match="outside"):
        content(disk, MIB // 2, 512)
    disk.resize(MIB)
    assert content(disk, MIB // 2 - 512, 1024) == b"a" * 512 + bytes(512)


@pytest.mark.parametrize("size", [0, -512, 1000])
def test_sizes_that_are_none(disk: FileDisk, size: int) -> None:
    """A positive multiple of the block size."""
    with pytest.raises(ValueError, match="multiple"):
        disk.resize(size)
    assert disk.size == MIB


def test_a_snapshot_keeps_what_shrinking_takes(disk: FileDisk) -> None:
    """Never zeros for old data."""
    snapshot = disk.snapshot([Extent(MIB - 8192, 8192)])
    disk.resize(MIB - 4096)
    disk.resize(MIB)
    assert frozen(snapshot) == b"a" * 8192
    snapshot.release()


def test_shrinking_under_a_snapshot_on_a_reflink_file_system(xfs: Path) -> None:
    """The same by shared blocks."""
    disk = open_disk("r", xfs / "resized.img", size=MIB)
    disk.write(0, [b"a" * MIB])
    snapshot = disk.snapshot([Extent(MIB - 8192, 8192)])
    assert snapshot.method == "reflink"
    disk.resize(MIB - 4096)
    assert frozen(snapshot) == b"a" * 8192
    snapshot.release()
    disk.close()


def test_no_write_makes_a_smaller_disk_longer_again(disk: FileDisk, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that was checked against the old size and begins late: refused, by both ways of writing."""
    begin, try_begin = disk._guard.begin, disk._guard.try_begin

    def late(*arguments: int) -> int:
        disk.size = MIB // 2
        return begin(*arguments)

    monkeypatch.setattr(disk._guard, "begin", late)
    with pytest.raises(OSError, match="outside"):
        disk.write(MIB - 512, [bytes(512)])
    disk.size = MIB
    monkeypatch.setattr(
        disk._guard, "try_begin", lambda ranges: (setattr(disk, "size", MIB // 2), try_begin(ranges))[1]
    )
    batch = [(True, MIB - 512, 512, [memoryview(bytearray(512))])]
    assert list(disk.try_batch(batch)) == [0]
    disk.size = MIB
    assert content(disk, MIB - 512, 512) == b"a" * 512


def test_a_failed_resize_changes_nothing(disk: FileDisk, monkeypatch: pytest.MonkeyPatch) -> None:
    """The host may refuse."""

    def refuse(*_: object) -> None:
        raise OSError(errno.EIO, "no")

    monkeypatch.setattr("qemu_odx.disk.file.os.ftruncate", refuse)
    with pytest.raises(OSError, match="no"):
        disk.resize(MIB // 2)
    assert disk.size == MIB


def test_a_block_device_is_not_resized(disk: FileDisk, monkeypatch: pytest.MonkeyPatch) -> None:
    """The message says what to do."""
    monkeypatch.setattr("qemu_odx.disk.file.stat.S_ISREG", lambda _: False)
    with pytest.raises(OSError, match="resize that instead") as error:
        disk.resize(MIB // 2)
    assert error.value.errno == errno.EOPNOTSUPP
