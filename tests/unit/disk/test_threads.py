"""Writers, snapshots and copies at the same time: what a snapshot says must be a moment that there was.

Each writer owns a part of the disk and knows the hash of its part after each of its writes. A snapshot of
the part must have one of the hashes from the last write that had ended when it was asked for up to the last
that had begun when it was there, and must keep it.
"""

from __future__ import annotations

import hashlib
import random
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from qemu_odx.disk.file import FileDisk, open_disk
from qemu_odx.disk.port import Extent

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

PART = 1 << 18
WRITERS = 3
BLOCK = 512
SECONDS = 2.0


def digest(data: bytes | bytearray) -> bytes:
    """Short enough to keep thousands."""
    return hashlib.blake2b(data, digest_size=16).digest()


def slowly(call: Callable[..., Any]) -> Callable[..., Any]:
    """Widen the windows in which something could go wrong: writes happen in two halves."""

    def write(offset: int, data: list[Any], length: int) -> None:
        joined = b"".join(data)
        half = length // 2
        call(offset, [joined[:half]], half)
        time.sleep(0.0005)
        call(offset + half, [joined[half:]], length - half)

    return write


def batching_slowly(call: Callable[..., Any]) -> Callable[..., Any]:
    """The same for batches of one."""

    def try_batch(batch: list[Any]) -> list[int]:
        ((_, offset, length, (data,)),) = batch
        half = length // 2
        left = call([(True, offset, half, [data[:half]])])
        time.sleep(0.0005)
        return left + call([(True, offset + half, length - half, [data[half:]])])

    return try_batch


def copying_slowly(call: Callable[..., Any]) -> Callable[..., Any]:
    """The same for copies, whoever makes them."""

    def copy(source: Any, offset: int, to: int, length: int) -> Any:
        half = length // 2
        call(source, offset, to, half)
        time.sleep(0.0005)
        return call(source, offset + half, to + half, length - half)

    return copy


class Writer(threading.Thread):
    """Changes its part at random, one operation after the other."""

    def __init__(self, disk: FileDisk, index: int, stop: threading.Event) -> None:
        super().__init__(daemon=True)
        self.start_of_part = index * PART
        self.hashes = [digest(bytes(PART))]
        self.begun = self.ended = 0
        self.failure: BaseException | None = None
        self._disk = disk
        self._random = random.Random(index)
        self._model = bytearray(PART)
        self._stop_event = stop

    def run(self) -> None:
        """Write until told to stop."""
        try:
            while not self._stop_event.is_set():
                self._step()
        except BaseException as error:  # noqa: BLE001 - shown by the test
            self.failure = error

    def _step(self) -> None:
        offset = self._random.randrange(PART // BLOCK) * BLOCK
        length = min(self._random.choice([BLOCK, 8 * BLOCK, 200 * BLOCK]), PART - offset)
        kind = self._random.choice(["write", "write", "batch", "batch", "discard", "copy"])
        stamp = len(self.hashes).to_bytes(4, "big")
        data = bytes(length) if kind == "discard" else stamp * (length // 4)
        snapshot = None
        if kind == "copy":  # from one end of the own part, which nobody else changes, to anywhere in it
            length = min(length, 64 * BLOCK)
            data = bytes(self._model[:length])
            snapshot = self._disk.snapshot([Extent(self.start_of_part, length)])
        self._model[offset : offset + length] = data
        self.hashes.append(digest(self._model))
        self.begun += 1
        at = self.start_of_part + offset
        if snapshot is not None:
            snapshot.copy_to(0, self._disk, at, length)
            snapshot.release()
        elif kind == "discard":
            self._disk.discard(at, length)
        elif kind == "write" or self._disk.try_batch([(True, at, length, [memoryview(data)])]):
            self._disk.write(at, [data])
        self.ended += 1


class Witness(threading.Thread):
    """Takes snapshots of all parts and checks them, once when taken and again later, by read and by copy."""

    def __init__(self, disk: FileDisk, scratch: FileDisk, writers: list[Writer], deadline: float) -> None:
        super().__init__(daemon=True)
        self.checked = 0
        self.failure: BaseException | None = None
        self._disk, self._scratch, self._writers, self._deadline = disk, scratch, writers, deadline

    def run(self) -> None:
        """Look until the time is over, and until there was enough to see."""
        try:
            while time.monotonic() < self._deadline or self._too_little():
                self._look()
        except BaseException as error:  # noqa: BLE001 - shown by the test
            self.failure = error

    def _too_little(self) -> bool:
        slowest = min(writer.ended for writer in self._writers)
        failed = any(writer.failure for writer in self._writers)
        return not failed and (self.checked <= 5 or slowest <= 20)

    def _look(self) -> None:
        ended = [writer.ended for writer in self._writers]
        snapshot = self._disk.snapshot([Extent(writer.start_of_part, PART) for writer in self._writers])
        begun = [writer.begun for writer in self._writers]
        data = bytearray(snapshot.length)
        snapshot.read(0, memoryview(data))
        for index, writer in enumerate(self._writers):
            possible = writer.hashes[ended[index] : begun[index] + 1]
            part = digest(data[index * PART : (index + 1) * PART])
            assert part in possible, f"part {index} is no state between {ended[index]} and {begun[index]}"
        time.sleep(0.01)
        again = bytearray(snapshot.length)
        snapshot.read(0, memoryview(again))
        assert again == data, "the snapshot changed"
        snapshot.copy_to(0, self._scratch, 0, snapshot.length)
        self._scratch.read(0, [memoryview(again)])
        assert again == data, "the copy is not what was read"
        snapshot.release()
        self.checked += 1


def hammer(folder: Path, policy: Any, monkeypatch: pytest.MonkeyPatch) -> FileDisk:
    """Run the writers and two witnesses; returns the disk, all released."""
    disk = open_disk("d", folder / "threads.img", size=WRITERS * PART, snapshots=policy)
    monkeypatch.setattr(disk._file, "write", slowly(disk._file.write))
    monkeypatch.setattr(disk._file, "try_batch", batching_slowly(disk._file.try_batch))
    monkeypatch.setattr(disk._copier, "copy", copying_slowly(disk._copier.copy))
    vaults: Any = disk.vaults()
    monkeypatch.setattr(vaults._copier, "copy", copying_slowly(vaults._copier.copy))
    scratches = [open_disk("s", folder / f"scratch{i}.img", size=WRITERS * PART) for i in range(2)]
    for scratch in scratches:
        monkeypatch.setattr(scratch._copier, "copy", copying_slowly(scratch._copier.copy))
    stop = threading.Event()
    writers = [Writer(disk, index, stop) for index in range(WRITERS)]
    deadline = time.monotonic() + SECONDS
    witnesses = [Witness(disk, scratch, writers, deadline) for scratch in scratches]
    for thread in (*writers, *witnesses):
        thread.start()
    for witness in witnesses:
        witness.join(60)
    stop.set()
    for thread in (*writers, *witnesses):
        thread.join(60)
        assert not thread.is_alive(), "a thread hangs"
        if thread.failure:
            raise thread.failure
    for scratch in scratches:
        scratch.close()
    return disk


@pytest.mark.parametrize("policy", ["copy-before-write", "reflink"])
def test_a_snapshot_is_one_moment_and_stays_it(
    policy: str, tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With three writers (writes, discards, copies onto themselves) and two witnesses."""
    folder = request.getfixturevalue("xfs") if policy == "reflink" else tmp_path
    disk = hammer(folder, policy, monkeypatch)
    assert disk._side.used == 0
    guard = disk._guard
    assert (guard._writes, guard._still, guard._keeping) == ({}, {}, {})
    disk.close()
    for image in folder.glob("*.img"):
        image.unlink()
