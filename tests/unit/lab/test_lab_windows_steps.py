"""The steps and the watching of Setup, with a machine whose guest follows a script: every way it can end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest
from scripted_windows import ScriptedMachine

from qemu_odx.lab.errors import LabError
from qemu_odx.lab.phases import Silent
from qemu_odx.lab.windows_image.install import MOST_BOOTS, install, keep_evidence
from qemu_odx.lab.windows_image.steps import Deadline, StateFile, Step, run_steps

if TYPE_CHECKING:
    from pathlib import Path

    from qemu_odx.lab.windows_image.steps import Results

CD = 'BdsDxe: starting Boot0002 "UEFI QEMU DVD-ROM QM00003 " from PciRoot(0x0)/Pci(0x1F,0x2)/Sata(0x1,0xFFFF,0x0)'
DISK = 'BdsDxe: starting Boot0005 "Windows Boot Manager" from HD(1,GPT,...)'
GOOD = [CD, "wait for a key", DISK, DISK, "LAB:step drivers", "LAB:step ssh", "LAB:installed", "off"]


QUESTION = "Press any key to boot from CD or DVD....."


def watch(machine: ScriptedMachine, *, limit: float = 3600.0) -> list[str]:
    """Install without sleeping; what was reported."""
    reported: list[str] = []
    deadline = Deadline(time.monotonic() + limit, limit, "see the screenshot")
    install(machine, deadline, reported.append, sleep=lambda _: None)
    return reported


def test_good_installation() -> None:
    """A key for the CD and no other; reboots allowed; the end by marker and power."""
    machine = ScriptedMachine(GOOD)
    reported = watch(machine)
    assert reported[0].startswith("it boots from UEFI QEMU DVD-ROM")
    assert reported[-1] == "Windows is installed"
    assert "Windows is set up: drivers" in reported
    assert machine.reboots_allowed
    assert set(machine.keys) == {"ret"}


def test_keys_stop() -> None:
    """After the question of the CD they would answer something else."""
    machine = ScriptedMachine([CD, *["text"] * 200, "LAB:installed", "off"])
    watch(machine)
    assert 10 <= len(machine.keys) <= 25


@pytest.mark.parametrize("first", [DISK, CD])
def test_keys_are_pressed_once_only(first: str) -> None:
    """At a later start the disk must win: nobody presses for the CD again."""
    later = [first, CD, QUESTION, *["text"] * 40]
    machine = ScriptedMachine([CD, *["text"] * 40, *later, "LAB:installed", "off"])
    watch(machine)
    assert len(machine.keys) <= 25


def test_a_question_that_comes_late_is_answered() -> None:
    """On a slow host the CD asks long after the firmware has started it; what was pressed before is forgotten."""
    machine = ScriptedMachine([CD, *["text"] * 100, QUESTION, "wait for another key", "LAB:installed", "off"])
    watch(machine)


def test_no_key_without_a_cd() -> None:
    """A boot from the disk asks nothing."""
    machine = ScriptedMachine([DISK, "text", "LAB:installed", "off"])
    watch(machine)
    assert machine.keys == []


@pytest.mark.parametrize(
    ("steps", "words"),
    [
        ([CD, "off"], "switched off before Windows was installed; the last thing seen: it boots from"),
        ([CD, "LAB:step ssh", "die"], "QEMU ended with exit code 1: out of memory"),
        ([CD, "LAB:step ssh", "LAB:failed no sshd.exe", "off"], r"first-logon script failed: no sshd\.exe"),
        ([DISK] * (MOST_BOOTS + 1), "boots from Windows Boot Manager again and again"),
        ([CD] * (MOST_BOOTS + 1), "boots from UEFI QEMU DVD-ROM QM00003 again and again"),
    ],
)
def test_bad_installation(steps: list[str], words: str) -> None:
    """Each end has its reason."""
    with pytest.raises(LabError, match=words):
        watch(ScriptedMachine(steps))


def test_time_is_over() -> None:
    """The last thing that was seen is in the sentence, and what to do."""
    with pytest.raises(LabError, match=r"longer than 0 s; the last thing seen: it boots from .*screenshot"):
        watch(ScriptedMachine([CD, *["text"] * 10_000]), limit=0.0)


def test_half_a_line_is_no_line() -> None:
    """The serial port is read while the guest writes."""

    class Stuttering(ScriptedMachine):
        def _step(self, step: str) -> None:
            if step.startswith("half:"):
                self._console += step.removeprefix("half:")
                self._steps.pop(0)
            else:
                super()._step(step)

    reported = watch(Stuttering(["half:LAB:step dri", "vers", "half:LAB:inst", "alled", "off"]))
    assert reported == ["Windows is set up: drivers", "Windows is installed"]


def test_evidence_is_kept(tmp_path: Path) -> None:
    """What is on the screen, what was on the serial port."""
    machine = ScriptedMachine([CD])
    machine.start()
    machine.console()
    keep_evidence(machine, tmp_path / "failed")
    assert (tmp_path / "failed" / "screen.png").exists()
    assert CD in (tmp_path / "failed" / "console.log").read_text()


def step(name: str, log: list[str], *, fail: bool = False) -> Step:
    """A step that notes that it was done."""

    def work(done: Results, deadline: Deadline) -> dict[str, Any]:
        deadline.check()
        log.append(name)
        if fail:
            raise LabError("it broke", "mend it")
        return {"seen": sorted(done)}

    return Step(name, f"doing {name}", 60, "look", work)


def test_steps_go_on_where_they_were(tmp_path: Path) -> None:
    """A failed step is done again, those before are not; each sees the results of those before."""
    log: list[str] = []
    path, wishes = tmp_path / "state.json", {"iso": "a"}
    with pytest.raises(LabError, match=r"step two \(doing two\) failed: it broke; mend it"):
        run_steps([step("one", log), step("two", log, fail=True)], StateFile(path, wishes), Silent())
    done = run_steps(
        [step("one", log), step("two", log), step("three", log)], StateFile(path, wishes), Silent()
    )
    assert log == ["one", "two", "two", "three"]
    assert done["three"] == {"seen": ["one", "two"]}


def test_other_wishes_begin_anew(tmp_path: Path) -> None:
    """What was done for another medium is of no use."""
    log: list[str] = []
    for iso in ("a", "b", "b"):
        run_steps([step("one", log)], StateFile(tmp_path / "state.json", {"iso": iso}), Silent())
    assert log == ["one", "one"]


@pytest.mark.parametrize("content", ["", "{", "[]", '{"wishes": {"iso": "a"}}'])
def test_damaged_state_begins_anew(tmp_path: Path, content: str) -> None:
    """Better twice than wrong."""
    (tmp_path / "state.json").write_text(content)
    assert StateFile(tmp_path / "state.json", {"iso": "a"}).done == {}


def test_step_that_takes_too_long(tmp_path: Path) -> None:
    """The step's own reason is the cure."""

    def work(_: Results, deadline: Deadline) -> dict[str, Any]:
        deadline.check()
        return {}

    late = Step("slow", "being slow", -1, "see why it is slow", work)
    with pytest.raises(LabError, match=r"step slow .*took longer than -1 s; see why it is slow"):
        run_steps([late], StateFile(tmp_path / "state.json", {}), Silent())


KILLED = """
import sys, time
from pathlib import Path
from qemu_odx.lab.phases import Silent
from qemu_odx.lab.windows_image.steps import StateFile, Step, run_steps
log = Path(sys.argv[2])
def work(name):
    def do(done, deadline):
        with log.open("a") as file:
            file.write(name + "\\n")
        if name == "two" and log.read_text().count("two") == 1:
            time.sleep(600)
        return {}
    return do
steps = [Step(name, name, 60, "", work(name)) for name in ("one", "two", "three")]
run_steps(steps, StateFile(Path(sys.argv[1]), {"iso": "a"}), Silent())
"""


def test_killed_between_steps(tmp_path: Path) -> None:
    """SIGKILL in the second step: the next process does that one again, and the first is remembered."""
    log = tmp_path / "log"
    command = [sys.executable, "-c", KILLED, str(tmp_path / "state.json"), str(log)]
    with subprocess.Popen(command) as first:
        deadline = time.monotonic() + 60
        while not log.exists() or "two" not in log.read_text():
            assert time.monotonic() < deadline
            time.sleep(0.02)
        os.kill(first.pid, signal.SIGKILL)
    subprocess.run(command, check=True, timeout=60)
    assert log.read_text().split() == ["one", "two", "two", "three"]
    assert list(json.loads((tmp_path / "state.json").read_text())["done"]) == ["one", "two", "three"]
