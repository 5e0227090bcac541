"""The fault layer by itself, and what it does to the snapshots of the disk below it."""

from __future__ import annotations

import errno
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest

from qemu_odx.disk.layers.faults import Breakage, FaultLayer
from qemu_odx.disk.memory import memory_disk
from qemu_odx.disk.port import Extent

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

KIB = 1024
SIZE = 256 * KIB


@dataclass
class Script:
    """Says what was written down beforehand."""

    armed: bool = False
    answers: list[list[Breakage]] = field(default_factory=list)
    asked: list[tuple[str, tuple[tuple[int, int], ...]]] = field(default_factory=list)

    def breakages(self, operation: str, runs: Sequence[tuple[int, int]]) -> Sequence[Breakage]:
        """The next answer; nothing once all are given."""
        self.asked.append((operation, tuple(runs)))
        return self.answers.pop(0) if self.answers else []


@pytest.fixture
def script() -> Script:
    """Nothing goes wrong."""
    return Script()


@pytest.fixture
def disk(script: Script) -> Iterator[FaultLayer]:
    """A disk full of `o`."""
    layer = FaultLayer(memory_disk("d0", SIZE, 512))
    layer.decide = script
    layer.write(0, [b"o" * SIZE])
    yield layer
    layer.close()


def content(disk: FaultLayer, offset: int, length: int) -> bytes:
    """What the disk below holds."""
    found = bytearray(length)
    disk.inner.read(offset, [memoryview(found)])
    return bytes(found)


def test_nothing_armed_costs_no_questions(disk: FaultLayer, script: Script) -> None:
    """Everything goes past it, descriptor and batches too."""
    room = memoryview(bytearray(512))
    assert disk.descriptor == disk.inner.descriptor
    assert list(disk.try_batch([(True, 512, 512, [b"n" * 512])])) == []
    assert content(disk, 512, 512) == b"n" * 512
    assert script.asked == []
    script.armed = True
    assert disk.descriptor is None
    assert list(disk.try_batch([(True, 512, 512, [b"x" * 512])])) == [0]
    assert disk.try_read(0, [room]) is False


def test_each_access_is_asked_about(disk: FaultLayer, script: Script) -> None:
    """By its name and place."""
    script.armed = True
    disk.read(512, [memoryview(bytearray(1024))])
    disk.write(1024, [b"a" * 512, b"b" * 512])
    disk.update(0, 512, lambda old: old)
    disk.flush()
    disk.discard(2048, 512)
    disk.write_zeroes(4096, 512, unmap=False)
    disk.snapshot([Extent(0, 512), Extent(8192, 1024)]).release()
    assert [(name, runs) for name, runs in script.asked if name != "snapshot-keep"] == [
        ("disk-read", ((512, 1024),)),
        ("disk-write", ((1024, 1024),)),
        ("disk-write", ((0, 512),)),
        ("disk-flush", ((0, SIZE),)),
        ("disk-discard", ((2048, 512),)),
        ("disk-write-zeroes", ((4096, 512),)),
        ("disk-snapshot", ((0, 512), (8192, 1024))),
    ]


@pytest.mark.parametrize(
    ("breakage", "lands", "error"),
    [
        (Breakage(errno.EIO), b"", errno.EIO),
        (Breakage(errno.ENOSPC, length=700), b"n" * 700, errno.ENOSPC),
        (Breakage(length=700), b"n" * 700, 0),
        (Breakage(length=0), b"", 0),
        (Breakage(flip=(600, 0)), b"n" * 600 + b"o" + b"n" * 423, 0),
        (Breakage(flip=(5000, 0)), b"n" * 1024, 0),
    ],
)
def test_broken_writes(
    disk: FaultLayer, script: Script, breakage: Breakage, lands: bytes, error: int
) -> None:
    """What lands, and what is said; for `write` and for `update`."""
    script.armed = True
    for offset, write in (
        (1024, lambda: disk.write(1024, [b"n" * 1000, b"n" * 24])),
        (4096, lambda: disk.update(4096, 1024, lambda old: b"n" * len(old))),
    ):
        script.answers = [[breakage]]
        if error:
            with pytest.raises(OSError, match="by a fault rule") as caught:
                write()
            assert caught.value.errno == error
        else:
            write()
        script.answers = []
        assert content(disk, offset, 1024) == lands.ljust(1024, b"o")


def test_a_torn_write_leaves_the_snapshot_whole(disk: FaultLayer, script: Script) -> None:
    """It is a write like any other to the guard."""
    snapshot = disk.snapshot([Extent(0, 8192)])
    script.armed, script.answers = True, [[Breakage(length=700)]]
    disk.write(0, [b"n" * 8192])
    found = bytearray(8192)
    snapshot.read(0, memoryview(found))
    assert bytes(found) == b"o" * 8192
    assert content(disk, 0, 1024) == b"n" * 700 + b"o" * 324
    snapshot.release()


def test_no_room_for_two_ranges_of_one_snapshot(disk: FaultLayer, script: Script) -> None:
    """One write meets both: the snapshot is lost once, and the write goes through."""
    snapshot = disk.snapshot([Extent(14336, 1536), Extent(17408, 2048)])
    other = disk.snapshot([Extent(65536, 4096)])
    script.armed = True
    script.answers = [[], [Breakage(errno.ENOSPC)], [Breakage(errno.ENOSPC)]]
    disk.write(12288, [b"n" * 12288])
    assert (snapshot.lost, other.lost) == (True, False)
    assert content(disk, 12288, 12288) == b"n" * 12288
    assert ("snapshot-keep" in {name for name, _ in script.asked}) is True
    snapshot.release()
    other.release()
