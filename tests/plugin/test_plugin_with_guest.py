"""The plug-in with real guests: shared, fresh, broken; and two workers of xdist at once."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    Inner = Callable[..., pytest.RunResult]

pytestmark = [pytest.mark.vm, pytest.mark.timeout(300)]
README = Path(__file__).parents[2] / "README.md"
LIVES = """
import pytest

PIDS = []

def mark(guest):
    PIDS.append(guest.live.machine.pid)
    return guest.sh("ls /tmp; touch /tmp/been-here")

def test_first(odx_guest):
    assert "been-here" not in mark(odx_guest)

@pytest.mark.odx_disk("both", size="1M", blk=True)
def test_the_same_guest_with_other_disks(odx_guest, odx_disk):
    assert "been-here" in mark(odx_guest)
    node = odx_guest.node(odx_disk, blk=True)
    assert node.startswith("/dev/vd")
    odx_guest.sh(f"echo by virtio-blk > {node}; sync")
    assert odx_guest.sh(f"head -c 13 {odx_guest.node(odx_disk)}") == "by virtio-blk"
    assert odx_disk.read(0, 512)[:13] == b"by virtio-blk"

@pytest.mark.odx_guest(fresh=True)
def test_a_fresh_one(odx_guest):
    assert odx_guest.resumed, odx_guest.reason
    assert "been-here" not in mark(odx_guest)

def test_the_shared_one_again_which_is_lost(odx_guest):
    assert "been-here" in mark(odx_guest)
    odx_guest.live.machine.kill()

def test_another_one(odx_guest):
    assert "been-here" not in mark(odx_guest)
    one, two, fresh, three, four = PIDS
    assert one == two == three
    assert len({one, fresh, four}) == 3

def test_that_leaves_a_request_held(odx_guest, odx_disk, odx_fault):
    node = odx_guest.node(odx_disk)
    name = odx_fault("op=WRITE(10),action=stall")
    odx_guest.sh(f"(dd if=/dev/zero of={node} bs=4k count=1 oflag=direct > /dev/null 2>&1 &) ; true")
    while not any(rule["held"] for rule in odx_fault.list()):
        pass

def test_the_guest_is_still_good(odx_guest, odx_disk):
    PIDS.append(odx_guest.live.machine.pid)
    assert PIDS[-1] == PIDS[-2]
    assert odx_guest.sha256(odx_disk) == odx_disk.sha256()

def test_that_fails(odx_guest):
    odx_guest.sh("echo so it is >&2; exit 3")

@pytest.mark.odx_disk("source", size="160M")
@pytest.mark.odx_disk("destination", size="160M", blk=True)
def test_our_script(odx_guest, odx_disks):
    source, destination = odx_disks
    found = odx_guest.script(
        "odx_copy.py", "--source", source.serial, "--destination", destination.serial, "--mebibytes", "8"
    )
    assert found["sha256"]["destination"] == found["sha256"]["source_before"]
    assert destination.sha256(48 << 20, 8 << 20) == found["sha256"]["destination"]
"""


def readme_example() -> str:
    """The first Python block of the README."""
    found = re.search(r"^```python\n(.*?)^```$", README.read_text(), re.MULTILINE | re.DOTALL)
    assert found is not None
    return found[1]


def test_the_file_in_the_readme_on_two_workers(inner: Inner, image: None, pytester: pytest.Pytester) -> None:
    """It works as printed, and twice at once: each worker has a guest of its own."""
    example = readme_example()
    assert len([line for line in example.splitlines() if line.strip()]) <= 15
    pytester.makepyfile(test_copy_of_it=example)
    result = inner(example, "-n", "2", "--dist", "loadfile", "-v")
    result.assert_outcomes(passed=2)
    assert {line[:5] for line in result.outlines if "PASSED" in line} == {"[gw0]", "[gw1]"}


STAYING = """
def test_that_takes_long(odx_guest, odx_disk):
    node = odx_guest.node(odx_disk)
    open("ready", "w").write(f"{odx_guest.live.machine.pid} {odx_guest._server.pid}")
    odx_guest.sh("sleep 1000", seconds=1000)
"""


def test_ctrl_c_leaves_nothing(
    pytester: pytest.Pytester, image: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither QEMU nor the disk server nor their folders."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    pytester.makepyfile(STAYING)
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--basetemp=base"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as inner:
        deadline = time.monotonic() + 200
        while not (ready := Path("ready")).exists() or len(ready.read_text().split()) < 2:
            assert inner.poll() is None, inner.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.05)
        pids = ready.read_text().split()
        assert all(Path(f"/proc/{pid}").exists() for pid in pids)
        inner.send_signal(signal.SIGINT)
        said, _ = inner.communicate(timeout=120)
    assert inner.returncode == pytest.ExitCode.INTERRUPTED, said
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)
    assert [*tmp_path.glob("qemu-odx-*")] == []


def test_lives_of_guests(inner: Inner, image: None, pytester: pytest.Pytester) -> None:
    """Shared by a session; fresh if asked; a lost one is replaced; what is kept of a failure helps."""
    result = inner(LIVES, "--odx-artifacts=kept")
    result.assert_outcomes(passed=8, failed=1)
    result.stdout.fnmatch_lines(["*echo so it is >&2; exit 3: exit status 3*", "*so it is*"])
    (kept,) = pytester.path.glob("kept/*")
    assert {"serve.log", "qemu.log", "serial.log", "dmesg.txt"} <= {path.name for path in kept.iterdir()}
    assert "odx" in (kept / "disks.txt").read_text().lower()
