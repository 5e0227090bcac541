"""What the entries of a record were when snapshots were taken: kept before the first change after each.

Imports `record.py`. Used by `verify.py`. It is to checksums what `disk/history.py` is to data; its memory is at most
a 64th of the old data that the tokens hold.
"""

from __future__ import annotations

import threading
from array import array
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from qemu_odx.disk.layers.record import Record

CHUNK: Final = 512
"""Blocks whose entries are kept together."""


class EntryHistory:
    """Entries as they were; snapshots are numbered as they are taken."""

    def __init__(self, record: Record) -> None:
        self._record = record
        self._lock = threading.Lock()
        self._live: dict[int, None] = {}
        self._newest = 0
        self._kept: dict[int, list[tuple[int, array[int]]]] = {}  # chunk -> number and entries, oldest first

    def take(self) -> int:
        """A snapshot is taken now; its number. Nobody changes entries that it covers meanwhile."""
        with self._lock:
            self._newest += 1
            self._live[self._newest] = None
            return self._newest

    def keep(self, first: int, count: int) -> None:
        """The entries of some blocks are about to change."""
        with self._lock:
            if not self._live:
                return
            for chunk in range(first // CHUNK, (first + count - 1) // CHUNK + 1):
                versions = self._kept.setdefault(chunk, [])
                if not versions or versions[-1][0] < self._newest:
                    versions.append((self._newest, self._record.entries(chunk * CHUNK, CHUNK)))

    def entries(self, number: int, first: int, count: int) -> array[int]:
        """What the entries of some blocks were when a snapshot was taken; nobody changes them meanwhile."""
        found: array[int] = array("Q")
        with self._lock:
            while count > 0:
                chunk, inside = divmod(first, CHUNK)
                part = min(count, CHUNK - inside)
                kept = next((old for n, old in self._kept.get(chunk, ()) if n >= number), None)
                found += self._record.entries(first, part) if kept is None else kept[inside : inside + part]
                first, count = first + part, count - part
        return found

    def release(self, number: int) -> None:
        """A snapshot is given back. Idempotent."""
        with self._lock:
            if number not in self._live:
                return
            oldest = next(iter(self._live)) == number
            del self._live[number]
            if not self._live:
                self._kept.clear()
            elif oldest:
                self._drop_before(next(iter(self._live)))

    def _drop_before(self, number: int) -> None:
        left = {
            chunk: [one for one in versions if one[0] >= number] for chunk, versions in self._kept.items()
        }
        self._kept = {chunk: versions for chunk, versions in left.items() if versions}
