"""The journal of a mailbox: implements `virtio/mailbox.SlotJournal`.

Imports `virtio/mailbox`, `store.py` and `names.py`.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from qemu_odx.server.journal.names import name_of
from qemu_odx.virtio.mailbox import Slot
from qemu_odx.wire.mailbox import LEASE

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

    from qemu_odx.server.journal.store import Store


class SlotJournal:
    """What the response areas of one mailbox show.

    Args:
        store: the database.
        port: the initiator port of the mailbox.
        ending: whether the process ends: a driver that leaves now is expected to come back to a successor.
    """

    def __init__(self, store: Store, port: str, ending: Callable[[], bool]) -> None:
        self._store = store
        self._port = port
        self._ending = ending
        self._left = store.rows(
            "SELECT nexus, slot, user, sequence, stamp, response, leased FROM slots WHERE port=?", port
        )

    def answered(self, nexus: Hashable, slot: int, shown: Slot, lease: float) -> None:
        """See `SlotJournal`."""
        numbers = (str(shown.user), str(shown.sequence))  # 64 bits without a sign, which SQLite has not
        self._store.write(
            "INSERT OR REPLACE INTO slots VALUES(?,?,?,?,?,?,?,?)",
            (self._port, name_of(nexus), slot, *numbers, shown.stamp, shown.response, time.time() + lease),
        )

    def forgotten(self) -> None:
        """See `SlotJournal`."""
        if not self._ending():
            self._store.write("DELETE FROM slots WHERE port=?", (self._port,))

    def recall(self, nexus: Hashable) -> list[tuple[int, Slot]]:
        """See `SlotJournal`."""
        left, self._left = self._left, []
        now = time.time()
        return [
            (
                slot,
                Slot(
                    int(user),
                    int(sequence),
                    leased_until=min(max(leased - now, 0.0), LEASE),
                    stamp=stamp,
                    response=response,
                ),
            )
            for name, slot, user, sequence, stamp, response, leased in left
            if name == name_of(nexus)
        ]
