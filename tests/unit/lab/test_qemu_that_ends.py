"""A QEMU that closes its monitor and takes its time to end: its own words are the reason, on slow hosts too."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from qemu_odx.lab.errors import LabError
from qemu_odx.lab.image import Image
from qemu_odx.lab.machines.qemu import QemuMachine
from qemu_odx.lab.qemu import PROGRAM, GuestSpec
from qemu_odx.lab.warm import ResumedMachine

SLOW_TO_END = """\
#!{python}
import json, os, re, socket, sys, time
from pathlib import Path
number = int(re.search(r"fd=(\\d+)", " ".join(sys.argv))[1])
monitor = socket.socket(fileno=number)
if {answers}:
    monitor.sendall(b'{{"QMP": {{"version": {{}}, "capabilities": []}}}}\\n')
    while line := monitor.recv(4096):
        asked = json.loads(line)
        if asked["execute"] == "query-status":
            break
        answer = {{"return": {{}}, **({{"id": asked["id"]}} if "id" in asked else {{}})}}
        monitor.sendall(json.dumps(answer).encode() + b"\\n")
monitor.shutdown(socket.SHUT_RDWR)
monitor.close()
time.sleep(1)
sys.exit("-device no-such-device: it is no device")
"""


def ending_qemu(folder: Path, monkeypatch: pytest.MonkeyPatch, *, answers: bool) -> GuestSpec:
    """Such a program in QEMU's place, and a guest for it."""
    programs = folder / "programs"
    programs.mkdir()
    (programs / PROGRAM).write_text(SLOW_TO_END.format(python=sys.executable, answers=answers))
    (programs / PROGRAM).chmod(0o755)
    for name in ("setpriv", "sh"):
        (programs / name).symlink_to(Path("/usr/bin") / name)
    monkeypatch.setenv("PATH", str(programs))
    return GuestSpec(Image("test", folder), "tcg")


def test_at_the_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before its monitor has answered."""
    machine = QemuMachine(ending_qemu(tmp_path, monkeypatch, answers=False), tmp_path)
    with pytest.raises(LabError, match=r"QEMU ended with exit code 1: .*no-such-device"):
        machine.start()


def test_while_a_saved_guest_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It has answered, and then the state does not fit."""
    machine = ResumedMachine(ending_qemu(tmp_path, monkeypatch, answers=True), tmp_path, tmp_path / "state")
    with pytest.raises(LabError, match=r"QEMU ended with exit code 1: .*no-such-device"):
        machine.start()
