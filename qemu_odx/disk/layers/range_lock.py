"""A lock on ranges of a disk: changes have theirs alone, looks share.

Imports nothing of ours. Used by `verify.py`. Whoever holds a range may take no other.
"""

from __future__ import annotations

import contextlib
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    Range = tuple[int, int]
    """First byte and the byte after the last."""


class RangeLock:
    """Ranges held now. A waiter is overtaken by none that came later and wants the same bytes."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._held: dict[int, tuple[Sequence[Range], bool]] = {}
        self._number = 0

    @contextlib.contextmanager
    def hold(self, ranges: Sequence[Range], *, alone: bool) -> Iterator[None]:
        """Wait for the ranges, and hold them inside: `alone`, or with others that are not alone."""
        with self._changed:
            self._number = number = self._number + 1
            self._held[number] = ranges, alone
            self._changed.wait_for(lambda: not self._hindered(number, ranges, alone=alone))
        try:
            yield
        finally:
            with self._changed:
                del self._held[number]
                self._changed.notify_all()

    def _hindered(self, number: int, ranges: Sequence[Range], *, alone: bool) -> bool:
        return any(
            other < number and (alone or theirs) and _meet(ranges, held)
            for other, (held, theirs) in self._held.items()
        )


def _meet(one: Sequence[Range], other: Sequence[Range]) -> bool:
    return any(start < last and first < end for start, end in one for first, last in other)
