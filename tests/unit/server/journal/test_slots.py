"""The journal of a mailbox: what a successor shows, and for how long it is still somebody's."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING

import pytest

from qemu_odx.server.journal.slots import SlotJournal
from qemu_odx.server.journal.store import Store
from qemu_odx.target.port import LoginNexus
from qemu_odx.virtio.mailbox import Slot
from qemu_odx.wire.mailbox import LEASE

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

NEXUS = LoginNexus("b.sock", 3)
SHOWN = Slot(user=2**64 - 1, sequence=7, response=b"answer", stamp=b"stamp")


def fail() -> None:
    """The journal is sound."""
    raise AssertionError("the journal failed")


@contextlib.contextmanager
def journal(folder: Path) -> Iterator[SlotJournal]:
    """One life of the server."""
    store = Store(folder / "journal.sqlite3", fail)
    yield SlotJournal(store, "b.sock", lambda: False)
    store.close()


@pytest.mark.parametrize(("later", "left"), [(0, LEASE), (10, LEASE - 10), (100, 0), (-100, LEASE)])
def test_a_lease_goes_on_while_no_server_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, later: int, left: int
) -> None:
    """Else servers that come and go would keep slots for users long gone; a clock set back is survived."""
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now)
    with journal(tmp_path) as first:
        first.answered(NEXUS, 5, SHOWN, LEASE)
    monkeypatch.setattr(time, "time", lambda: now + later)
    with journal(tmp_path) as second:
        ((number, slot),) = second.recall(NEXUS)
    assert (number, slot.user, slot.sequence) == (5, SHOWN.user, SHOWN.sequence)
    assert (slot.response, slot.stamp) == (SHOWN.response, SHOWN.stamp)
    assert slot.leased_until == pytest.approx(left, abs=0.01)
