"""Lives of a server that end by a kill of it alone."""

from __future__ import annotations

import pytest

from qemu_odx.disk.hostfile import HostFile


@pytest.fixture(autouse=True)
def no_waits_for_the_medium(monkeypatch: pytest.MonkeyPatch) -> None:
    """No host crashes here: what a killed process wrote is there."""
    monkeypatch.setattr(HostFile, "flush", lambda _: None)
