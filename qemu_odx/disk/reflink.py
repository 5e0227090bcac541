"""Snapshots by reflink: the side file shares the blocks of the image, and the file system keeps them apart.

Costs O(extents) and no space when taken, and nothing on our write path after. Needs XFS or btrfs. May import
`guard.py`, `side.py`, `copying.py`, `snapshots.py`, `journal.py`. Next: `file.py` takes snapshots here.
"""

from __future__ import annotations

import contextlib
import threading
from bisect import bisect_right
from typing import TYPE_CHECKING

from qemu_odx.disk import linux
from qemu_odx.disk.copying import Copier
from qemu_odx.disk.journal import Held
from qemu_odx.disk.port import SnapshotLostError
from qemu_odx.disk.ranges import disjoint
from qemu_odx.disk.side import ALIGNMENT
from qemu_odx.disk.snapshots import Fragment, RoomMaker, Vault, in_words, nobody

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from qemu_odx.disk.guard import Guard
    from qemu_odx.disk.hostfile import HostFile
    from qemu_odx.disk.journal import DiskJournal, Legacy
    from qemu_odx.disk.port import Extent
    from qemu_odx.disk.ranges import Range
    from qemu_odx.disk.side import SideFile


def reflink_works(image: HostFile, side: SideFile) -> bool:
    """Try it on the first block of the image. Raises OSError if there is no side file at all."""
    where = side.reserve(ALIGNMENT, 0)
    try:
        linux.clone_range(image.fd, 0, side.file().fd, where, ALIGNMENT)
    except OSError:
        return False
    finally:
        side.free([(where, where + ALIGNMENT)])
    return True


class Reflink:
    """The reflink snapshots of one disk; implements `snapshots.VaultKeeper`."""

    method = "reflink"

    def __init__(
        self,
        image: HostFile,
        guard: Guard,
        side: SideFile,
        journal: DiskJournal | None = None,
        on_loss: Callable[[], None] = nobody,
    ) -> None:
        self.guard = guard
        self.side = side
        self.journal = journal
        self.vaults: set[ReflinkVault] = set()
        self._number = 0
        self._image = image
        self._copier = Copier(side.file())
        self._on_loss = on_loss
        self.room = RoomMaker()

    def take(self, extents: Sequence[Extent]) -> ReflinkVault:
        """Share the blocks of the extents while no write to them is in flight. Raises OSError."""
        ranges = disjoint(extents)
        vault = self._vault(ranges)
        for start, end in ranges:  # cloning writes dirty pages back first; better while nobody has to wait
            linux.write_back(self._image.fd, start, end - start)
        try:
            with self.guard.still(ranges):
                for start, end in ranges:
                    where = self.side.allocate(end - start, start)
                    vault.places.append(where)
                    self._copier.copy(self._image, start, where, end - start)
        except OSError:
            vault.release()
            raise
        return vault

    def inherit(self, legacy: Legacy) -> dict[int, ReflinkVault]:
        """Go on from what a predecessor left; its snapshots by number. Once, before all else."""
        vaults = {}
        for item in legacy.held:
            self._number = item.number - 1
            vaults[item.number] = vault = self._vault(disjoint(item.extents))
            vault.places += item.places
            vault.noted = True
        self._number = max((item.number for item in legacy.held), default=0)
        return vaults

    @property
    def occupied(self) -> bool:
        """True while there is a snapshot."""
        return bool(self.vaults)

    def _vault(self, ranges: Sequence[Range]) -> ReflinkVault:
        with self.guard.lock:
            self._number += 1
            vault = ReflinkVault(self, self._number, ranges)
            self.vaults.add(vault)
        return vault

    def sacrifice(self, error: OSError) -> None:
        """See `VaultKeeper`: the guest's writes need no new blocks then."""
        self.room.make(lambda: self._lose_all(in_words(error)))

    def _lose_all(self, loss: str) -> bool:
        with self.guard.lock:
            losers = list(self.vaults)
        for vault in losers:
            vault.loss = loss
            vault.release()
        if losers:
            self._on_loss()
        return bool(losers)


class ReflinkVault(Vault):
    """One snapshot's own ranges in the side file."""

    method = "reflink"
    step = 1 << 30

    def __init__(self, keeper: Reflink, number: int, ranges: Sequence[Range]) -> None:
        self.number = number
        self._keeper = keeper
        self._ranges = ranges
        self._starts = [start for start, _ in ranges]
        self.places: list[int] = []
        self._readers = 0
        self.noted = False
        self._noting = threading.Lock()

    @contextlib.contextmanager
    def borrow(self, extents: Sequence[Extent]) -> Iterator[Sequence[Fragment]]:
        """Where the data of these parts of the source is."""
        with self._keeper.room.reading():
            with self._keeper.guard.lock:
                if self not in self._keeper.vaults:
                    raise SnapshotLostError("the old data was not kept, or was given back")
                self._readers += 1
            try:
                yield [self._fragment(extent) for extent in extents if extent.length]
            finally:
                with self._keeper.guard.lock:
                    self._readers -= 1
                    last = not self._readers and self not in self._keeper.vaults
                if last:
                    self._free()

    def held_bytes(self) -> int:
        """Nothing but shared blocks."""
        return 0

    def outlive(self, extents: tuple[Extent, ...]) -> int | None:
        """See `Vault`."""
        journal = self._keeper.journal
        if journal is None:
            return None
        if self.noted:  # without the lock: `release` may wait there for the journal, which the caller has
            return self.number if self in self._keeper.vaults else None
        with self._noting:  # `release` frees the space only after it has seen whether it is noted
            if self not in self._keeper.vaults:
                return None
            if not self.noted:
                journal.held(Held(self.number, extents, tuple(self.places)))
                self.noted = True
        return self.number

    def release(self) -> None:
        """Give everything back, or leave that to the last reader. Idempotent."""
        with self._keeper.guard.lock:
            live = self in self._keeper.vaults
            self._keeper.vaults.discard(self)
            self._readers += live
        if not live:
            return
        with self._noting:
            if self._keeper.journal and self.noted:
                self._keeper.journal.dropped([self.number], [])
        with self._keeper.guard.lock:
            self._readers -= 1
            free = not self._readers
        if free:
            self._free()

    def _fragment(self, extent: Extent) -> Fragment:
        index = bisect_right(self._starts, extent.offset) - 1
        offset = self.places[index] + extent.offset - self._starts[index]
        return Fragment(self._keeper.side.file(), offset, extent.length)

    def _free(self) -> None:
        self._keeper.side.free(
            [
                (where, where + end - start)
                for (start, end), where in zip(self._ranges, self.places, strict=False)
            ]
        )
