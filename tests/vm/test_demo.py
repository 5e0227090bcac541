"""The demonstration as a user runs it: the program, its output, and what it leaves behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from qemu_odx.lab.image import Image

DEMO = [sys.executable, "-m", "qemu_odx", "demo", "--json"]
KEYS = {
    "ok",
    "guest",
    "accelerator",
    "verified_bytes",
    "point_in_time",
    "sha256",
    "token_copy",
    "plain_copy",
    "phases",
}
COPIED = 64 << 20


@pytest.fixture
def scratch(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A temporary folder of the demo's own: whatever it leaves is seen there."""
    with tempfile.TemporaryDirectory(prefix="t") as folder:
        monkeypatch.setenv("TMPDIR", folder)
        monkeypatch.setenv("XDG_STATE_HOME", f"{folder}/state")
        yield Path(folder)


def processes_of(scratch: Path) -> list[int]:
    """The processes that name this folder on their command line: disk server and QEMU."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            words = (entry / "cmdline").read_bytes()
        except OSError:
            continue
        if os.fsencode(scratch) in words:
            found.append(int(entry.name))
    return found


def await_processes(scratch: Path, count: int, seconds: float = 200.0) -> bool:
    """Whether the number of the demo's processes becomes `count` in time."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if len(processes_of(scratch)) == count:
            return True
        time.sleep(0.05)
    return False


def test_demo_proves_the_copy_and_leaves_nothing(image: Image, scratch: Path, tmp_path: Path) -> None:
    """The issue's promise in one run: old data by both devices, few bytes on the ring, nothing left but a report."""
    command = [*DEMO, "--report", str(tmp_path / "report")]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    found = json.loads(done.stdout)
    assert set(found) == KEYS
    assert found["ok"] is True
    assert found["point_in_time"] is True
    assert found["verified_bytes"] == found["token_copy"]["bytes"] == found["plain_copy"]["bytes"] == COPIED
    hashes = found["sha256"]
    assert hashes["source_before"] == hashes["destination"] == hashes["destination_through_blk"]
    assert hashes["source_after"] != hashes["source_before"]
    assert 0 < found["token_copy"]["ring_bytes"] < 4096
    assert found["plain_copy"]["ring_bytes"] == 2 * COPIED
    assert processes_of(scratch) == []
    assert list(scratch.iterdir()) == []
    check_report(tmp_path / "report", found)


def check_report(folder: Path, found: dict[str, Any]) -> None:
    """It has the run's own numbers, every request of both copies, and the logs."""
    assert {path.name for path in folder.iterdir()} == {"index.html", "junit.xml", "report.json", "logs"}
    report = json.loads((folder / "report.json").read_text())
    assert report["ok"] is True
    assert [digest["sha256"] for digest in report["digests"]] == list(found["sha256"].values())
    by_token, plain = report["ways"]
    assert by_token["seconds"] == pytest.approx(found["token_copy"]["seconds"], abs=1e-5)
    for way in (by_token, plain):
        writes = [sample for sample in way["samples"] if sample["operation"].lower().startswith("write")]
        assert sum(sample["bytes"] for sample in writes) == COPIED
        assert sum(sample["seconds"] for sample in way["samples"]) <= way["seconds"] + 0.01
    phases = [span["name"] for span in report["spans"] if span["kind"] == "phase"]
    assert phases == ["image", "serve", "boot", "copy", "power_off"]
    check_timeline(report["spans"])
    assert "Traceback" not in (folder / "logs" / "serve.log").read_text()
    assert "LAB:ssh-ready" in next(log["text"] for log in report["logs"] if log["name"] == "serial.log")
    assert "LAB:ssh-ready" in (folder / "index.html").read_text()


def check_timeline(spans: list[dict[str, Any]]) -> None:
    """The token lived through the overwrite; its commands were within the copy, made before used."""
    copy = next(span for span in spans if span["name"] == "copy")
    (token,) = (span for span in spans if span["kind"] == "token")
    commands = {span["name"]: span for span in spans if span["kind"] == "command"}
    populate, write = commands["POPULATE TOKEN"], commands["WRITE USING TOKEN"]
    assert copy["start"] < populate["start"] < write["start"] < copy["start"] + copy["seconds"]
    assert token["start"] < write["start"] < token["start"] + token["seconds"]
    assert token["detail"].startswith("64 MiB of d0")
    assert {span["lane"] for span in spans if span["name"] == "WRITE(10)"} == {
        "export0 lun 0: writes",
        "export0 lun 1: writes",
    }


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_interrupted_demo_cleans_up(image: Image, scratch: Path, number: signal.Signals) -> None:
    """A signal ends the demo, its guest, its server, and removes its files."""
    with subprocess.Popen(DEMO, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as demo:
        assert await_processes(scratch, 2)
        demo.send_signal(number)
        demo.communicate(timeout=200)
    assert demo.returncode != 0
    assert processes_of(scratch) == []
    assert list(scratch.iterdir()) == []


def test_killed_demo_leaves_no_process(image: Image, scratch: Path) -> None:
    """Even SIGKILL, which lets nobody clean up, leaves neither guest nor server running."""
    with subprocess.Popen(DEMO, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as demo:
        assert await_processes(scratch, 2)
        demo.kill()
    assert await_processes(scratch, 0)
