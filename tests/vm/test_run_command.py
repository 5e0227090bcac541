"""`qemu-odx run` with a real guest: output, exit codes, artefacts, and nothing left."""

from __future__ import annotations

import hashlib
import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from leftovers import Scratch
from own_image import own_image

from qemu_odx.lab.session.outcome import ExitCode

if TYPE_CHECKING:
    from collections.abc import Iterator

    from qemu_odx.lab.image import Image

COPY = ["odx_copy.py", "--source", "odx-source", "--destination", "odx-destination", "--mebibytes", "8"]
ARTEFACTS = {"serve.log", "serial.log", "qemu.log", "qmp.log", "commands.txt", "summary.json", "stdout.txt"}


@pytest.fixture
def scratch(image: Image) -> Iterator[Scratch]:
    """A place of its own; nothing but kept runs is left there."""
    with tempfile.TemporaryDirectory(prefix="t") as folder:
        place = Scratch(Path(folder))
        (place.folder / "mine").mkdir()
        yield place
        assert place.left("runs", "logs", "mine") == {}


def test_script_of_ours_returns_its_json(scratch: Scratch) -> None:
    """The proof of the demonstration through the general door; its logs where the user wants them."""
    report = scratch.folder / "mine/report"
    done = scratch.run(
        "run", "--json", "--logs", str(scratch.folder / "logs"), "--report", str(report), *COPY
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["ok"]
    assert found["finished"]
    hashes = found["result"]["sha256"]
    assert hashes["destination"] == hashes["source_before"] != hashes["source_after"]
    assert found["result"]["token_copy"]["bytes"] == 8 << 20
    assert list(found["phases"]) == ["image", "serve", "boot", "script", "power_off"]
    assert found["artefacts"] is None
    assert not (scratch.folder / "state").exists()
    assert {path.name for path in (scratch.folder / "logs").iterdir()} >= ARTEFACTS
    assert '"execute": "qmp_capabilities"' in (scratch.folder / "logs/qmp.log").read_text()
    commands = (scratch.folder / "logs/commands.txt").read_text()
    assert "qemu_odx serve --json --disk id=source," in commands
    assert "qemu-system-x86_64 -accel" in commands
    told = json.loads((report / "report.json").read_text())
    assert told["ok"]
    assert [way["bytes"] for way in told["ways"]] == [8 << 20, 8 << 20]
    assert {digest["sha256"] for digest in told["digests"]} == set(hashes.values())
    assert {span["name"] for span in told["spans"]} >= {"boot", "POPULATE TOKEN", "WRITE USING TOKEN"}


def test_users_script_keeps_its_exit_code(scratch: Scratch) -> None:
    """Arguments arrive whole, our modules can be imported, output is passed on, the failed run is kept."""
    script = scratch.folder / "mine/it.py"
    script.write_text(
        "import json, sys\n"
        "from disks import scsi_node\n"
        "print('progress: 1 2 thinking', file=sys.stderr)\n"
        "print('to stderr', file=sys.stderr)\n"
        "print(json.dumps([scsi_node('it'), sys.argv[1:]]))\n"
        "sys.exit(37)\n"
    )
    report = ("--report", str(scratch.folder / "mine/report"))
    done = scratch.run("run", *report, "--disk", "size=8M,serial=it", str(script), "a b", "--flag", "$HOME")
    assert done.returncode == 37
    assert json.loads(done.stdout) == ["/dev/sda", ["a b", "--flag", "$HOME"]]
    assert done.stderr.startswith("to stderr\n")
    assert "thinking" not in done.stderr
    (kept,) = (path for path in (scratch.folder / "state/qemu-odx/runs").iterdir() if not path.is_symlink())
    assert f"Logs and results are in {kept}" in done.stderr
    assert {path.name for path in kept.iterdir()} >= ARTEFACTS | {"dmesg.txt"}
    assert json.loads((kept / "summary.json").read_text())["exit"] == 37
    assert (scratch.folder / "state/qemu-odx/runs/latest").resolve() == kept
    (suite,) = json.loads((scratch.folder / "mine/report/report.json").read_text())["suites"]
    (case,) = suite["cases"]
    assert (case["name"], case["outcome"], case["message"]) == ("it.py", "failed", "exit code 37")
    assert "to stderr" in case["details"]


def test_script_that_is_late(scratch: Scratch) -> None:
    """It says something all the time and is ended all the same; `--keep none` keeps nothing."""
    script = scratch.folder / "mine/it.sh"
    script.write_text("while :; do echo still here >&2; sleep 0.2; done\n")
    done = scratch.run("run", "--json", "--keep", "none", "--time-out", "3", str(script))
    assert done.returncode == ExitCode.TIMED_OUT
    found = json.loads(done.stdout)
    assert found["finished"] is False
    assert "not done within 3 s" in found["error"]
    assert "--time-out" in found["cure"]
    assert not (scratch.folder / "state").exists()


def test_guest_that_crashes(scratch: Scratch) -> None:
    """The kernel panics under the script; the end of its serial log is quoted and the run is kept."""
    script = scratch.folder / "mine/it"
    script.write_text("#!/bin/sh\necho 7 > /proc/sys/kernel/printk\necho c > /proc/sysrq-trigger\n")
    done = scratch.run("run", str(script))
    assert done.returncode == ExitCode.CRASHED, done.stderr
    assert "the guest ended while the script ran" in done.stderr
    assert "Kernel panic" in done.stderr
    assert (scratch.folder / "state/qemu-odx/runs/latest/serial.log").exists()


def test_machine_without_qemu(scratch: Scratch, monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment lacks something: a code of its own, so that a harness can skip."""
    tools = scratch.folder / "mine"
    for name in ("setpriv", "sh"):
        (tools / name).symlink_to(f"/usr/bin/{name}")
    monkeypatch.setenv("PATH", str(tools))
    done = scratch.run("run", "--json", "odx_doctor.py")
    assert done.returncode == ExitCode.ENVIRONMENT
    assert "QEMU is not installed" in json.loads(done.stdout)["error"]


def test_image_of_the_users_own(scratch: Scratch, image: Image) -> None:
    """It boots from its own disk, is found by ssh alone, sees our disks, is shut down, and is not written to."""
    disk = own_image(image, scratch.folder / "mine")
    before = hashlib.sha256(disk.read_bytes()).hexdigest()
    words = ("--image", str(disk), "--ssh", "root@22", "--os", "linux", "--key", str(image.private_key))
    done = scratch.run("run", *words, "--json", "odx_doctor.py", "--serial", "odx-source")
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(done.stdout)
    assert found["guest"] == "own.img"
    assert [
        seen["token"]["ok"] for seen in found["result"]["disks"] if seen["node"].startswith("/dev/sd")
    ] == [True]
    assert hashlib.sha256(disk.read_bytes()).hexdigest() == before
