"""What the old data of one disk is and who needs it: copy-before-write without any I/O.

Snapshots are numbered as they are taken. Taking one *arms* its extents. The first write to an armed range
moves its old data to a *piece*, numbered with the newest snapshot of that moment, and disarms the range. So
snapshot s finds a byte in the piece with the smallest number >= s that has it, or else still in the image;
one save serves every snapshot before it. Every range that some live snapshot looks for in the image is
armed.

Imports `ranges.py` alone; the caller holds the disk's lock. Next: `before_write.py` does the I/O.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass
from itertools import islice
from operator import attrgetter
from typing import TYPE_CHECKING, TypeAlias

from sortedcontainers import SortedDict

from qemu_odx.disk.ranges import RangeCounter, RangeSet

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from qemu_odx.disk.ranges import Range

CLUSTER = 64 * 1024
"""Old data is kept in pieces inside of such clusters, so that neighbouring writes find it done."""

OTHERS_ASKED = 64
"""Snapshots that are asked, at a release, whether they need a piece; with more of them it is kept for now."""


@dataclass(slots=True, eq=False)
class Frozen:
    """A live snapshot as the history knows it: its number and the ranges that it covers."""

    number: int
    ranges: tuple[Range, ...]

    def overlaps(self, start: int, end: int) -> bool:
        """Whether it covers any byte of the range."""
        return any(first < end and start < last for first, last in self.ranges)


@dataclass(slots=True, eq=False)
class Piece:
    """Old data of the range [start, end), all in one cluster.

    Attributes:
        number: of the newest snapshot when it was saved.
        where: offset in the side file.
        readers: copy steps that read it now.
        dropped: nobody needs it any more; its space is freed with the last reader.
    """

    start: int
    end: int
    number: int
    where: int
    readers: int = 0
    dropped: bool = False


Part: TypeAlias = tuple[int, int, Piece | None]
"""Start, end, and the piece that has the old data; None: it is in the image still."""

_by_number = attrgetter("number")


class History:
    """Armed ranges, pieces and live snapshots of one disk."""

    def __init__(self) -> None:
        self.armed = RangeSet()
        self.live: SortedDict[int, Frozen] = SortedDict()
        self._covered = RangeCounter()
        self._clusters: SortedDict[int, list[Piece]] = SortedDict()  # cluster -> pieces, oldest first
        self._by_age: dict[Piece, None] = {}  # an ordered set
        self._number = 0

    def take(self, ranges: Sequence[Range]) -> Frozen:
        """A new snapshot of the ranges."""
        self._number += 1
        frozen = Frozen(self._number, tuple(ranges))
        for start, end in ranges:
            self._covered.add(start, end)
            self.armed.add(start, end)
        self.live[frozen.number] = frozen
        return frozen

    def due(self, start: int, end: int, limit: int) -> list[Range]:
        """Armed ranges, `limit` bytes or a little more, to be kept before a write; empty if none is left."""
        if not self.armed.overlaps(start, end):
            return []
        due: list[Range] = []
        for first, last in self.armed.within(start - start % CLUSTER, end + -end % CLUSTER):
            due.append((first, min(last, first + limit)))
            limit -= last - first
            if limit <= 0:
                break
        return due

    def keep(self, start: int, end: int, where: int) -> list[Range]:
        """The range was saved to `where`: disarm it; returns the parts of it that nobody needed any more."""
        needed = list(self.armed.within(start, end))
        self.armed.remove(start, end)
        for first, last in needed:
            for lower, upper in _by_cluster(first, last):
                piece = Piece(lower, upper, self._number, where + lower - start)
                self._clusters.setdefault(lower // CLUSTER, []).append(piece)
                self._by_age[piece] = None
        return _gaps(needed, start, end)

    def resolve(self, number: int, start: int, end: int) -> list[Part]:
        """Where snapshot `number` finds the range: (start, end, piece or None for the image), ascending."""
        parts: list[Part] = []
        for cluster in self._clusters.irange(start // CLUSTER, (end - 1) // CLUSTER):
            parts += _search(self._clusters[cluster], number, start, end)
        parts.sort(key=lambda part: part[0])
        in_image = _gaps([part[:2] for part in parts], start, end)
        return sorted([*parts, *((first, last, None) for first, last in in_image)], key=lambda part: part[0])

    def losers(self, start: int, end: int) -> list[Frozen]:
        """The live snapshots that would look for some of the range in the image."""
        return [
            frozen
            for frozen in self.live.values()
            for first, last in frozen.ranges
            if first < end and start < last
            if any(p is None for *_, p in self.resolve(frozen.number, max(first, start), min(last, end)))
        ]

    def release(self, frozen: Frozen) -> list[Piece]:
        """The snapshot is gone: disarm what it alone needed; returns the pieces that nobody needs now.

        Pieces still being read are dropped too; whoever gives back the last reader frees their space.
        """
        if self.live.pop(frozen.number, None) is None:
            return []
        suspects: dict[Piece, None] = {}
        for start, end in frozen.ranges:
            parts = self.resolve(frozen.number, start, end)
            suspects |= {piece: None for *_, piece in parts if piece}
            for first, last in self._covered.remove(start, end):
                self.armed.remove(first, last)
                suspects |= dict.fromkeys(self._pieces(first, last))
            self._disarm_known([(first, last) for first, last, piece in parts if piece is None])
        dropped = [piece for piece in suspects if not self._needed(piece)]
        for piece in dropped:
            self._drop(piece)
        return dropped + self._drop_outdated()

    def held(self, frozen: Frozen) -> int:
        """Bytes of pieces that this snapshot reads and no other does (at least)."""
        return sum(
            last - first
            for start, end in frozen.ranges
            for first, last, piece in self.resolve(frozen.number, start, end)
            if piece and not self._wanted(first, last, self._floor(piece), piece.number, but=frozen)
        )

    def _needed(self, piece: Piece) -> bool:
        return self._covered.any(piece.start, piece.end) and self._wanted(
            piece.start, piece.end, self._floor(piece), piece.number
        )

    def _wanted(self, start: int, end: int, floor: int, number: int, but: Frozen | None = None) -> bool:
        """Whether a live snapshot numbered in (floor, number] covers some of the range; True if in doubt."""
        asked = [*islice(self.live.irange(floor, number, inclusive=(False, True)), OTHERS_ASKED)]
        others = (self.live[other] for other in asked)
        return len(asked) == OTHERS_ASKED or any(
            other.overlaps(start, end) for other in others if other is not but
        )

    def _floor(self, piece: Piece) -> int:
        """Snapshots up to this number find the whole range of the piece in older pieces."""
        pieces = self._clusters[piece.start // CLUSTER]
        return _last_whole(
            pieces[: bisect_left(pieces, piece.number, key=_by_number)], piece.start, piece.end
        )

    def _disarm_known(self, parts: Sequence[Range]) -> None:
        """Disarm the parts of a released snapshot that the others have in pieces already."""
        for start, end in parts:
            for cluster in self._clusters.irange(start // CLUSTER, (end - 1) // CLUSTER):
                first, last = max(start, cluster * CLUSTER), min(end, (cluster + 1) * CLUSTER)
                floor = _last_whole(self._clusters[cluster], first, last)
                if floor and not self._wanted(first, last, floor, self._number):
                    self.armed.remove(first, last)

    def _pieces(self, start: int, end: int) -> Iterator[Piece]:
        for cluster in self._clusters.irange(start // CLUSTER, (end - 1) // CLUSTER):
            yield from (p for p in self._clusters[cluster] if p.start < end and start < p.end)

    def _drop(self, piece: Piece) -> None:
        cluster = piece.start // CLUSTER
        pieces = self._clusters[cluster]
        pieces.remove(piece)
        if not pieces:
            del self._clusters[cluster]
        del self._by_age[piece]
        piece.dropped = True

    def _drop_outdated(self) -> list[Piece]:
        """Pieces older than every live snapshot."""
        oldest = self.live.peekitem(0)[0] if self.live else self._number + 1
        dropped: list[Piece] = []
        while (piece := next(iter(self._by_age), None)) and piece.number < oldest:
            self._drop(piece)
            dropped.append(piece)
        return dropped


def _by_cluster(start: int, end: int) -> Iterator[Range]:
    while start < end:
        step = min(end, start - start % CLUSTER + CLUSTER)
        yield start, step
        start = step


def _gaps(inner: Sequence[Range], start: int, end: int) -> list[Range]:
    """What of the range the ascending, disjoint inner ranges leave out."""
    edges = [start, *(edge for pair in inner for edge in pair), end]
    return [(first, last) for first, last in zip(edges[::2], edges[1::2], strict=True) if first < last]


def _search(pieces: Sequence[Piece], number: int, start: int, end: int) -> Iterator[Part]:
    """The parts of the range that snapshot `number` finds in these pieces of one cluster."""
    missing = [(start, end)]
    for index in range(bisect_left(pieces, number, key=_by_number), len(pieces)):
        piece = pieces[index]
        still_missing: list[Range] = []
        for first, last in missing:
            lower, upper = max(first, piece.start), min(last, piece.end)
            if lower >= upper:
                still_missing.append((first, last))
                continue
            yield lower, upper, piece
            still_missing += [r for r in ((first, lower), (upper, last)) if r[0] < r[1]]
        missing = still_missing
        if not missing:
            return


def _last_whole(pieces: Sequence[Piece], start: int, end: int) -> int:
    """The number of the newest of the pieces that has the whole range, or 0."""
    return next((p.number for p in reversed(pieces) if p.start <= start and end <= p.end), 0)
