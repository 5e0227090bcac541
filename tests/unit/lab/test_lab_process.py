"""Programs the lab starts, and the folder they work in."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import IO, TYPE_CHECKING

import pytest

from qemu_odx.lab import process as process_module
from qemu_odx.lab import run_folder as run_folder_module
from qemu_odx.lab.errors import LabError
from qemu_odx.lab.process import ManagedProcess
from qemu_odx.lab.run_folder import PREFIX, RunFolder

if TYPE_CHECKING:
    from collections.abc import Iterator

STARTS_A_SLEEPER = """
import sys, time
from pathlib import Path
from qemu_odx.lab.process import ManagedProcess
sleeper = ManagedProcess("sleeper", ["sleep", "600"], Path(sys.argv[1]))
print(sleeper.pid, flush=True)
time.sleep(600)
"""


@pytest.fixture
def base() -> Iterator[Path]:
    """A folder whose path is short enough for sockets, which that of `tmp_path` may not be."""
    with tempfile.TemporaryDirectory(prefix="t") as folder:
        yield Path(folder)


def alive(pid: int) -> bool:
    """Whether a process runs; one that only waits to be reaped does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        return False
    return state != "Z"


def await_end(pid: int, seconds: float = 60.0) -> bool:
    """Whether a process ends in time."""
    deadline = time.monotonic() + seconds
    while alive(pid) and time.monotonic() < deadline:
        time.sleep(0.02)
    return not alive(pid)


def test_stop_ends_the_process(tmp_path: Path) -> None:
    """SIGTERM is enough for a program that does not mind."""
    process = ManagedProcess("sleeper", ["sleep", "600"], tmp_path / "log")
    assert process.stop() == -signal.SIGTERM
    assert process.stop() == -signal.SIGTERM


def test_stop_kills_what_ignores_sigterm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program that ignores SIGTERM is gone too."""
    monkeypatch.setattr(process_module, "TERMINATE_SECONDS", 0.2)
    command = ["sh", "-c", "trap '' TERM; echo set >&2; while :; do sleep 0.1; done"]
    process = ManagedProcess("stubborn", command, tmp_path / "log")
    while not process.last_words():
        time.sleep(0.01)
    assert process.stop() == -signal.SIGKILL


def test_killed_lab_leaves_no_process(tmp_path: Path) -> None:
    """The kernel ends a started program when the lab is killed and can clean up nothing."""
    with subprocess.Popen(
        [sys.executable, "-c", STARTS_A_SLEEPER, str(tmp_path / "log")], stdout=subprocess.PIPE, text=True
    ) as lab:
        assert lab.stdout is not None
        sleeper = int(lab.stdout.readline())
        assert alive(sleeper)
        lab.kill()
    assert await_end(sleeper)


def test_missing_program_is_named(tmp_path: Path) -> None:
    """The last words of a program that could not start are in its log."""
    process = ManagedProcess("nothing", ["/nonexistent/program"], tmp_path / "log")
    assert process.wait(60.0) == 127
    assert "/nonexistent/program" in process.last_words()


def test_missing_setpriv_names_the_cure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the launcher nothing starts, and the error says what to do."""
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(LabError, match=r"cannot start sleeper.*\./odx setup"):
        ManagedProcess("sleeper", ["sleep", "600"], tmp_path / "log")


def test_folder_is_removed(base: Path) -> None:
    """Nothing of a run stays."""
    with RunFolder(base) as run:
        (run.path / "d0.img").write_bytes(b"data")
    assert list(base.iterdir()) == []


def test_abandoned_folder_is_removed_by_the_next_run(base: Path) -> None:
    """A folder without a living owner goes; one in use stays."""
    abandoned = base / f"{PREFIX}abandoned"
    abandoned.mkdir()
    (abandoned / "lock").touch()
    with RunFolder(base) as first, RunFolder(base) as second:
        assert {path.name for path in base.iterdir()} == {first.path.name, second.path.name}


def test_folder_leaves_room_for_socket_names(tmp_path: Path) -> None:
    """A socket's path may have 107 bytes: a long base is not used."""
    base = tmp_path / ("long" * 20)
    base.mkdir()
    with RunFolder(base) as run:
        assert len(os.fsencode(run.path / "a-socket-of-ours.sock")) < 107


def test_kept_logs_are_pruned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Logs are kept, disk images are not, and old runs make room."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setattr(run_folder_module, "KEPT_RUNS", 2)
    with RunFolder(tmp_path) as run:
        (run.path / "serial.log").write_text("hello")
        (run.path / "d0.img").touch()
        kept = []
        for number in range(3):
            kept.append(run.keep_logs())
            os.utime(kept[-1], (number, number))
    assert [path.name for path in kept[-1].iterdir()] == ["serial.log"]
    names = {path.name for path in kept[-1].parent.iterdir()}
    assert names == {"latest", kept[-2].name, kept[-1].name}
    assert (kept[-1].parent / "latest").resolve() == kept[-1]


def test_logs_just_kept_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Even if the others are dated later: the clock was set back, or it ticks too slowly to tell."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setattr(run_folder_module, "KEPT_RUNS", 2)
    with RunFolder(tmp_path) as run:
        (run.path / "serial.log").write_text("hello")
        for number in range(3):
            os.utime(run.keep_logs(), (2**32 + number, 2**32 + number))
        kept = run.keep_logs()
    assert [path.name for path in kept.iterdir()] == ["serial.log"]
    assert len(list(kept.parent.iterdir())) == 3


def test_folder_that_was_never_locked_is_removed_once_it_is_old(base: Path) -> None:
    """Its owner was killed between making and locking it; a young one may still get its lock."""
    old, young = base / f"{PREFIX}old", base / f"{PREFIX}young"
    for folder in (old, young):
        folder.mkdir()
    os.utime(old, (0, 0))
    with RunFolder(base):
        assert not old.exists()
        assert young.exists()


def test_folder_taken_for_abandoned_before_its_lock_is_made_anew(base: Path) -> None:
    """Another run may find the lock file before it is locked, and remove the folder."""
    flock, victims = run_folder_module.fcntl.flock, []

    def robbed(lock: IO[str], operation: int) -> None:
        flock(lock, operation)
        if not victims and operation == run_folder_module.fcntl.LOCK_EX:
            victims.append(Path(lock.name).parent)
            shutil.rmtree(victims[0])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run_folder_module.fcntl, "flock", robbed)
        run = RunFolder(base)
    with run:
        assert run.path.exists()
        assert run.path != victims[0]


def test_forgotten_process_ends_with_its_object(tmp_path: Path) -> None:
    """Whoever loses it, in an exception or otherwise, leaves nothing running."""
    process = ManagedProcess("sleeper", ["sleep", "600"], tmp_path / "log")
    pid = process.pid
    del process
    assert await_end(pid)


def test_ctrl_c_at_the_terminal_does_not_reach_it(tmp_path: Path) -> None:
    """The lab ends its programs in its own order."""
    process = ManagedProcess("sleeper", ["sleep", "600"], tmp_path / "log")
    assert os.getpgid(process.pid) == process.pid != os.getpgrp()
    process.stop()
