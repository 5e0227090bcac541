"""Any sequence of writes, discards, snapshots and copies on two disks gives what an obvious model says.

The model keeps each disk as a bytearray and each snapshot as a copy of its bytes.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    invariant,
    rule,
    run_state_machine_as_test,
)

from qemu_odx.disk import history
from qemu_odx.disk.file import FileDisk, open_disk
from qemu_odx.disk.layers.layer import Layer
from qemu_odx.disk.layers.power_cut import PowerCutLayer
from qemu_odx.disk.layers.verify import VerifyLayer, make
from qemu_odx.disk.port import Extent

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from qemu_odx.disk.port import Disk, Io, Snapshot

BLOCK = 512
BLOCKS = 640  # five clusters of old data, so that ranges cross their borders
SIZE = BLOCK * BLOCKS

disks = st.integers(0, 1)
ranges = st.tuples(st.integers(0, BLOCKS - 1), st.one_of(st.integers(1, 8), st.integers(1, BLOCKS))).map(
    lambda r: (r[0] * BLOCK, min(r[1], BLOCKS - r[0]) * BLOCK)
)


class Oracle:
    """What a snapshot must go on to say."""

    def __init__(self, snapshot: Snapshot, data: bytes) -> None:
        self.snapshot = snapshot
        self.data = data


class DisksAndOracle(RuleBasedStateMachine):
    """Every rule does the same to the disks and to the model."""

    folder: Path
    policy: str

    snapshots = Bundle("snapshots")

    def __init__(self) -> None:
        super().__init__()
        self.disks: list[Disk] = []
        self.images: list[FileDisk] = []
        for index in range(2):
            path = self.folder / f"{index}.img"
            path.unlink(missing_ok=True)
            image = open_disk(f"d{index}", path, size=SIZE, snapshots=self.policy)  # type: ignore[arg-type]
            self.images.append(image)
            self.disks.append(self.dressed(image))
        self.model = [bytearray(SIZE), bytearray(SIZE)]
        self.live: list[Oracle] = []
        self.stamp = 0

    def dressed(self, image: FileDisk) -> Disk:
        """The disk with the layers under test."""
        return image

    @rule(disk=disks, place=ranges, pieces=st.integers(1, 3))
    def write(self, disk: int, place: tuple[int, int], pieces: int) -> None:
        """Write bytes never seen before, in several buffers."""
        offset, length = place
        self.stamp += 1
        data = (self.stamp.to_bytes(4, "big") * (length // 4))[:length]
        cut = length // pieces
        views = [
            memoryview(data)[i * cut : (i + 1) * cut if i < pieces - 1 else length] for i in range(pieces)
        ]
        self.disks[disk].write(offset, views)
        self.model[disk][offset : offset + length] = data

    @rule(disk=disks, places=st.lists(ranges, min_size=1, max_size=3))
    def write_batch(self, disk: int, places: list[tuple[int, int]]) -> None:
        """As the express lanes do: at once what nothing stands against, then the rest one by one."""
        batch: list[Io] = []
        for offset, length in places:
            self.stamp += 1
            data = (self.stamp.to_bytes(4, "big") * (length // 4))[:length]
            batch.append((True, offset, length, [memoryview(data)]))
        left = self.disks[disk].try_batch(batch)
        for place in sorted(range(len(batch)), key=lambda place: place in left):
            _, offset, length, buffers = batch[place]
            if place in left:
                self.disks[disk].write(offset, buffers)
            self.model[disk][offset : offset + length] = b"".join(buffers)

    @rule(disk=disks, place=ranges, how=st.sampled_from(["discard", "zero", "zero and unmap"]))
    def zero(self, disk: int, place: tuple[int, int], how: str) -> None:
        """Every way to zeroes."""
        offset, length = place
        if how == "discard":
            self.disks[disk].discard(offset, length)
        else:
            self.disks[disk].write_zeroes(offset, length, unmap="unmap" in how)
        self.model[disk][offset : offset + length] = bytes(length)

    @rule(target=snapshots, disk=disks, places=st.lists(ranges, max_size=3))
    def snapshot(self, disk: int, places: list[tuple[int, int]]) -> Oracle:
        """Extents in any order, overlapping or not."""
        taken = self.disks[disk].snapshot([Extent(*place) for place in places])
        data = b"".join(self.model[disk][offset : offset + length] for offset, length in places)
        oracle = Oracle(taken, data)
        self.live.append(oracle)
        assert taken.length == len(data)
        return oracle

    @rule(oracle=snapshots, draw=st.data())
    def read_snapshot(self, oracle: Oracle, draw: st.DataObject) -> None:
        """A part of a snapshot."""
        offset, length = self.part(oracle, draw)
        got = bytearray(b"\xee" * length)
        oracle.snapshot.read(offset, memoryview(got))
        assert got == oracle.data[offset : offset + length]

    @rule(oracle=snapshots, disk=disks, draw=st.data(), block=st.integers(0, BLOCKS - 1))
    def copy(self, oracle: Oracle, disk: int, draw: st.DataObject, block: int) -> None:
        """A part of a snapshot to anywhere, its own source included."""
        offset, length = self.part(oracle, draw)
        to = block * BLOCK
        length = min(length, SIZE - to)
        oracle.snapshot.copy_to(offset, self.disks[disk], to, length)
        self.model[disk][to : to + length] = oracle.data[offset : offset + length]

    @rule(oracle=consumes(snapshots))
    def release(self, oracle: Oracle) -> None:
        """Give a snapshot back, twice."""
        self.live.remove(oracle)
        oracle.snapshot.release()
        oracle.snapshot.release()

    @invariant()
    def all_is_as_the_model_says(self) -> None:
        """Both disks, and every live snapshot."""
        for disk, model in zip(self.disks, self.model, strict=True):
            got = bytearray(SIZE)
            disk.read(0, [memoryview(got)])
            assert got == model
        for oracle in self.live:
            got = bytearray(len(oracle.data))
            oracle.snapshot.read(0, memoryview(got))
            assert got == oracle.data
            assert not oracle.snapshot.lost

    def teardown(self) -> None:
        """With the last snapshot released nothing may be held."""
        with contextlib.ExitStack() as closing:
            for disk in self.disks:
                closing.callback(disk.close)
            for oracle in self.live:
                oracle.snapshot.release()
            assert [image._side.used for image in self.images] == [0, 0]

    @staticmethod
    def part(oracle: Oracle, draw: st.DataObject) -> tuple[int, int]:
        """A random part of the snapshot's joined data, in blocks."""
        blocks = len(oracle.data) // BLOCK
        start = draw.draw(st.integers(0, blocks))
        return start * BLOCK, draw.draw(st.integers(0, blocks - start)) * BLOCK


def check(folder: Path, policy: str, examples: int, dress: Callable[[FileDisk], Disk] | None = None) -> None:
    """Run the machine on disks in the folder, in some dress."""

    class Machine(DisksAndOracle):
        def dressed(self, image: FileDisk) -> Disk:
            return dress(image) if dress else image

    Machine.folder = folder
    Machine.policy = policy
    run_state_machine_as_test(
        Machine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=30,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )


@pytest.mark.parametrize(("cluster", "asked"), [(65536, 64), (4096, 2)])
def test_copy_before_write_agrees_with_the_oracle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cluster: int, asked: int
) -> None:
    """On whatever file system the tests run; also with many small clusters and with doubts about old data."""
    monkeypatch.setattr(history, "CLUSTER", cluster)
    monkeypatch.setattr(history, "OTHERS_ASKED", asked)
    check(tmp_path, "copy-before-write", 150)


@pytest.mark.parametrize("policy", ["reflink", "copy-before-write"])
def test_agrees_with_the_oracle_on_xfs(xfs: Path, policy: str) -> None:
    """Both ways on a file system with reflink, where old data is shared instead of copied."""
    check(xfs, policy, 60)


def test_a_layered_source_and_a_plain_destination(tmp_path: Path) -> None:
    """The first disk has a layer, the second has none: copies go both ways."""
    check(tmp_path, "copy-before-write", 60, lambda image: Layer(image) if image.name == "d0" else image)


def test_a_disk_whose_power_may_be_cut(tmp_path: Path) -> None:
    """As long as it is not, nothing is to be seen of the layer."""
    check(tmp_path, "copy-before-write", 40, lambda image: PowerCutLayer(image, 0))


@pytest.mark.parametrize("both", [True, False], ids=["both verified", "one verified"])
def test_verified_disks(tmp_path: Path, *, both: bool) -> None:
    """Nothing is ever found wrong, whatever goes between them, and nothing is to be seen of the layer."""
    layers: list[VerifyLayer] = []

    def dress(image: FileDisk) -> Disk:
        if not both and image.name == "d1":
            return image
        layers.append(make(image, {}))
        return layers[-1]

    check(tmp_path, "copy-before-write", 25, dress)
    assert sum(layer.checked for layer in layers) > 10_000
    assert [finding for layer in layers for finding in layer.findings] == []
