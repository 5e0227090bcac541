"""Fixtures that tests at several levels share."""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import shutil
import signal
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

from qemu_odx.disk import file
from qemu_odx.lab import process
from qemu_odx.lab.errors import LabError
from qemu_odx.server.journal import disks

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

# A loaded machine is no failure, and a test run writes nothing into the source tree. Each run tries the same
# examples: what fails has been broken since the last one. `--hypothesis-profile=explore` tries others each time.
PATIENT = settings(deadline=None, database=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("explore", PATIENT)
settings.register_profile("qemu_odx", PATIENT, derandomize=True)
settings.load_profile("qemu_odx")


# In the background, or under nohup, signals that tests send are ignored, also by all that is started from here.
# With any handler here they are as usual there; a hang-up still does not end the tests.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
    signal.signal(signal.SIGHUP, lambda _number, _frame: None)

pytest_plugins = ["pytester"]  # for tests/plugin; pytest wants to hear of it here
CLONE_NEWNS = 0x00020000


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    call: pytest.CallInfo[None],
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """What the lab knows of a failure, the guest's last words for one, stands below it."""
    report = yield
    if call.excinfo is not None and isinstance(error := call.excinfo.value, LabError) and error.details:
        report.sections.append(("details of the lab's error", error.details))
    return report


@pytest.fixture(scope="session", autouse=True)
def no_stalls() -> Iterator[None]:
    """Who has to wait for a processor has met no host that is behind with its writes, and is not to be killed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(file, "STALL", 60.0)
        patch.setattr(process, "TERMINATE_SECONDS", 60.0)
        patch.setattr(process, "KILL_SECONDS", 60.0)
        patch.setattr(disks, "GRACE", 600.0)  # between the last look at an image and the kill
        yield


@pytest.fixture(scope="session")
def own_mounts() -> None:
    """The test run gets a mount namespace of its own: what it mounts is gone with it, even when it is killed."""
    if os.geteuid() != 0:
        pytest.skip("mounting a file system needs root")
    if ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWNS):
        pytest.skip(f"no mount namespace here: {os.strerror(ctypes.get_errno())}")
    subprocess.run(["mount", "--make-rprivate", "/"], check=True)


@contextlib.contextmanager
def mounted(folder: Path, *options: str | Path) -> Iterator[Path]:
    """`mount OPTIONS FOLDER`; skipped where that is not possible."""
    folder.mkdir()
    done = subprocess.run(["mount", *options, folder], check=False, capture_output=True, text=True)
    if done.returncode != 0:
        pytest.skip(f"cannot mount here: {done.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


@pytest.fixture(scope="session")
def xfs(own_mounts: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder on a small XFS with reflink, for the session."""
    if shutil.which("mkfs.xfs") is None:
        pytest.skip("mkfs.xfs is not installed (package xfsprogs)")
    base = tmp_path_factory.mktemp("xfs")
    image = base / "xfs.img"
    with image.open("wb") as file:
        file.truncate(512 << 20)
    subprocess.run(["mkfs.xfs", "-q", "-m", "reflink=1", image], check=True)
    with mounted(base / "mounted", "-o", "loop", image) as folder:
        yield folder


@pytest.fixture
def tiny(own_mounts: None, tmp_path: Path) -> Iterator[Path]:
    """A folder on a file system of 2 MiB, soon full."""
    with mounted(tmp_path / "tiny", "-t", "tmpfs", "-o", "size=2m", "none") as folder:
        yield folder


HUGE_PAGES = 8


@pytest.fixture
def huge_pages() -> Iterator[None]:
    """A few huge pages, if this machine gives us any; one test at a time, whatever worker runs it."""
    setting = Path("/proc/sys/vm/nr_hugepages")
    with setting.open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        before = int(setting.read_text())
        try:
            setting.write_text(f"{before + HUGE_PAGES}")
        except OSError:
            pytest.skip("the number of huge pages cannot be changed here")
        try:
            if int(setting.read_text()) < before + HUGE_PAGES:
                pytest.skip("there is no room for huge pages")
            yield
        finally:
            setting.write_text(f"{before}")
