"""A guest that is up though nobody has read so."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from qemu_odx.lab import live
from qemu_odx.lab.adapters.linux import LinuxAdapter
from qemu_odx.lab.errors import LabError, LateError
from qemu_odx.lab.ssh import Login


@dataclass
class Silent:
    """A machine that runs, and whose console says nothing."""

    console_is_whole: bool
    running: bool = True
    ssh_port: int = 1

    def console(self) -> str:
        """Nothing."""
        return ""

    def write_state(self) -> None:
        """Asked for by who gives up."""

    def kill(self) -> None:
        """Its end."""
        self.running = False


class Shell:
    """Takes the place of ssh."""

    answers = True

    def __init__(self, *_: object, **__: object) -> None:
        if not self.answers:
            raise LabError("nobody answers", "wait")

    def close(self) -> None:
        """Left again."""


@pytest.mark.parametrize(
    ("whole", "answers", "up"), [(False, True, True), (False, False, False), (True, True, False)]
)
def test_ssh_is_tried_where_words_get_lost(
    monkeypatch: pytest.MonkeyPatch, *, whole: bool, answers: bool, up: bool
) -> None:
    """Only there, and it has to answer."""
    monkeypatch.setattr(live, "PROBE_SECONDS", 0.05)
    monkeypatch.setattr(live, "GuestShell", Shell)
    monkeypatch.setattr(Shell, "answers", answers)
    machine: Any = Silent(whole)
    adapter = LinuxAdapter(Login(), marker="LAB:never")
    if up:
        assert live.LiveGuest(machine, adapter, patience=60).machine.running
    else:
        with pytest.raises(LateError, match="did not write LAB:never"):
            live.LiveGuest(machine, adapter, patience=0.3)
        assert not machine.running
