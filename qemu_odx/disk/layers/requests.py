"""Requests to a disk that are under way, as somebody who sees them says: names for what a layer sees as bytes.

Imports nothing of ours. `server/witness.py` fills it in, `verify.py` asks it.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence

    Range = tuple[int, int]
    """First byte and the byte after the last."""


class Requests:
    """Requests by key, each with its name and the bytes of the disk that it names."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open: dict[Hashable, tuple[str, Sequence[Range]]] = {}

    def begin(self, key: Hashable, name: str, ranges: Sequence[Range]) -> None:
        """A request was taken."""
        with self._lock:
            self._open[key] = name, ranges

    def end(self, key: Hashable) -> None:
        """It has ended."""
        with self._lock:
            self._open.pop(key, None)

    def naming(self, offset: int, length: int) -> str:
        """The requests that name all these bytes, " or " between them; empty if nobody knows one."""
        with self._lock:
            found = [
                name
                for name, ranges in self._open.values()
                if any(start <= offset and offset + length <= end for start, end in ranges)
            ]
        return " or ".join(found)
