"""A server goes on with what a predecessor left in the state folder.

Imports `disk`, `target` and the rest of `server/journal`. Called by `server/app.py` when disks are open and before
there are exports.
"""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING

from qemu_odx.disk.file import FileDisk
from qemu_odx.disk.layers.layer import lowest
from qemu_odx.server.journal.store import JournalError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from qemu_odx.disk.port import Disk, Snapshot
    from qemu_odx.server.journal.folder import StateFolder
    from qemu_odx.target.manager import CopyManager


def revive(manager: CopyManager, state: StateFolder, disks: Iterable[Disk]) -> None:
    """Give a copy manager the tokens, results and copies of before; what nobody needs of them is given back.

    Raises:
        JournalError: the journal cannot be read.
    """
    journal, disks = state.journal, list(disks)
    left = {disk.name: disk.recalled for disk in map(lowest, disks) if isinstance(disk, FileDisk)}

    def snapshot(disk: str, number: int) -> Snapshot | None:
        return left.get(disk, {}).pop(number, None)

    try:
        manager.tokens.restore(*journal.tokens(snapshot))
        for old in journal.operations():
            source = old.operation.source
            found = snapshot(*source) if source and not old.ended else None
            if source and found:
                manager.recovery.snapshots[source] = found
            manager.recovery.take_in(old, manager.operations)
        manager.recovery.settled = frozenset(journal.known())
        journal.swaps.revive(manager.swaps, {disk.name: disk for disk in disks})
        state.forget_others()
    except (sqlite3.Error, ValueError) as error:
        raise JournalError(f"the journal cannot be read ({error}): remove the state folder") from error
    for unclaimed in left.values():
        for item in unclaimed.values():
            item.release()
        unclaimed.clear()
