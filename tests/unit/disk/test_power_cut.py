"""A power cut loses what was not flushed, and nothing else."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qemu_odx.disk.image import DiskError
from qemu_odx.disk.layers import power_cut
from qemu_odx.disk.layers.power_cut import PowerCutLayer, make
from qemu_odx.disk.memory import memory_disk
from qemu_odx.disk.port import Extent

if TYPE_CHECKING:
    from pathlib import Path

BLOCK, BLOCKS = 512, 64
SIZE = BLOCK * BLOCKS


def content(disk: object) -> bytes:
    """All of a disk."""
    data = bytearray(SIZE)
    disk.read(0, [memoryview(data)])  # type: ignore[attr-defined]
    return bytes(data)


def blocks_of(data: bytes) -> list[bytes]:
    """Cut into blocks."""
    return [data[at : at + BLOCK] for at in range(0, len(data), BLOCK)]


places = st.tuples(st.integers(0, BLOCKS - 1), st.integers(1, 8)).map(
    lambda p: (p[0], min(p[1], BLOCKS - p[0]))
)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("write"), places),
        st.tuples(st.just("update"), places),
        st.tuples(st.just("discard"), places),
        st.tuples(st.just("zero"), places),
        st.tuples(st.just("flush"), st.just((0, 1))),
    ),
    max_size=30,
)


def play(disk: PowerCutLayer, todo: list[tuple[str, tuple[int, int]]]) -> list[set[bytes]]:
    """Do the steps; what each block may be after a cut."""
    may_be = [{bytes(BLOCK)} for _ in range(BLOCKS)]
    for number, (what, (first, count)) in enumerate(todo):
        at, length = first * BLOCK, count * BLOCK
        new = number.to_bytes(4, "big") * (BLOCK // 4)
        if what == "flush":
            disk.flush()
            may_be = [{block} for block in blocks_of(content(disk))]
            continue
        if what == "write":
            disk.write(at, [new * count])
        elif what == "update":
            disk.update(at, length, lambda _, data=new * count: data)  # type: ignore[misc]
        elif what == "discard":
            disk.discard(at, length)
        else:
            disk.write_zeroes(at, length, unmap=False)
        for block in range(first, first + count):
            may_be[block].add(new if what in {"write", "update"} else bytes(BLOCK))
    return may_be


@settings(max_examples=200)
@given(steps, st.integers(0, 1000))
def test_after_a_cut_each_block_is_flushed_or_a_later_version(
    todo: list[tuple[str, tuple[int, int]]], seed: int
) -> None:
    """The cut shows no block that is neither, and a photograph taken before is such a disk too."""
    below = memory_disk("d", SIZE)
    disk = PowerCutLayer(below, seed)
    may_be = play(disk, todo)
    disk.cut()
    assert all(block in allowed for block, allowed in zip(blocks_of(content(below)), may_be, strict=True))
    below.close()


def lost_and_kept(seed: int) -> bytes:
    """What a cut leaves of 64 blocks that were written once and not flushed."""
    below = memory_disk("d", SIZE)
    disk = PowerCutLayer(below, seed)
    disk.write(0, [b"n" * SIZE])
    disk.cut()
    found = content(below)
    below.close()
    return found


def test_cuts_differ_and_can_be_repeated() -> None:
    """Some lose all, some a part of one request; the same seed loses the same."""
    found = [lost_and_kept(seed) for seed in range(40)]
    assert bytes(SIZE) in found
    assert any(bytes(BLOCK) in blocks_of(one) and b"n" * BLOCK in blocks_of(one) for one in found)
    assert found == [lost_and_kept(seed) for seed in range(40)]


def test_a_photograph_is_the_disk_after_a_cut(tmp_path: Path) -> None:
    """The disk goes on, and the same seed makes the same choice."""
    disk = PowerCutLayer(memory_disk("d", SIZE), 3)
    chance = random.Random(1)
    for _ in range(20):
        disk.write(chance.randrange(BLOCKS) * BLOCK, [chance.randbytes(BLOCK)])
    before = content(disk)
    shots = [disk.photograph(tmp_path / f"{n}.img", seed=n) for n in (5, 6)]
    assert content(disk) == before
    assert all(shot.volatile == disk.volatile for shot in shots)
    pictures = [(tmp_path / f"{n}.img").read_bytes() for n in (5, 6)]
    assert [len(picture) for picture in pictures] == [SIZE, SIZE]
    assert pictures[0] != pictures[1]
    disk.flush()
    assert disk.photograph(tmp_path / "flushed.img").lost == 0
    assert (tmp_path / "flushed.img").read_bytes() == before
    disk.close()


def test_nothing_is_answered_without_power() -> None:
    """Every way to the disk."""
    disk = PowerCutLayer(memory_disk("d", SIZE), 0, after=2)
    disk.write(0, [b"1" * BLOCK])
    with pytest.raises(OSError, match="power of disk d is off"):
        disk.write(0, [b"2" * BLOCK])
    room = [memoryview(bytearray(BLOCK))]
    for request in (
        lambda: disk.read(0, room),
        lambda: disk.write(0, [bytes(BLOCK)]),
        lambda: disk.discard(0, BLOCK),
        lambda: disk.update(0, BLOCK, lambda old: old),
        lambda: disk.snapshot([Extent(0, BLOCK)]),
        disk.flush,
    ):
        with pytest.raises(OSError, match="is off"):
            request()
    assert disk.cut().volatile == 0
    disk.close()


def test_a_token_taken_before_shows_its_own_data_still() -> None:
    """What a cut puts back is a write like any other to the guard."""
    below = memory_disk("d", SIZE)
    disk = PowerCutLayer(below, 1)
    for seed in range(8):
        disk.write(seed * BLOCK, [bytes([seed + 1]) * BLOCK])
    expected = content(disk)
    snapshot = disk.snapshot([Extent(0, SIZE)])
    disk.cut()
    assert content(below) != expected
    found = bytearray(SIZE)
    snapshot.read(0, memoryview(found))
    assert bytes(found) == expected
    snapshot.release()
    below.close()


def test_the_cache_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest changes reach the medium by themselves."""
    monkeypatch.setattr(power_cut, "VOLATILE", 8 * BLOCK)
    below = memory_disk("d", SIZE)
    disk = PowerCutLayer(below, 0)
    for block in range(BLOCKS):
        disk.write(block * BLOCK, [b"n" * BLOCK])
    assert disk.volatile == 8
    disk.cut()
    assert blocks_of(content(below))[:-8] == [b"n" * BLOCK] * (BLOCKS - 8)
    below.close()


def test_options_that_are_none() -> None:
    """With the key."""
    disk = memory_disk("d", SIZE)
    assert make(disk, {"seed": "7"}).seed == 7
    with pytest.raises(DiskError, match="power-cut-after=soon is no number"):
        make(disk, {"after": "soon"})
    disk.close()
