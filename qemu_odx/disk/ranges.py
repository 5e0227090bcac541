"""Sets and counts of byte ranges, kept sorted: every operation costs O(log n) and the ranges it touches.

A range is a pair (start, end), `end` exclusive. Imports `port.py` alone. Next: `history.py` knows by them
which ranges are armed and covered, `side.py` which space is free.
"""

from __future__ import annotations

import sys
from itertools import pairwise
from typing import TYPE_CHECKING

from sortedcontainers import SortedDict

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from qemu_odx.disk.port import Extent

    Range = tuple[int, int]
    """First byte and the byte after the last."""


class RangeSet:
    """A set of bytes as maximal disjoint ranges."""

    def __init__(self) -> None:
        self._ends: SortedDict[int, int] = SortedDict()  # start -> end

    def __bool__(self) -> bool:
        return bool(self._ends)

    def __iter__(self) -> Iterator[Range]:
        return iter(self._ends.items())

    def within(self, start: int, end: int) -> Iterator[Range]:
        """The parts of the set inside the range, ascending. The set may not change meanwhile."""
        for first in self._ends.irange(self._first_reaching(start), end, inclusive=(True, False)):
            last = self._ends[first]
            if last > start < end:
                yield max(first, start), min(last, end)

    def overlaps(self, start: int, end: int) -> bool:
        """Whether any byte of the range is in the set."""
        index = self._ends.bisect_left(end)
        return bool(start < end and index and self._ends.peekitem(index - 1)[1] > start)

    def gap(self, start: int, end: int) -> Range:
        """The largest range around this one, which is not in the set, that is not in the set either."""
        below = next(self._ends.irange(None, start, reverse=True), None)
        above = next(self._ends.irange(end), sys.maxsize)
        return (0 if below is None else self._ends[below]), above

    def add(self, start: int, end: int) -> None:
        """Put the range in."""
        if start >= end:
            return
        for first in list(self._ends.irange(self._first_reaching(start), end)):
            last = self._ends[first]
            if last >= start:  # touching ranges join
                del self._ends[first]
                start, end = min(start, first), max(end, last)
        self._ends[start] = end

    def remove(self, start: int, end: int) -> None:
        """Take the range out, as far as it is in."""
        if start >= end:
            return
        for first in list(self._ends.irange(self._first_reaching(start), end, inclusive=(True, False))):
            last = self._ends[first]
            if last <= start:
                continue
            del self._ends[first]
            if first < start:
                self._ends[first] = start
            if last > end:
                self._ends[end] = last

    def _first_reaching(self, start: int) -> int:
        """Where to begin looking for ranges that touch `start`: the last one that starts before it."""
        return next(self._ends.irange(None, start, reverse=True), start)


class RangeCounter:
    """How often each byte was added: a step function, zero outside of its steps."""

    def __init__(self) -> None:
        self._steps: SortedDict[int, int] = SortedDict()  # start -> count from here to the next start

    def add(self, start: int, end: int) -> None:
        """Count every byte of the range once more."""
        self._change(start, end, 1)

    def remove(self, start: int, end: int) -> list[Range]:
        """Count every byte of the range, which was added before, once less; returns what fell to zero."""
        return self._change(start, end, -1)

    def any(self, start: int, end: int) -> bool:
        """Whether any byte of the range counts more than zero."""
        inside = self._steps.irange(start, end, inclusive=(False, False))
        return start < end and (self._before(start + 1) > 0 or any(self._steps[step] for step in inside))

    def _change(self, start: int, end: int, by: int) -> list[Range]:
        if start >= end:
            return []
        self._split(start)
        self._split(end)
        zero = []
        starts = [*self._steps.irange(start, end)]
        for first, last in pairwise(starts):
            self._steps[first] += by
            if self._steps[first] == 0:
                zero.append((first, last))
        for step in starts:
            self._join(step)
        return zero

    def _split(self, at: int) -> None:
        if at not in self._steps:
            self._steps[at] = self._before(at)

    def _join(self, at: int) -> None:
        if self._steps[at] == self._before(at):
            del self._steps[at]

    def _before(self, at: int) -> int:
        """The count just before `at`."""
        index = self._steps.bisect_left(at)
        return self._steps.peekitem(index - 1)[1] if index else 0


def disjoint(extents: Iterable[Extent]) -> list[Range]:
    """The bytes of the extents as maximal disjoint ranges, ascending."""
    joined = RangeSet()
    for extent in extents:
        joined.add(extent.offset, extent.end)
    return list(joined)
