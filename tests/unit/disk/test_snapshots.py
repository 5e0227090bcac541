from __future__ import annotations

import errno
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from qemu_odx.disk.before_write import BeforeWrite
from qemu_odx.disk.file import FileDisk, open_disk
from qemu_odx.disk.memory import memory_disk
from qemu_odx.disk.port import CopyMethod, Extent, SnapshotLostError
from qemu_odx.disk.reflink import Reflink

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from qemu_odx.disk.port import Snapshot

SIZE = 1 << 20
CLUSTER = 65536
PATIENCE = 60.0


def snapshot_bytes(snapshot: Snapshot) -> bytes:
    """All of its data."""
    data = bytearray(b"\xee" * snapshot.length)
    snapshot.read(0, memoryview(data))
    return bytes(data)


def contents(disk: FileDisk) -> bytes:
    """All of the disk."""
    data = bytearray(disk.size)
    disk.read(0, [memoryview(data)])
    return bytes(data)


FULL = OSError(errno.ENOSPC, "No space left on device")


def no_space(*_: object) -> int:
    """What a full file system answers."""
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.fixture
def filled(disk: FileDisk) -> FileDisk:
    """A disk full of random bytes."""
    disk.write(0, [os.urandom(SIZE)])
    return disk


@pytest.fixture(params=["copy-before-write", "reflink"])
def either(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[FileDisk]:
    """A disk full of random bytes, with either way to hold snapshots."""
    folder = request.getfixturevalue("xfs") if request.param == "reflink" else tmp_path
    path = folder / f"{request.node.name}.img"
    disk = open_disk("d", path, size=SIZE, snapshots=request.param)
    disk.write(0, [os.urandom(SIZE)])
    yield disk
    disk.close()
    path.unlink()


def test_auto_takes_the_cheapest_way_that_works(xfs: Path) -> None:
    """Reflink on XFS, copy-before-write in memory."""
    disk = open_disk("d", xfs / "auto.img", size=SIZE)
    assert disk.snapshot([Extent(0, 512)]).method == "reflink"
    assert isinstance(disk.vaults(), Reflink)
    disk.close()
    (xfs / "auto.img").unlink()
    memory = memory_disk("m", SIZE)
    assert memory.snapshot([Extent(0, 512)]).method == "copy-before-write"
    assert isinstance(memory.vaults(), BeforeWrite)
    memory.close()


def test_a_snapshot_takes_no_space(either: FileDisk) -> None:
    """Whatever its size, until something is overwritten."""
    snapshot = either.snapshot([Extent(0, SIZE)])
    either.flush()
    clusters = (
        os.fstat(either._side.file().fd).st_blocks * 512 // CLUSTER
    )  # what is more is the file system's own
    assert clusters in (0, SIZE // CLUSTER)  # shared blocks are counted by stat
    assert snapshot.held_bytes() == 0


def test_extents_are_joined_in_the_order_given(either: FileDisk) -> None:
    """Overlapping ones too, unaligned to anything but blocks."""
    old = contents(either)
    extents = [Extent(70000 // 512 * 512, 1024), Extent(0, 131072), Extent(512, 0), Extent(512, 512)]
    snapshot = either.snapshot(extents)
    either.write(0, [bytes(SIZE)])
    assert snapshot.extents == tuple(extents)
    assert snapshot_bytes(snapshot) == b"".join(old[e.offset : e.end] for e in extents)
    part = bytearray(3000)
    snapshot.read(500, memoryview(part))
    assert part == b"".join(old[e.offset : e.end] for e in extents)[500:3500]


def test_a_tail_smaller_than_a_file_system_block(xfs: Path) -> None:
    """Its blocks cannot be shared as a whole."""
    path = xfs / "tail.img"
    disk = open_disk("d", path, size=3 * 4096 + 512, snapshots="reflink")
    old = os.urandom(disk.size)
    disk.write(0, [old])
    snapshot = disk.snapshot([Extent(0, disk.size), Extent(4096 + 512, 1024)])
    disk.write(0, [bytes(disk.size)])
    assert snapshot_bytes(snapshot) == old + old[4608:5632]
    disk.close()
    path.unlink()


@pytest.mark.parametrize(("offset", "length"), [(-1, 2), (0, 1025), (1024, 1)])
def test_nothing_outside_of_a_snapshot_is_read(disk: FileDisk, offset: int, length: int) -> None:
    """A caller's bug, told as such."""
    snapshot = disk.snapshot([Extent(0, 1024)])
    with pytest.raises(ValueError, match="outside of a snapshot"):
        snapshot.read(offset, memoryview(bytearray(length)))


def test_a_snapshot_copied_onto_its_own_source(either: FileDisk) -> None:
    """Shifted by a block, forwards and backwards: only old data arrives."""
    old = contents(either)
    snapshot = either.snapshot([Extent(0, SIZE)])
    snapshot.copy_to(0, either, 512, SIZE - 512)
    assert contents(either) == old[:512] + old[:-512]
    snapshot.copy_to(512, either, 0, SIZE - 512)
    assert contents(either)[: SIZE - 512] == old[512:]
    assert snapshot_bytes(snapshot) == old


def test_a_copy_respects_the_snapshots_of_its_destination(make_disk: Callable[[str], FileDisk]) -> None:
    """A token of the destination keeps what the copy overwrites."""
    source, destination = make_disk("source"), make_disk("destination")
    source.write(0, [b"s" * SIZE])
    destination.write(0, [b"d" * SIZE])
    theirs = destination.snapshot([Extent(0, SIZE)])
    source.snapshot([Extent(0, SIZE)]).copy_to(0, destination, 0, SIZE)
    assert contents(destination) == b"s" * SIZE
    assert snapshot_bytes(theirs) == b"d" * SIZE


def test_a_copy_to_another_kind_of_disk(disk: FileDisk) -> None:
    """One that has no file to copy into gets the data by its write."""

    class Recorder:
        def __init__(self) -> None:
            self.written: list[tuple[int, bytes]] = []

        def write(self, offset: int, data: list[memoryview]) -> None:
            self.written.append((offset, b"".join(data)))

    disk.write(0, [b"old" * 1024])
    snapshot = disk.snapshot([Extent(0, 3072)])
    disk.write(0, [bytes(3072)])
    other = Recorder()
    method = snapshot.copy_to(3, other, 512, 1536)  # type: ignore[arg-type]
    assert (method, other.written) == (CopyMethod.READ_WRITE, [(512, b"old" * 512)])


@pytest.mark.parametrize("change", ["write", "discard", "zero", "unmap", "copy"])
def test_every_kind_of_write_is_guarded(either: FileDisk, change: str) -> None:
    """There is no way around the snapshot."""
    old = contents(either)
    snapshot = either.snapshot([Extent(4096, 8192)])
    if change == "write":
        either.write(8192, [b"new" * 512])
    elif change == "discard":
        either.discard(0, SIZE)
    elif change == "copy":
        either.snapshot([Extent(CLUSTER, CLUSTER)]).copy_to(0, either, 0, CLUSTER)
    else:
        either.write_zeroes(0, SIZE, unmap=change == "unmap")
    assert contents(either) != old
    assert snapshot_bytes(snapshot) == old[4096:12288]


def test_one_write_keeps_once_for_all_snapshots(filled: FileDisk) -> None:
    """A hundred tokens of one range share the old data, and each still reads it."""
    old = contents(filled)
    snapshots = [filled.snapshot([Extent(0, SIZE)]) for _ in range(100)]
    filled.write(0, [b"x" * 512])
    assert filled._side.used == CLUSTER
    assert [snapshot.held_bytes() for snapshot in snapshots[:2]] == [0, 0]
    assert all(snapshot_bytes(snapshot) == old for snapshot in snapshots)
    for snapshot in snapshots[1:]:
        snapshot.release()
    assert snapshots[0].held_bytes() == CLUSTER


def test_what_is_kept_ends_at_the_snapshot(filled: FileDisk) -> None:
    """Rounded out to the cluster, but not beyond what the snapshot covers."""
    filled.snapshot([Extent(CLUSTER - 1024, 2048)])
    filled.write(CLUSTER - 512, [b"x" * 512])
    assert filled._side.used == 1024


def test_a_hole_is_kept_without_space(disk: FileDisk) -> None:
    """Old zeroes that were never written cost nothing."""
    snapshot = disk.snapshot([Extent(0, SIZE)])
    disk.write(0, [b"x" * SIZE])
    assert snapshot_bytes(snapshot) == bytes(SIZE)
    assert os.fstat(disk._side.file().fd).st_blocks == 0


def test_release_gives_the_space_back(either: FileDisk) -> None:
    """To the file system, and twice is once."""
    first, second = either.snapshot([Extent(0, SIZE)]), either.snapshot([Extent(0, CLUSTER)])
    either.write(0, [bytes(SIZE)])
    first.release()
    first.release()
    second.release()
    assert either._side.used == 0
    assert os.fstat(either._side.file().fd).st_blocks == 0


def test_a_released_snapshot_reads_nothing(either: FileDisk) -> None:
    """Its space may hold another one's data by now."""
    snapshot = either.snapshot([Extent(0, SIZE)])
    snapshot.release()
    with pytest.raises(SnapshotLostError):
        snapshot_bytes(snapshot)
    with pytest.raises(SnapshotLostError):
        snapshot.copy_to(0, either, 0, 512)
    assert not snapshot.lost


def test_a_long_lived_snapshot_does_not_pile_up_what_others_left(filled: FileDisk) -> None:
    """Snapshots that come and go over a range that an old one covers leave a bounded amount."""
    old = contents(filled)
    eldest = filled.snapshot([Extent(0, SIZE)])
    for stamp in range(200):
        passing = filled.snapshot([Extent(0, CLUSTER)])
        filled.write(0, [bytes([stamp]) * 512])
        passing.release()
    assert filled._side.used <= 4 * CLUSTER
    assert snapshot_bytes(eldest) == old


def test_a_full_host_does_not_stop_the_guest(filled: FileDisk, monkeypatch: pytest.MonkeyPatch) -> None:
    """The write goes through; exactly the snapshots that needed the old data are lost."""
    old = contents(filled)
    early = filled.snapshot([Extent(0, CLUSTER)])
    filled.write(0, [b"1" * CLUSTER])
    late = filled.snapshot([Extent(0, 2 * CLUSTER)])
    elsewhere = filled.snapshot([Extent(4 * CLUSTER, CLUSTER)])
    monkeypatch.setattr(filled._side, "allocate", no_space)
    filled.write(512, [b"2" * 512])
    assert contents(filled)[:2048] == b"1" * 512 + b"2" * 512 + b"1" * 1024
    assert (early.lost, late.lost, elsewhere.lost) == (False, True, False)
    assert snapshot_bytes(early) == old[:CLUSTER]
    assert snapshot_bytes(elsewhere) == old[4 * CLUSTER : 5 * CLUSTER]
    with pytest.raises(SnapshotLostError):
        late.read(CLUSTER, memoryview(bytearray(512)))


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
def test_a_loss_is_told_when_it_happens(
    filled: FileDisk, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """Once for all that one write costs, with the host's words; a later write costs nothing more."""
    told: list[list[str]] = []
    early, late = filled.snapshot([Extent(0, CLUSTER)]), filled.snapshot([Extent(0, CLUSTER)])
    filled.on_loss = lambda: told.append([early.loss, late.loss])
    filled.write(CLUSTER, [b"x" * 512])
    assert (told, early.loss) == ([], "")

    def fail(*_: object) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(filled._side, "allocate", fail)
    filled.write(0, [b"x" * 512])
    filled.write(512, [b"x" * 512])
    assert told == [[os.strerror(number)] * 2]


def test_a_sacrifice_is_told_when_it_happens(either: FileDisk) -> None:
    """Also of snapshots by reflink; not if there was nothing to give up."""
    told: list[str] = []
    snapshot = either.snapshot([Extent(0, CLUSTER)])
    either.on_loss = lambda: told.append(snapshot.loss)
    error = OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))
    either.vaults().sacrifice(error)
    either.vaults().sacrifice(error)
    assert told == [os.strerror(errno.EDQUOT)]


def test_a_lost_snapshot_moves_nothing(filled: FileDisk, monkeypatch: pytest.MonkeyPatch) -> None:
    """A copy of it leaves its destination as it was."""
    snapshot = filled.snapshot([Extent(0, CLUSTER)])
    monkeypatch.setattr(filled._side, "allocate", no_space)
    filled.write(0, [b"x" * 512])
    before = contents(filled)
    with pytest.raises(SnapshotLostError):
        snapshot.copy_to(0, filled, 8 * CLUSTER, CLUSTER)
    assert contents(filled) == before


def test_old_data_that_nobody_needs_cannot_stop_a_write(
    filled: FileDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A range may stay armed that the only snapshot left has already; a full host is no matter then."""
    old = contents(filled)
    first = filled.snapshot([Extent(0, CLUSTER)])
    filled.write(0, [b"x" * 512])
    filled.snapshot([Extent(0, CLUSTER)]).release()
    monkeypatch.setattr(filled._side, "allocate", no_space)
    filled.write(0, [b"y" * 512])
    assert not first.lost
    assert snapshot_bytes(first) == old[:CLUSTER]


def test_a_file_system_that_is_really_full_loses_the_snapshot(tiny: Path) -> None:
    """1.5 MiB of image leave half a MiB for old data."""
    disk = open_disk("d", tiny / "a.img", size=3 << 19)
    disk.write(0, [b"1" * disk.size])
    snapshot = disk.snapshot([Extent(0, disk.size)])
    disk.write(0, [b"2" * disk.size])
    assert contents(disk) == b"2" * disk.size
    assert snapshot.lost
    assert disk._side.used == 0
    disk.close()


def test_old_data_makes_room_for_the_guest(tiny: Path) -> None:
    """A write into a hole that finds no space gets that of the snapshots."""
    disk = open_disk("d", tiny / "a.img", size=3 << 19)
    disk.write(0, [b"1" * SIZE])
    snapshot = disk.snapshot([Extent(0, SIZE)])
    disk.write(0, [b"2" * (SIZE - 2 * CLUSTER)])
    assert not snapshot.lost
    disk.write(SIZE, [b"3" * (SIZE // 2)])
    assert snapshot.lost
    assert contents(disk)[SIZE:] == b"3" * (SIZE // 2)
    disk.close()


def test_a_full_host_without_snapshots_is_the_guests_error(tiny: Path) -> None:
    """There is nothing to give up."""
    disk = open_disk("d", tiny / "a.img", size=4 << 20)
    with pytest.raises(OSError, match="No space left") as raised:
        disk.write(0, [b"1" * disk.size])
    assert raised.value.errno == errno.ENOSPC
    disk.close()


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
@pytest.mark.parametrize("change", ["write", "punch", "zero"])
def test_whatever_the_guest_changes_gets_the_room_of_snapshots(
    filled: FileDisk, monkeypatch: pytest.MonkeyPatch, change: str, number: int
) -> None:
    """The file system may be full, or a quota; a discard may need space where there are no holes."""
    real = getattr(filled._file, change)
    answers = iter([OSError(number, os.strerror(number))])

    def once_full(*arguments: Any) -> None:
        for error in answers:
            raise error
        real(*arguments)

    snapshot = filled.snapshot([Extent(SIZE // 2, SIZE // 2)])
    filled.write(SIZE // 2, [b"n" * 512])
    monkeypatch.setattr(filled._file, change, once_full)
    if change == "write":
        filled.write(0, [bytes(512)])
    elif change == "punch":
        filled.discard(0, 512)
    else:
        filled.write_zeroes(0, 512, unmap=False)
    assert contents(filled)[:512] == bytes(512)
    assert snapshot.lost


def test_reflink_snapshots_make_room_for_the_guest(xfs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Writing to shared blocks needs new ones; without space the snapshots go."""
    path = xfs / "full.img"
    disk = open_disk("d", path, size=SIZE, snapshots="reflink")
    disk.write(0, [b"1" * SIZE])
    snapshot = disk.snapshot([Extent(0, SIZE)])
    steps = iter([no_space, disk._file.write])

    def write(*arguments: Any) -> None:
        next(steps)(*arguments)

    monkeypatch.setattr(disk._file, "write", write)
    disk.write(0, [b"2" * 512])
    assert snapshot.lost
    assert contents(disk)[:1024] == b"2" * 512 + b"1" * 512
    with pytest.raises(SnapshotLostError):
        snapshot_bytes(snapshot)
    assert disk._side.used == 0
    disk.close()
    path.unlink()


def test_two_writers_meet_a_full_host(either: FileDisk, monkeypatch: pytest.MonkeyPatch) -> None:
    """At once: one gives the snapshots up, and the other waits for the room instead of failing."""
    either.snapshot([Extent(0, CLUSTER)])
    either.write(0, [b"1" * CLUSTER])
    full, really_write, really_free = threading.Barrier(2), either._file.write, either._side.free
    room = threading.Event()

    def write(*arguments: Any) -> None:
        if not room.is_set():
            full.wait(PATIENCE)
            no_space()
        really_write(*arguments)

    def free(ranges: Any) -> None:
        time.sleep(0.1)
        really_free(ranges)
        room.set()

    monkeypatch.setattr(either._file, "write", write)
    monkeypatch.setattr(either._side, "free", free)
    with ThreadPoolExecutor() as writers:
        places = (8 * CLUSTER, 9 * CLUSTER)
        for done in [writers.submit(either.write, place, [b"2" * CLUSTER]) for place in places]:
            done.result(PATIENCE)
    assert contents(either)[8 * CLUSTER : 10 * CLUSTER] == b"2" * 2 * CLUSTER


def test_a_writer_that_is_late_to_hear_of_a_full_host(
    either: FileDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It found no space and stood still while another one gave the snapshots up: it tries again all the same."""
    either.snapshot([Extent(0, CLUSTER)])
    really_write, outcomes = either._file.write, iter([no_space])

    def write(*arguments: Any) -> None:
        for outcome in outcomes:
            either.vaults().sacrifice(FULL)  # what the other one does meanwhile
            outcome()
        really_write(*arguments)

    monkeypatch.setattr(either._file, "write", write)
    either.write(8 * CLUSTER, [b"2" * CLUSTER])
    assert contents(either)[8 * CLUSTER : 9 * CLUSTER] == b"2" * CLUSTER


def test_room_made_for_an_earlier_write_is_no_hope_for_a_later_one(
    either: FileDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is used up by then: the guest hears of the full host."""
    either.snapshot([Extent(0, CLUSTER)])
    either.vaults().sacrifice(FULL)
    tried: list[int] = []

    def write(offset: int, *_: object) -> None:
        tried.append(offset)
        no_space()

    monkeypatch.setattr(either._file, "write", write)
    with pytest.raises(OSError, match="No space left"):
        either.write(512, [b"1" * 512])
    assert tried == [512]


def test_a_full_host_while_a_copy_reads(either: FileDisk, monkeypatch: pytest.MonkeyPatch) -> None:
    """The space of a snapshot is there when the step that reads it has ended; the guest's write waits for that."""
    snapshot = either.snapshot([Extent(0, CLUSTER)])
    either.write(0, [b"1" * CLUSTER])
    room, really_write, really_free = threading.Event(), either._file.write, either._side.free

    def write(*arguments: Any) -> None:
        if not room.is_set():
            no_space()
        really_write(*arguments)

    def free(ranges: Any) -> None:
        really_free(ranges)
        if ranges:
            room.set()

    monkeypatch.setattr(either._file, "write", write)
    monkeypatch.setattr(either._side, "free", free)
    with ThreadPoolExecutor() as writers:
        with snapshot._vault.borrow(snapshot.extents):  # type: ignore[attr-defined]
            writing = writers.submit(either.write, 8 * CLUSTER, [b"2" * CLUSTER])
            time.sleep(0.1)
            assert not writing.done()
        writing.result(PATIENCE)
    assert contents(either)[8 * CLUSTER : 9 * CLUSTER] == b"2" * CLUSTER
