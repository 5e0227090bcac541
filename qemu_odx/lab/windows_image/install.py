"""Windows' Setup, watched from outside: the firmware's lines and the guest's own on the serial port, and the power.

May import: errors, machine, answer_disc (its marker), steps (its deadline). Used by `build.py`; the machine is any
`Machine`.
"""

from __future__ import annotations

import re
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from qemu_odx.lab.errors import LabError
from qemu_odx.lab.windows_image.answer_disc import INSTALLED

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from qemu_odx.lab.machine import Machine
    from qemu_odx.lab.windows_image.steps import Deadline

STARTING = re.compile(r'BdsDxe: starting (Boot\d+) "([^"]*)"')  # edk2 MdeModulePkg, BdsDxe
STEP = re.compile(r"LAB:step (\S+)")
FAILED = re.compile(r"LAB:failed (.*)")
CD_DRIVE = "DVD-ROM"
QUESTION = "Press any key to boot from CD"
POLL_SECONDS = 0.5
PRESSES = 20  # one at each look, for ten seconds: the question waits for five
MOST_BOOTS = 6  # of the same entry: Setup restarts two to four times
END_SECONDS = 300.0


@dataclass
class Progress:
    """What has been seen so far.

    Attributes:
        boots: how often each boot entry was started.
        asking: the CD starts for the first time, and may ask for a key; nothing else has been started since.
        presses: how many keys are still to be pressed, so that the CD boots.
        installed: the guest said that it is done.
        last: the last thing it did, for people.
    """

    boots: Counter[str] = field(default_factory=Counter)
    asking: bool = False
    presses: int = 0
    installed: bool = False
    last: str = "the firmware starts"


def install(
    machine: Machine,
    deadline: Deadline,
    report: Callable[[str], None],
    *,
    sleep: Callable[[float], None] = time.sleep,
) -> Progress:
    """Start the machine and watch it until Windows is installed and has switched it off.

    Raises:
        LabError: it did not come to that, with the last thing that was seen. The machine is still on, if it was.
    """
    seen, progress = 0, Progress()
    machine.start()
    machine.let_reboot(allowed=True)
    while True:
        ended = not machine.running  # before the console is read: then all its words are there
        text = machine.console()
        complete = text.rfind("\n") + 1 if not ended else len(text)
        for line in text[seen:complete].splitlines():
            _look_at(line, progress, report)
        if progress.asking and QUESTION in text[seen:]:  # its line is not ended before it is answered
            progress.asking, progress.presses = False, PRESSES
        seen = max(seen, complete)
        if ended:
            return _end_of(progress, machine)
        if progress.presses:
            progress.presses -= 1
            with suppress(LabError):  # it may just have ended
                machine.press_keys("ret")
        _check_time(progress, deadline)
        sleep(POLL_SECONDS)


def _look_at(line: str, progress: Progress, report: Callable[[str], None]) -> None:
    if start := STARTING.search(line):
        _count_boot(start[2], progress)
        report(progress.last)
    elif step := STEP.search(line):
        progress.last = f"Windows is set up: {step[1]}"
        report(progress.last)
    elif failed := FAILED.search(line):
        raise LabError(
            f"the first-logon script failed: {failed[1].strip()}", "see the screenshot and the serial log"
        )
    elif INSTALLED in line:
        progress.installed = True
        progress.last = "Windows is installed"
        report(progress.last)


def _count_boot(entry: str, progress: Progress) -> None:
    """The CD asks for a key at its first start only: later the disk must boot."""
    progress.boots[entry] += 1
    progress.last = f"it boots from {entry.strip()}"
    if progress.boots[entry] > MOST_BOOTS:
        raise LabError(
            f"it boots from {entry.strip()} again and again",
            "see the screenshot: Setup says there what it misses",
        )
    progress.asking = CD_DRIVE in entry and progress.boots[entry] == 1
    if progress.asking:
        progress.presses = PRESSES


def _check_time(progress: Progress, deadline: Deadline) -> None:
    try:
        deadline.check()
    except LabError as error:
        raise LabError(f"{error.cause}; the last thing seen: {progress.last}", error.cure) from error


def _end_of(progress: Progress, machine: Machine) -> Progress:
    machine.check()
    if not progress.installed:
        raise LabError(
            f"the machine switched off before Windows was installed; the last thing seen: {progress.last}",
            "see the serial log",
        )
    return progress


def keep_evidence(machine: Machine, folder: Path) -> None:
    """After a failure: what is on the screen, and where the processors are."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "console.log").write_text(machine.console())
    if machine.running:
        machine.write_state()
        with suppress(LabError):
            machine.screenshot(folder / "screen.png")
