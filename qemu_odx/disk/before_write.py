"""Snapshots by copy-before-write: taken at once, paid for by the first write to each part of them.

Works on every file system. May import `history.py` (the book-keeping), `guard.py` (who may write when),
`side.py`, `copying.py`, `snapshots.py`, `journal.py`. Next: `file.py` takes snapshots here.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from qemu_odx.disk.copying import Copier
from qemu_odx.disk.history import Frozen, History, Piece
from qemu_odx.disk.journal import Held, Saved
from qemu_odx.disk.port import SnapshotLostError
from qemu_odx.disk.ranges import disjoint
from qemu_odx.disk.snapshots import Fragment, RoomMaker, Vault, in_words, nobody

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from qemu_odx.disk.guard import Guard
    from qemu_odx.disk.hostfile import HostFile
    from qemu_odx.disk.journal import DiskJournal, Legacy
    from qemu_odx.disk.port import Extent
    from qemu_odx.disk.ranges import Range
    from qemu_odx.disk.side import SideFile

STEP = 1 << 20
"""Bytes that are held still at once, to be kept or to be copied away: writes to them wait that long."""


class BeforeWrite:
    """The copy-before-write snapshots of one disk; implements `guard.Keeper` and `snapshots.VaultKeeper`."""

    method = "copy-before-write"

    def __init__(
        self,
        image: HostFile,
        guard: Guard,
        side: SideFile,
        journal: DiskJournal | None = None,
        on_loss: Callable[[], None] = nobody,
    ) -> None:
        self.guard = guard
        self._journal = journal
        self._image = image
        self._side = side
        self._history = History()
        self._vaults: dict[Frozen, BeforeWriteVault] = {}
        self._copier = Copier(side.file())
        self._on_loss = on_loss
        self.room = RoomMaker()
        guard.keeper = self

    def take(self, extents: Sequence[Extent]) -> BeforeWriteVault:
        """Freeze the extents as they are now, without copying anything."""
        ranges = disjoint(extents)
        with self.guard.still(ranges), self.guard.lock:
            frozen = self._history.take(ranges)
            self._vaults[frozen] = vault = BeforeWriteVault(self, frozen)
        return vault

    def inherit(self, legacy: Legacy) -> dict[int, BeforeWriteVault]:
        """Go on from what a predecessor left; its snapshots by number. Once, before all else."""
        frozen = [Frozen(item.number, tuple(disjoint(item.extents))) for item in legacy.held]
        self._vaults = {item: BeforeWriteVault(self, item, noted=True) for item in frozen}
        pieces = [Piece(start, end, number, where) for where, start, end, number in legacy.saved]
        with self.guard.still([]), self.guard.lock:  # nothing is known to be clear after that
            spare = _pinned(self._history.restore(frozen, pieces))
        self._free(spare)
        return {item.number: vault for item, vault in self._vaults.items()}

    @property
    def occupied(self) -> bool:
        """True while there is a snapshot."""
        return bool(self._vaults)

    def outlive(self, vault: BeforeWriteVault, extents: tuple[Extent, ...]) -> int | None:
        """Note a snapshot for a successor; its number. None: there is no journal, or it is lost already."""
        frozen = vault.frozen
        if self._journal is None or frozen not in self._vaults:
            return None
        if not vault.noted:
            vault.noted = True
            self._journal.held(Held(frozen.number, extents))
        if frozen in self._vaults:
            return frozen.number
        self._journal.dropped([frozen.number], [])  # lost while that was being noted
        return None

    def due(self, start: int, end: int) -> Sequence[Range]:
        """Armed ranges to be kept before a write to the range: about `STEP` bytes."""
        return self._history.due(start, end, STEP)

    def clear(self, start: int, end: int) -> Range:
        """The range around this one with nothing armed."""
        return self._history.armed.gap(start, end)

    def keep(self, ranges: Sequence[Range]) -> None:
        """Copy the ranges aside and disarm them; if that fails, the snapshots that need them are lost."""
        places: list[tuple[Range, int]] = []
        try:
            for start, end in ranges:
                where = self._side.allocate(end - start, start)
                places.append(((start, end), where))
                self._copier.copy(self._image, start, where, end - start)
        except OSError as error:  # the guest's write goes first, so whoever needs the old data has lost it
            loss = in_words(error)
            self._side.free([(where, where + end - start) for (start, end), where in places])
            self.room.make(lambda: self._lose(ranges, loss))
            return
        with self.guard.lock:
            pieces = [p for (start, end), where in places for p in self._history.cut(start, end, where)]
        if self._journal:  # outside of the lock; the ranges are being kept, so no snapshot of them is taken
            self._journal.saved([Saved(p.where, p.start, p.end, p.number) for p in pieces])
        with self.guard.lock:
            spare = _pinned(self._history.keep(pieces))
        self._free(spare)

    def sacrifice(self, error: OSError) -> None:
        """See `VaultKeeper`."""
        self.room.make(lambda: self._lose_all(in_words(error)))

    @contextlib.contextmanager
    def borrow(self, frozen: Frozen, extents: Sequence[Extent]) -> Iterator[Sequence[Fragment]]:
        """Where a snapshot's data is now; what is still in the image is held still inside the context."""
        with self.guard.lock:
            if frozen not in self._vaults:
                raise SnapshotLostError("the old data was not kept, or was given back")
            parts = [
                p for e in extents if e.length for p in self._history.resolve(frozen.number, e.offset, e.end)
            ]
            pieces = [piece for *_, piece in parts if piece]
            for piece in pieces:
                piece.readers += 1
            ticket = self.guard.hold([(start, end) for start, end, piece in parts if piece is None])
        try:
            yield self._fragments(parts)
        finally:
            with self.guard.lock:
                self.guard.let_go(ticket)
                for piece in pieces:
                    piece.readers -= 1
                dropped = [piece for piece in pieces if piece.dropped and not piece.readers]
            self._give_back(dropped)

    def held_bytes(self, frozen: Frozen) -> int:
        """Bytes of old data kept for this snapshot alone."""
        with self.guard.lock:
            return self._history.held(frozen)

    def release(self, frozen: Frozen) -> None:
        """Forget the snapshot and free what only it needed."""
        with self.guard.lock:
            known = self._vaults.pop(frozen, None)
            dropped = _pinned(self._history.release(frozen))
        self._free(dropped, [known] if known else [])

    def _fragments(self, parts: Iterable[tuple[int, int, Piece | None]]) -> list[Fragment]:
        """The parts as runs of the image or the side file, neighbours joined."""
        fragments: list[Fragment] = []
        for start, end, piece in parts:
            file = self._side.file() if piece else self._image
            offset = start - piece.start + piece.where if piece else start
            last = fragments[-1] if fragments else None
            if last and last.file is file and last.offset + last.length == offset:
                fragments[-1] = Fragment(file, last.offset, last.length + end - start)
            else:
                fragments.append(Fragment(file, offset, end - start))
        return fragments

    def _lose_all(self, loss: str) -> bool:
        with self.guard.lock:
            losers = list(self._vaults.values())
            dropped = _pinned(self._drop(losers, loss))
        return self._lost(losers, dropped)

    def _lose(self, ranges: Sequence[Range], loss: str) -> bool:
        with self.guard.lock:
            losing = {frozen: None for r in ranges for frozen in self._history.losers(*r)}
            losers = [self._vaults[frozen] for frozen in losing]
            dropped = _pinned(self._drop(losers, loss))
            for start, end in ranges:
                self._history.armed.remove(start, end)
        return self._lost(losers, dropped)

    def _drop(self, losers: Iterable[BeforeWriteVault], loss: str) -> list[Piece]:
        dropped: list[Piece] = []
        for vault in losers:
            del self._vaults[vault.frozen]
            vault.loss = loss
            dropped += self._history.release(vault.frozen)
        return dropped

    def _lost(self, losers: Sequence[BeforeWriteVault], dropped: Sequence[Piece]) -> bool:
        self._free(dropped, losers)
        if losers:
            self._on_loss()
        return bool(losers)

    def _free(self, pieces: Sequence[Piece], gone: Iterable[BeforeWriteVault] = ()) -> None:
        """Snapshots and (pinned) pieces are not needed: noted before any of the space is used again."""
        numbers = [vault.frozen.number for vault in gone if vault.noted]
        if self._journal and (pieces or numbers):
            self._journal.dropped(numbers, [piece.where for piece in pieces])
        with self.guard.lock:
            for piece in pieces:
                piece.readers -= 1
            unread = [piece for piece in pieces if not piece.readers]
        self._give_back(unread)

    def _give_back(self, pieces: Iterable[Piece]) -> None:
        self._side.free([(p.where, p.where + p.end - p.start) for p in pieces])


def _pinned(pieces: Sequence[Piece]) -> Sequence[Piece]:
    """The pieces, with one reader more: nobody else gives back their space. The guard's lock is held."""
    for piece in pieces:
        piece.readers += 1
    return pieces


class BeforeWriteVault(Vault):
    """One snapshot's numbered place in the history."""

    method = "copy-before-write"
    step = STEP

    def __init__(self, keeper: BeforeWrite, frozen: Frozen, *, noted: bool = False) -> None:
        self.frozen = frozen
        self.noted = noted
        self._keeper = keeper

    @contextlib.contextmanager
    def borrow(self, extents: Sequence[Extent]) -> Iterator[Sequence[Fragment]]:
        """Where the data of these parts of the source is."""
        with self._keeper.room.reading(), self._keeper.borrow(self.frozen, extents) as fragments:
            yield fragments

    def held_bytes(self) -> int:
        """Bytes of old data kept for this snapshot alone."""
        return self._keeper.held_bytes(self.frozen)

    def outlive(self, extents: tuple[Extent, ...]) -> int | None:
        """See `Vault`."""
        return self._keeper.outlive(self, extents)

    def release(self) -> None:
        """Give everything back. Idempotent."""
        self._keeper.release(self.frozen)
