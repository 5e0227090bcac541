"""A guest that is up though nobody has read so."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import pytest

from qemu_odx.lab import live
from qemu_odx.lab.adapters.linux import LinuxAdapter
from qemu_odx.lab.errors import LabError, LateError
from qemu_odx.lab.ssh import Completed, Login


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

    def let_reboot(self, *, allowed: bool) -> None:
        """It will not."""

    def kill(self) -> None:
        """Its end."""
        self.running = False


class Shell:
    """Takes the place of ssh; each one finds the guest in the next of some boots, the last one for ever."""

    answers = True
    boots: ClassVar[list[str]] = ["first"]

    def __init__(self, *_: object, **__: object) -> None:
        if not self.answers:
            raise LabError("nobody answers", "wait")

        self.boot = self.boots.pop(0) if len(self.boots) > 1 else self.boots[0]

    def run(self, _command: str, **_: object) -> Completed:
        """Only one thing is asked for."""
        return Completed(0, f"{self.boot}\n", "")

    def start(self, _command: str) -> None:
        """Nothing comes of it but the next boot."""

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


def test_a_reboot_whose_marker_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    """The boot that is left answers for a while; the next one is another."""
    monkeypatch.setattr(live, "PROBE_SECONDS", 0.0)
    monkeypatch.setattr(live, "RETRY_SECONDS", 0.01)
    monkeypatch.setattr(live, "GuestShell", Shell)
    monkeypatch.setattr(Shell, "boots", ["first"] * 4 + ["second"])
    machine: Any = Silent(console_is_whole=False)
    guest = live.LiveGuest(machine, LinuxAdapter(Login(), marker="LAB:never"), patience=60)
    guest.reboot()
    shell: Any = guest.shell
    assert shell.boot == "second"
