"""The journal of COMPARE AND WRITE: implements `target/swaps.SwapJournal`, and reads back what was noted.

Imports `target/swaps`, `disk/layers`, `names.py`, `disks.py` and `store.py`. A note is small once its command has
written: what it was to write is needed no more.
"""

from __future__ import annotations

import itertools
import logging
import os
import stat
import time
from typing import TYPE_CHECKING

from qemu_odx.disk.layers.layer import lowest
from qemu_odx.server.journal.disks import by_another
from qemu_odx.server.journal.names import name_of, nexus_of
from qemu_odx.target.swaps import Swap, complete

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from qemu_odx.disk.port import Disk
    from qemu_odx.server.journal.store import Store
    from qemu_odx.target.swaps import Swaps

log = logging.getLogger(__name__)


class SwapNotes:
    """Notes of these commands in the store."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._notes = itertools.count(time.time_ns())
        self._writing: set[int] = set()

    def begun(self, swap: Swap) -> None:
        """See `SwapJournal`."""
        swap.note = next(self._notes)
        self._writing.add(swap.note)
        who = swap.note, name_of(swap.nexus), swap.stamp
        where = swap.disk, swap.offset, swap.length
        self._store.write(
            "INSERT INTO swaps VALUES(?,?,?,?,?,?,?,?,?,0)",
            (*who, *where, swap.old + swap.new, swap.stable, time.time_ns()),
        )

    def written(self, swap: Swap) -> None:
        """See `SwapJournal`."""
        self._store.write("UPDATE swaps SET data=x'', written=1 WHERE note=?", (swap.note,))
        self._writing.discard(swap.note)

    def dropped(self, notes: Sequence[int]) -> None:
        """See `SwapJournal`."""
        self._store.write("DELETE FROM swaps WHERE note=?", *((note,) for note in notes))
        self._writing.difference_update(notes)

    def beat(self) -> None:
        """The process is there, and so is every write that it has begun."""
        if self._writing:
            self._store.write("UPDATE swaps SET seen=? WHERE NOT written", (time.time_ns(),))

    def revive(self, swaps: Swaps, disks: Mapping[str, Disk]) -> None:
        """Finish what a predecessor had begun to write, and know again what was written. Before anybody is served."""
        rows = self._store.rows("SELECT * FROM swaps ORDER BY note")
        for note, nexus, stamp, disk, offset, length, data, stable, seen, written in rows:
            halves = data[:length], data[length:]
            swap = Swap(nexus_of(nexus), stamp, disk, offset, length, *halves, bool(stable), note)
            if written:
                swaps.restore(swap)
            elif _completed(swap, disks.get(disk), seen):
                self.written(swap)
                swaps.restore(swap)
            else:
                self.dropped([note])


def _completed(swap: Swap, disk: Disk | None, seen: int) -> bool:
    if disk is None or _changed(disk, seen):
        return False
    try:
        return complete(swap, disk)
    except OSError as error:
        log.warning(
            "disk %s: a COMPARE AND WRITE at byte %d cannot be finished: %s", swap.disk, swap.offset, error
        )
        return False


def _changed(disk: Disk, seen: int) -> bool:
    """Whether an image was changed since by somebody else; block devices do not tell, and are believed."""
    descriptor = lowest(disk).descriptor
    if descriptor is None:
        return True
    status = os.fstat(descriptor)
    return stat.S_ISREG(status.st_mode) and by_another(status.st_mtime_ns, seen)
