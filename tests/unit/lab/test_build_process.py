"""A builder that is interrupted takes its children, its mounts and its files along."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from qemu_odx.lab.build_process import SCRATCH, build_process, can_unshare

BUILDS = """
tree=$(mktemp -d); echo "$tree" >&2
sh -c 'trap "" TERM; touch $0/busy; sleep 600' "$tree" &
wait
"""
MOUNTS = (
    'mkdir "$TMPDIR/m" && mount -t tmpfs none "$TMPDIR/m" && touch "$TMPDIR/m/file" && echo "$TMPDIR/m" >&2'
)
INTERRUPTED = """
import sys
from qemu_odx.lab.build_process import build_process
with build_process(["sh", "-c", sys.argv[1]]) as process:
    print(process.stderr.readline(), flush=True)
    process.wait()
"""


@pytest.fixture
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where builders put their files."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    return tmp_path


def processes_with(word: str) -> list[int]:
    """Processes that have a word in a command line."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if word.encode() in (entry / "cmdline").read_bytes():
                found.append(int(entry.name))
        except OSError:
            continue
    return found


def await_none(word: str) -> None:
    """The test's time-out ends the wait."""
    while processes_with(word):
        time.sleep(0.02)


def test_interrupted_builder_leaves_nothing(scratch: Path) -> None:
    """A grandchild that ignores SIGTERM is ended, its tree removed."""
    with pytest.raises(KeyboardInterrupt), build_process(["sh", "-c", BUILDS]) as process:  # noqa: PT012
        assert process.stderr is not None
        tree = Path(process.stderr.readline().strip())
        while not (tree / "busy").exists():
            time.sleep(0.01)
        raise KeyboardInterrupt
    await_none(str(tree))
    if os.geteuid() == 0:  # else the builder's own clean-up has to do
        assert list(scratch.iterdir()) == []


def test_killed_lab_ends_the_builder(scratch: Path) -> None:
    """The kernel tells it."""
    command = [sys.executable, "-c", INTERRUPTED, "echo started >&2; exec sleep 654"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as lab:
        assert lab.stdout is not None
        assert lab.stdout.readline() == "started\n"
        lab.kill()
    await_none("sleep\x00654")


def test_mounts_are_the_builders_own(scratch: Path) -> None:
    """Nothing that is mounted in the tree can be reached, or removed, from outside."""
    if os.geteuid() != 0 or not can_unshare():
        pytest.skip("mounts of our own need root outside of a container")
    with build_process(["sh", "-c", f"{MOUNTS}; read line"]) as process:
        assert process.stderr is not None
        mounted = Path(process.stderr.readline().strip())
        assert mounted.parent.name.startswith(SCRATCH)
        assert list(mounted.iterdir()) == []
        process.communicate("\n")
    assert process.returncode == 0
    assert list(scratch.iterdir()) == []
