"""Ctrl-C, SIGTERM and SIGHUP at any moment leave no process, socket, file, folder or lock.

QEMU_ODX_INTERRUPTS sets how many moments are tried (12), QEMU_ODX_INTERRUPT_SEED which ones.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from leftovers import Scratch

if TYPE_CHECKING:
    from collections.abc import Iterator

    from qemu_odx.lab.image import Image

MOMENTS = int(os.environ.get("QEMU_ODX_INTERRUPTS", "12"))
SEED = int(os.environ.get("QEMU_ODX_INTERRUPT_SEED", "6"))
COPY = ("odx_copy.py", "--source", "odx-source", "--destination", "odx-destination", "--mebibytes", "8")
COMMANDS = {
    "run": ("run", "--memory", "256", *COPY),
    "up": ("up", "--memory", "256"),
    "demo": ("demo", "--json"),
}
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
LONGEST = 0.85
"""Of a whole run, so that most moments are inside of one."""


@pytest.fixture
def scratch(image: Image) -> Iterator[Scratch]:
    """A place of its own."""
    with tempfile.TemporaryDirectory(prefix="t") as folder:
        yield Scratch(Path(folder))


@pytest.fixture(scope="module")
def whole_run(image: Image) -> float:
    """Seconds that a run takes on this machine as it is now; it leaves nothing either."""
    with tempfile.TemporaryDirectory(prefix="t") as folder:
        place = Scratch(Path(folder))
        started = time.monotonic()
        done = place.run(*COMMANDS["run"])
        assert done.returncode == 0, done.stderr
        assert place.left() == {}
        return time.monotonic() - started


@pytest.mark.parametrize("number", range(MOMENTS))
def test_interrupted_at_a_random_moment(scratch: Scratch, whole_run: float, number: int) -> None:
    """Each command in turn, each signal; what ended before the signal came must be clean too."""
    dice = random.Random(f"{SEED} {number}")
    command = list(COMMANDS)[number % len(COMMANDS)]
    what = dice.choice(SIGNALS)
    with scratch.start(*COMMANDS[command]) as process:
        with suppress(subprocess.TimeoutExpired):
            process.wait(dice.uniform(0, whole_run * LONGEST))
        process.send_signal(what)
        said, complaints = process.communicate(timeout=200)
    if process.returncode == 0:
        scratch.run("down", "--all")  # a lab that was up before the signal came
    else:
        assert process.returncode in {128 + what, -what}, said + complaints
    assert scratch.left() == {}, f"{command}, {what.name}"


def test_interrupted_twice(scratch: Scratch) -> None:
    """An impatient user presses Ctrl-C again and again: the clean-up goes on to its end."""
    with scratch.start(*COMMANDS["run"]) as process:
        while len(scratch.processes()) < 3:  # it, the disk server, QEMU
            assert process.poll() is None
            time.sleep(0.05)
        while process.poll() is None:
            process.send_signal(signal.SIGINT)
            time.sleep(0.02)
        process.communicate()
    assert process.returncode == 130
    assert scratch.left() == {}


def test_up_is_up_or_leaves_nothing(scratch: Scratch) -> None:
    """A signal that comes just when the lab is ready: a code of 0 and a lab, or another and none."""
    with scratch.start("up", "--memory", "256") as process:
        while process.poll() is None and not list(scratch.folder.glob("state/qemu-odx/labs/*/lab.json")):
            time.sleep(0.001)
        while process.poll() is None:
            process.send_signal(signal.SIGTERM)
            time.sleep(0.001)
        said, complaints = process.communicate()
    if process.returncode == 0:
        assert "is up" in said
        assert scratch.run("down").returncode == 0
    else:
        assert process.returncode == 143, complaints
    assert scratch.left() == {}


def test_interrupted_while_a_lab_is_up(scratch: Scratch) -> None:
    """A signal to the lab's own process takes the lab down; SIGHUP does it at once."""
    lab = scratch.start("up", "--memory", "256")
    lab.communicate()
    assert lab.returncode == 0
    (supervisor,) = [
        pid for pid in scratch.processes() if b"\0up\0" in Path(f"/proc/{pid}/cmdline").read_bytes()
    ]
    os.kill(supervisor, signal.SIGHUP)
    while scratch.processes():
        time.sleep(0.05)
    assert scratch.left() == {}


def test_closed_terminal_of_a_run_under_nohup(scratch: Scratch) -> None:
    """Who ignores SIGHUP before has it ignored: the run goes on to its end."""
    process = scratch.start("run", "--memory", "256", "odx_doctor.py", ignored="HUP")
    with process:
        while len(scratch.processes()) < 3:
            assert process.poll() is None
            time.sleep(0.05)
        process.send_signal(signal.SIGHUP)
        process.communicate()
    assert process.returncode == 0
    assert scratch.left() == {}
