"""Who may write where, now: writes in flight, ranges held still, and old data to be kept first.

The rules, from which the point-in-time promise follows:

1. A write is registered before its first byte and taken out after its last.
2. A range held still (a snapshot being taken, a copy reading it, old data being kept) makes new writes to
   it wait. Who holds a range still never waits for a write that began later, so nothing can deadlock.
3. A range is armed only while it is held still and no write to it is in flight; a write to an armed range
   has its old data kept before it is registered. So no write in flight ever overlaps an armed range.
4. No range is held still by `still` while old data of it is being kept, which waits for nobody.

Imports nothing of ours but types. Next: `file.py` brackets its writes with `begin` and `end`.
"""

from __future__ import annotations

import contextlib
import sys
import threading
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    Range = tuple[int, int]
    """First byte and the byte after the last."""


class Keeper(Protocol):
    """Knows which ranges are armed, and keeps their old data."""

    def due(self, start: int, end: int) -> Sequence[Range]:
        """Armed ranges to be kept before a write to the range, a bounded amount. Called with the lock held."""

    def clear(self, start: int, end: int) -> Range:
        """A range around this one, as large as is easily found, with nothing armed. With the lock held."""

    def keep(self, ranges: Sequence[Range]) -> None:
        """Copy the old data aside, then disarm the ranges. Called without the lock, the ranges held still."""


_NOTHING = (0, 0)
_EVERYTHING = (0, sys.maxsize)


class NothingToKeep:
    """The keeper of a disk without snapshots."""

    def due(self, start: int, end: int) -> Sequence[Range]:
        """Nothing is armed."""
        del start, end
        return ()

    def clear(self, start: int, end: int) -> Range:
        """Everything is clear."""
        del start, end
        return _EVERYTHING

    def keep(self, ranges: Sequence[Range]) -> None:
        """Nothing to keep."""


class Guard:
    """The write guard of one disk.

    Attributes:
        lock: protects the guard and everything the keeper knows; never held over I/O.
        keeper: set once, when the disk gets its first snapshot.
    """

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.keeper: Keeper = NothingToKeep()
        self._changed = threading.Condition(self.lock)
        self._writes: dict[int, Range] = {}
        self._still: dict[int, Sequence[Range]] = {}
        self._keeping: dict[int, Sequence[Range]] = {}
        self._ticket = 0
        self._clear_start, self._clear_end = _EVERYTHING  # nothing here is held still or armed

    def begin(self, start: int, end: int) -> int:
        """Wait until the range may be written, keep its old data, register the write; returns its ticket."""
        with self.lock:
            if start < self._clear_start or end > self._clear_end:
                self._make_way(start, end)
            self._ticket = ticket = self._ticket + 1
            self._writes[ticket] = (start, end)
        return ticket

    def end(self, ticket: int) -> None:
        """The write has ended, well or badly."""
        with self.lock:
            del self._writes[ticket]
            if self._still:
                self._changed.notify_all()

    def try_begin(self, ranges: Sequence[Range]) -> range | None:
        """Register writes to all the ranges; their tickets. None if one of them has to wait, or to keep old data."""
        with self.lock:
            for start, end in ranges:
                if (start < self._clear_start or end > self._clear_end) and not self._clear(start, end):
                    return None
            first = self._ticket + 1
            self._ticket += len(ranges)
            tickets = range(first, first + len(ranges))
            self._writes.update(zip(tickets, ranges, strict=True))
        return tickets

    def end_all(self, tickets: range) -> None:
        """The writes have ended, well or badly."""
        with self.lock:
            for ticket in tickets:
                del self._writes[ticket]
            if self._still:
                self._changed.notify_all()

    @contextlib.contextmanager
    def writing(self, start: int, end: int) -> Iterator[None]:
        """A write in flight, as a context."""
        ticket = self.begin(start, end)
        try:
            yield
        finally:
            self.end(ticket)

    @contextlib.contextmanager
    def alone(self, start: int, end: int) -> Iterator[None]:
        """A write in flight that has the range to itself: no other write to it is in flight inside.

        It is registered and holds the range still in one breath, so it waits only for writes that began before,
        which wait for nobody: two of these never wait for each other, and no snapshot slips in between.
        """
        with self.lock:
            self._make_way(start, end)
            mine = self.hold([(start, end)])
            self._writes[mine] = (start, end)
            self._changed.wait_for(lambda: not self._others_write(mine, start, end))
        try:
            yield
        finally:
            with self.lock:
                del self._writes[mine]
                self.let_go(mine)

    @contextlib.contextmanager
    def still(self, ranges: Sequence[Range]) -> Iterator[None]:
        """Hold the ranges still: new writes to them wait, and those in flight have ended on entry."""
        with self.lock:
            ticket = self.hold(ranges)
            self._changed.wait_for(lambda: not any(self._busy(*r) for r in ranges))
        try:
            yield
        finally:
            with self.lock:
                self.let_go(ticket)

    def hold(self, ranges: Sequence[Range]) -> int:
        """Make new writes to the ranges wait until `let_go`; the lock is held by the caller."""
        self._clear_start, self._clear_end = _NOTHING
        self._ticket += 1
        self._still[self._ticket] = ranges
        return self._ticket

    def let_go(self, ticket: int) -> None:
        """Undo `hold`; the lock is held by the caller."""
        del self._still[ticket]
        self._changed.notify_all()

    def _busy(self, start: int, end: int) -> bool:
        return _overlap(self._writes.values(), start, end) or _hit(self._keeping.values(), start, end)

    def _others_write(self, mine: int, start: int, end: int) -> bool:
        return any(
            ticket != mine and first < end and start < last for ticket, (first, last) in self._writes.items()
        )

    def _clear(self, start: int, end: int) -> bool:
        """Whether a write to the range may begin as things are; remembers how far around it that is so."""
        busy = self._still or self._keeping
        if busy and (_hit(self._still.values(), start, end) or _hit(self._keeping.values(), start, end)):
            return False
        if self.keeper.due(start, end):
            return False
        if not busy:
            self._clear_start, self._clear_end = self.keeper.clear(start, end)
        return True

    def _make_way(self, start: int, end: int) -> None:
        # Keeping comes before waiting for readers: what is kept is read from aside from then on, so that a
        # stream of copies of the same source cannot starve a writer.
        while True:
            due = self.keeper.due(start, end)
            if due and not any(_hit(self._keeping.values(), *r) for r in due):
                self._keep(due)
            elif due or _hit(self._keeping.values(), start, end) or _hit(self._still.values(), start, end):
                self._changed.wait()
            else:
                if not self._still and not self._keeping:
                    self._clear_start, self._clear_end = self.keeper.clear(start, end)
                return

    def _keep(self, due: Sequence[Range]) -> None:
        self._clear_start, self._clear_end = _NOTHING
        self._ticket = ticket = self._ticket + 1
        self._keeping[ticket] = due
        self.lock.release()
        try:
            self.keeper.keep(due)
        finally:
            self.lock.acquire()
            del self._keeping[ticket]
            self._changed.notify_all()


def _overlap(ranges: Iterable[Range], start: int, end: int) -> bool:
    return any(first < end and start < last for first, last in ranges)


def _hit(groups: Iterable[Sequence[Range]], start: int, end: int) -> bool:
    return any(_overlap(group, start, end) for group in groups)
