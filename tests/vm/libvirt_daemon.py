"""libvirt daemons that a test starts for itself, beside any that the machine runs already.

The session daemon runs as a user without rights. The system daemon runs as root with file systems of its own where
libvirt keeps its state, so that no other daemon notices it. Both are ended by their process id.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from qemu_odx.lab.accelerator import KVM_DEVICE, choose_accelerator

if TYPE_CHECKING:
    from collections.abc import Iterator

UNPRIVILEGED = 65534  # nobody
DRIVER_USER = 64055  # what Debian gives libvirt-qemu
READY_SECONDS = 120.0
OWN_FOLDERS = ("/run/libvirt", "/var/lib/libvirt", "/var/cache/libvirt", "/var/log/libvirt", "/etc/libvirt")
IN_OWN_MOUNTS = r"""
mount --make-rprivate /
mkdir -p "$@"
for folder in "$@"; do mount -t tmpfs tmpfs "$folder"; done
cp "$BASE/libvirtd.conf" "$BASE/qemu.conf" /etc/libvirt/
[ -z "$KVM_OF_NO_USE" ] || mount --bind "$BASE/no-kvm" /dev/kvm
for file in passwd group; do mount --bind "$BASE/$file" "/etc/$file"; done
exec libvirtd --pid-file "$BASE/libvirtd.pid" --config /etc/libvirt/libvirtd.conf
"""


@dataclass(frozen=True)
class Daemon:
    """A running libvirtd.

    Attributes:
        uri: where it is found.
        folder: a folder that its QEMU can enter.
        user: as whom QEMU runs by default.
    """

    uri: str
    folder: Path
    user: int


def require_libvirt() -> None:
    """Skip where there is no libvirt."""
    pytest.importorskip("libvirt", reason="libvirt-python is not installed (pip install 'qemu-odx[libvirt]')")
    if shutil.which("libvirtd") is None:
        pytest.skip("libvirtd is not installed (packages libvirt-daemon, libvirt-daemon-driver-qemu)")
    if os.geteuid() != 0:
        pytest.skip("a daemon of its own for another user needs root")


@contextmanager
def session_daemon(folder: Path) -> Iterator[Daemon]:
    """`qemu:///session` of a user without rights, all in `folder`."""
    folder.mkdir(mode=0o755)
    for name in ("run", "home"):
        (folder / name).mkdir()
    for path in (folder, *folder.iterdir()):
        os.chown(path, UNPRIVILEGED, UNPRIVILEGED)
    environment = {**os.environ, "XDG_RUNTIME_DIR": str(folder / "run"), "HOME": str(folder / "home")}
    for name in ("XDG_CONFIG_HOME", "XDG_CACHE_HOME", "XDG_DATA_HOME", "XDG_STATE_HOME"):
        environment.pop(name, None)
    command = ["setpriv", f"--reuid={UNPRIVILEGED}", f"--regid={UNPRIVILEGED}", "--clear-groups"]
    command += ["--pdeathsig", "TERM", "--", "libvirtd"]
    socket = folder / "run" / "libvirt" / "libvirt-sock"
    with _running(command, environment, folder, socket):
        yield Daemon(f"qemu+unix:///session?socket={socket}", folder, UNPRIVILEGED)


@contextmanager
def system_daemon(folder: Path) -> Iterator[Daemon]:
    """`qemu:///system` in a mount namespace of its own; its QEMU runs as libvirt-qemu unless a domain says else."""
    folder.mkdir(mode=0o755)
    (folder / "sockets").mkdir()
    (folder / "libvirtd.conf").write_text(
        f'unix_sock_dir = "{folder}/sockets"\nauth_unix_rw = "none"\nauth_unix_ro = "none"\n'
    )
    (folder / "qemu.conf").write_text('stdio_handler = "file"\ncgroup_controllers = []\nnamespaces = []\n')
    (folder / "passwd").write_text(
        _without(Path("/etc/passwd"), "libvirt-qemu")
        + f"libvirt-qemu:x:{DRIVER_USER}:{DRIVER_USER}:libvirt:/var/lib/libvirt:/usr/sbin/nologin\n"
    )
    (folder / "group").write_text(
        _without(Path("/etc/group"), "libvirt-qemu", "kvm")
        + f"libvirt-qemu:x:{DRIVER_USER}:\nkvm:x:{DRIVER_USER + 1}:\n"
    )
    # Where QEMU can use /dev/kvm and libvirt's user cannot, libvirt asks QEMU for its abilities at every step again.
    (folder / "no-kvm").touch(mode=0o600)
    of_no_use = KVM_DEVICE.exists() and choose_accelerator() != "kvm"
    environment = {**os.environ, "BASE": str(folder), "KVM_OF_NO_USE": "yes" if of_no_use else ""}
    command = [
        "setpriv",
        "--pdeathsig",
        "TERM",
        "--",
        "unshare",
        "--mount",
        "sh",
        "-eu",
        "-c",
        IN_OWN_MOUNTS,
        "sh",
    ]
    socket = folder / "sockets" / "libvirt-sock"
    with _running([*command, *OWN_FOLDERS], environment, folder, socket):
        yield Daemon(f"qemu+unix:///system?socket={socket}", folder, DRIVER_USER)


def _without(file: Path, *names: str) -> str:
    lines = file.read_text().splitlines(keepends=True)
    return "".join(line for line in lines if line.split(":")[0] not in names)


@contextmanager
def _running(command: list[str], environment: dict[str, str], folder: Path, socket: Path) -> Iterator[None]:
    log = folder / "libvirtd.log"
    with log.open("wb") as errors:
        process = subprocess.Popen(
            command, env=environment, stdin=subprocess.DEVNULL, stdout=errors, stderr=errors, cwd=folder
        )
    try:
        deadline = time.monotonic() + READY_SECONDS
        while not socket.exists():
            assert process.poll() is None, f"libvirtd ended: {log.read_text()}"
            assert time.monotonic() < deadline, f"libvirtd does not listen: {log.read_text()}"
            time.sleep(0.05)
        yield
    finally:
        process.terminate()
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        _end_helpers(folder)


def _end_helpers(folder: Path) -> None:
    """A session daemon starts its log daemon when it wants one; that one has a pid file."""
    for pid_file in folder.glob("run/libvirt/virtlog*.pid"):
        with suppress(OSError, ValueError):
            os.kill(int(pid_file.read_text()), signal.SIGTERM)
