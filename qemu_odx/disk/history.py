"""What the old data of one disk is and who needs it: copy-before-write without any I/O.

Snapshots are numbered as they are taken. Taking one *arms* its extents. The first write to an armed range
moves its old data to a *piece*, numbered with the newest snapshot of that moment, and disarms the range. So
snapshot s finds a byte in the piece with the smallest number >= s that has it, or else still in the image;
one save serves every snapshot before it. Every range that some live snapshot looks for in the image is
armed.

Imports `ranges.py` alone; the caller holds the disk's lock. Next: `before_write.py` does the I/O.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import deque
from dataclasses import dataclass
from itertools import islice
from operator import attrgetter
from typing import TYPE_CHECKING, TypeAlias

from sortedcontainers import SortedDict

from qemu_odx.disk.ranges import RangeCounter, RangeSet

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from qemu_odx.disk.ranges import Range

CLUSTER = 64 * 1024
"""Old data is kept in pieces inside of such clusters, so that neighbouring writes find it done."""

OTHERS_ASKED = 64
"""Snapshots that are asked whether they need a piece; if there are more, the answer is yes for now."""


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
        self._to_review: deque[Piece] = deque()
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

    @property
    def number(self) -> int:
        """Of the newest snapshot."""
        return self._number

    def cut(self, start: int, end: int, where: int) -> list[Piece]:
        """The pieces of a range that was saved to `where`. No snapshot of it may be taken before `keep`."""
        return [
            Piece(first, last, self._number, where + first - start) for first, last in _by_cluster(start, end)
        ]

    def keep(self, pieces: Iterable[Piece]) -> list[Piece]:
        """These were saved: disarm their ranges; returns pieces that nobody needs, old ones or of these."""
        spare: list[Piece] = []
        for piece in pieces:
            self.armed.remove(piece.start, piece.end)
            if not self._enter(piece):
                spare.append(piece)
            spare += self._review()
        return spare

    def restore(self, snapshots: Iterable[Frozen], pieces: Iterable[Piece]) -> list[Piece]:
        """Go on from what a predecessor's history held; returns pieces that nobody needs. Once, before all else."""
        for frozen in sorted(snapshots, key=_by_number):
            self.live[frozen.number] = frozen
            self._number = max(self._number, frozen.number)
            for start, end in frozen.ranges:
                self._covered.add(start, end)
        spare = []
        for piece in sorted(pieces, key=_by_number):
            self._number = max(self._number, piece.number)
            if not self._enter(piece):
                spare.append(piece)
        for frozen in self.live.values():
            for start, end in frozen.ranges:
                for first, last, found in self.resolve(frozen.number, start, end):
                    if found is None:
                        self.armed.add(first, last)
        return spare

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
        """The snapshot is gone: disarm what it alone covered; returns the pieces that nobody needs now.

        Pieces still being read are dropped too; whoever gives back the last reader frees their space. Pieces
        that only this snapshot needed, where others cover the range, are found by later reviews.
        """
        if self.live.pop(frozen.number, None) is None:
            return []
        dropped: dict[Piece, None] = {}
        for start, end in frozen.ranges:
            for first, last in self._covered.remove(start, end):
                self.armed.remove(first, last)
                dropped |= dict.fromkeys(self._pieces_uncovered(first, last))
        for piece in dropped:
            self._drop(piece)
        return [*dropped, *self._drop_outdated()]

    def held(self, frozen: Frozen) -> int:
        """Bytes of pieces that this snapshot reads and no other does (at least)."""
        return sum(
            last - first
            for start, end in frozen.ranges
            for first, last, piece in self.resolve(frozen.number, start, end)
            if piece and not self._wanted(first, last, self._floor(piece), piece.number, but=frozen)
        )

    def _enter(self, piece: Piece) -> bool:
        """Take a piece in; False if no live snapshot needs it."""
        if not self._wanted(piece.start, piece.end, self._floor(piece), piece.number):
            return False
        insort(self._clusters.setdefault(piece.start // CLUSTER, []), piece, key=_by_number)
        self._by_age[piece] = None
        self._to_review.append(piece)
        return True

    def _review(self) -> list[Piece]:
        """Look at two older pieces for each new one, so that what nobody needs never outweighs the rest."""
        dropped: list[Piece] = []
        for _ in range(min(2, len(self._to_review))):
            piece = self._to_review.popleft()
            if piece.dropped:
                continue
            if self._wanted(piece.start, piece.end, self._floor(piece), piece.number):
                self._to_review.append(piece)
            else:
                self._drop(piece)
                dropped.append(piece)
        return dropped

    def _wanted(self, start: int, end: int, floor: int, number: int, but: Frozen | None = None) -> bool:
        """Whether a live snapshot numbered in (floor, number] covers some of the range; True if in doubt."""
        asked = [*islice(self.live.irange(floor, number, inclusive=(False, True)), OTHERS_ASKED)]
        others = (self.live[other] for other in asked)
        return len(asked) == OTHERS_ASKED or any(
            other.overlaps(start, end) for other in others if other is not but
        )

    def _floor(self, piece: Piece) -> int:
        """Snapshots up to this number find the whole range of the piece in older pieces."""
        pieces = self._clusters.get(piece.start // CLUSTER, [])
        older = pieces[: bisect_left(pieces, piece.number, key=_by_number)]
        return next((p.number for p in reversed(older) if p.start <= piece.start and piece.end <= p.end), 0)

    def _pieces_uncovered(self, start: int, end: int) -> Iterator[Piece]:
        for cluster in self._clusters.irange(start // CLUSTER, (end - 1) // CLUSTER):
            for piece in self._clusters[cluster]:
                if piece.start < end and start < piece.end and not self._covered.any(piece.start, piece.end):
                    yield piece

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
