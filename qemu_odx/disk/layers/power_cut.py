"""The host's crash, modelled: what was not flushed is kept, lost or torn when the power goes.

May import `layer.py`. Put on a disk by `table.py`; cut by `server/power.py`, or by itself after so many changes.

Changes go to the disk below at once, as to a drive with a volatile cache, and what the medium had before is
remembered until a flush. A cut puts a random choice of it back, block by block, so a request may be lost, torn or
reordered; only what a flush has covered is certain. One lock makes changes, flushes and cuts take turns: a flush
covers exactly the changes that had ended when it began.
"""

from __future__ import annotations

import errno
import random
import secrets
import threading
from collections import OrderedDict
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING

from qemu_odx.disk.hostfile import total
from qemu_odx.disk.image import DiskError
from qemu_odx.disk.layers.layer import Layer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from qemu_odx.disk.port import Around, Change, Disk, Extent, Snapshot

VOLATILE = 32 << 20
"""Bytes that the modelled cache holds; the oldest beyond that are on the medium."""
STEP = 1 << 20
_LOSSES = (0.1, 0.5, 0.9, 1.0)
"""How likely a block that was not flushed is to be lost; one is chosen for each cut."""


@dataclass(frozen=True, slots=True)
class Cut:
    """What a cut did.

    Attributes:
        disk: name.
        seed: of the random choice.
        volatile: blocks that no flush had covered.
        lost: those of them that have their old content again.
    """

    disk: str
    seed: int
    volatile: int
    lost: int


class PowerCutLayer(Layer):
    """A disk whose power can be cut.

    Args:
        inner: the disk below.
        seed: of all random choices; None takes one and says which.
        after: cut the power during this change, counted from 1; None: only when told.

    Attributes:
        on_cut: called by requests that find the power off, from any thread; they are never answered then. None: they
            end with EIO.
    """

    def __init__(self, inner: Disk, seed: int | None = None, after: int | None = None) -> None:
        super().__init__(inner)
        self.seed = secrets.randbits(32) if seed is None else seed
        self.on_cut: Callable[[], None] | None = None
        self._after = after
        self._chance = random.Random(self.seed)  # noqa: S311 - repeatable
        self._lock = threading.Lock()
        self._old: OrderedDict[int, bytes] = OrderedDict()  # block -> what the medium has
        self._most = VOLATILE // inner.block_size
        self._changes = 0
        self._off = False

    @property
    def stalled(self) -> bool:
        """Always: a change may wait for a flush."""
        return True

    @property
    def volatile(self) -> int:
        """Blocks that no flush has covered."""
        return len(self._old)

    def read(self, offset: int, into: Sequence[memoryview]) -> None:
        """What was written last. Raises OSError."""
        self._check_power()
        self.inner.read(offset, into)

    def write(self, offset: int, data: Sequence[memoryview | bytes]) -> None:
        """Write to the modelled cache. Raises OSError."""
        self._change(offset, total(data), lambda: self.inner.write(offset, data))

    def discard(self, offset: int, length: int) -> None:
        """Discard in the modelled cache. Raises OSError."""
        for at, size in _steps(offset, length):
            self._change(at, size, lambda at=at, size=size: self.inner.discard(at, size))  # type: ignore[misc]

    def write_zeroes(self, offset: int, length: int, *, unmap: bool) -> None:
        """Zeroes in the modelled cache. Raises OSError."""
        zero = self.inner.write_zeroes
        for at, size in _steps(offset, length):
            self._change(at, size, lambda at=at, size=size: zero(at, size, unmap=unmap))  # type: ignore[misc]

    def update(self, offset: int, length: int, change: Change, around: Around = nullcontext) -> bool:
        """Read and write in the modelled cache. Raises OSError."""
        return self._change(offset, length, lambda: self.inner.update(offset, length, change, around))

    def resize(self, size: int) -> None:
        """A new size is on the medium at once. Raises ValueError, OSError."""
        self._check_power()
        with self._lock:
            self.inner.resize(size)
            for block in [block for block in self._old if (block + 1) * self.block_size > size]:
                del self._old[block]

    def flush(self) -> None:
        """All changes that have ended are on the medium from now on. Raises OSError."""
        with self._lock:
            if not self._off:
                self.inner.flush()
                self._old.clear()
        self._check_power()

    def snapshot(self, extents: Sequence[Extent]) -> Snapshot:
        """Freeze the extents as they are now, cache and all. Raises OSError."""
        self._check_power()
        return self.inner.snapshot(extents)

    def cut(self) -> Cut:
        """The power goes: the disk below becomes what the medium has, and nothing is answered any more.

        Returns:
            What was lost; nothing if the power was off already.
        """
        with self._lock:
            return self._cut()

    def photograph(self, path: Path, seed: int | None = None) -> Cut:
        """Write the disk as it would be after a cut now into a new file, and go on.

        Args:
            path: must not exist.
            seed: of the random choice; None: the layer's next one.

        Raises:
            OSError: the file cannot be made or written.
        """
        with path.open("xb") as file, self._lock:
            seed = self._chance.getrandbits(32) if seed is None else seed
            volatile, lost = len(self._old), self._choose(seed)
            file.truncate(self.size)
            for extent, mapped in self.inner.allocated(0, self.size):
                for at, size in _steps(extent.offset, extent.length if mapped else 0):
                    piece = bytearray(size)
                    self.inner.read(at, [memoryview(piece)])
                    file.seek(at)
                    file.write(piece)
            for block, old in lost:
                file.seek(block * self.block_size)
                file.write(old)
        return Cut(self.name, seed, volatile, len(lost))

    def _change(self, offset: int, length: int, change: Callable[[], bool | None]) -> bool:
        with self._lock:
            if self.readonly:
                return bool(change())
            if not self._off:
                self._changes += 1
                self._remember(offset, length)
                done = change()
                if self._changes == self._after:
                    self._cut()
        self._check_power()
        return bool(done)

    def _remember(self, offset: int, length: int) -> None:
        """Keep what the medium has of a range that is about to change."""
        size = self.block_size
        first, last = offset // size, -(-(offset + length) // size)
        if first == last or not 0 <= offset <= offset + length <= self.size:
            return
        now = bytearray((last - first) * size)
        self.inner.read(first * size, [memoryview(now)])
        for block in range(first, last):
            # What is there now may have reached the medium meanwhile: a cache writes back when it likes.
            if block not in self._old or self._chance.random() < 0.5:
                at = (block - first) * size
                self._old[block] = bytes(now[at : at + size])
        while len(self._old) > self._most:
            self._old.popitem(last=False)

    def _choose(self, seed: int) -> list[tuple[int, bytes]]:
        """The blocks that a cut loses, ascending, with their old content."""
        chance = random.Random(seed)  # noqa: S311 - repeatable
        loss = chance.choice(_LOSSES)
        return [(block, old) for block, old in sorted(self._old.items()) if chance.random() < loss]

    def _cut(self) -> Cut:
        seed, volatile = self._chance.getrandbits(32), len(self._old)
        lost = [] if self._off else self._choose(seed)
        self._off = True
        for block, old in lost:
            self.inner.write(block * self.block_size, [old])
        self._old.clear()
        self.inner.flush()
        return Cut(self.name, seed, volatile, len(lost))

    def _check_power(self) -> None:
        if not self._off:
            return
        if self.on_cut is not None:
            self.on_cut()
            threading.Event().wait()  # nobody answers without power; the process ends
        raise OSError(errno.EIO, f"the power of disk {self.name} is off")


def make(disk: Disk, options: Mapping[str, str]) -> PowerCutLayer:
    """The layer with its options `seed` and `after`. Raises DiskError."""
    return PowerCutLayer(disk, _number(disk, options, "seed"), _number(disk, options, "after"))


def _number(disk: Disk, options: Mapping[str, str], name: str) -> int | None:
    text = options.get(name)
    if text is None:
        return None
    if not text.isdecimal() or len(text) > 18:
        raise DiskError(f"disk {disk.name}: power-cut-{name}={text} is no number from 0 on")
    return int(text)


def _steps(offset: int, length: int) -> Iterator[tuple[int, int]]:
    for done in range(0, length, STEP):
        yield offset + done, min(STEP, length - done)
