"""Real QEMU without a guest, on a real `qemu-odx serve`."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

import pytest

from qemu_odx.lab.qemu_release import ensure_newer_qemu, newer_release
from qemu_odx.testing.qtest import QtestMachine, poll
from qemu_odx.testing.serve import ServeProcess

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

MIB = 1 << 20
DISK = "id=d0,path=a.img,size=64M,serial=SERIAL0"
EXPORTS = (
    *("--export", "type=vhost-user-blk,socket=b.sock,disk=d0"),
    *("--export", "type=vhost-user-scsi,socket=s.sock,lun0=d0"),
    "-vv",
)


QEMUS = ["installed", *(f"qemu-{version}" for _, version in filter(None, [newer_release()]))]


@pytest.fixture(autouse=True, params=QEMUS)
def qemu(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Each test meets the installed QEMU, and a newer one where the distribution has one to fetch."""
    if request.param != "installed":
        monkeypatch.setenv("PATH", f"{ensure_newer_qemu()}{os.pathsep}{os.environ['PATH']}")
    elif shutil.which("qemu-system-x86_64") is None:
        pytest.skip("qemu-system-x86_64 is not installed (package qemu-system-x86)")
    return str(request.param)


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., ServeProcess]]:
    """Starts the server, again and again if need be."""
    running: list[ServeProcess] = []

    def start(disk: str = DISK) -> ServeProcess:
        running.append(ServeProcess(["--disk", disk, *EXPORTS], cwd=tmp_path))
        return running[-1]

    yield start
    for process in running:
        process.close()


@pytest.fixture(scope="module")
def survivor(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServeProcess]:
    """A server for all tests that leave it as it was."""
    with ServeProcess(["--disk", DISK, *EXPORTS], cwd=tmp_path_factory.mktemp("server")) as process:
        yield process


@pytest.fixture
def shared(survivor: ServeProcess, tmp_path: Path) -> ServeProcess:
    """It, without front ends, with an empty disk, and as if it had said nothing yet; its sockets are here."""
    poll(lambda: not connected(survivor), "the end of the front ends before")
    os.truncate(survivor.cwd / "a.img", 0)
    os.truncate(survivor.cwd / "a.img", 64 * MIB)
    survivor.forget_errors()
    for name in ("b.sock", "s.sock"):
        (tmp_path / name).symlink_to(survivor.cwd / name)
    return survivor


def connected(server: ServeProcess) -> int:
    """How many front ends are there, by its log."""
    said = server.errors()
    return said.count("a front end connected") - said.count("the front end left")


@pytest.fixture
def boot(tmp_path: Path) -> Iterator[Callable[..., QtestMachine]]:
    """Starts QEMU with a device on one of the sockets, at slot 4."""
    running: list[QtestMachine] = []

    def start(device: str, socket: str, *more: str, chardev: str = "", **options: object) -> QtestMachine:
        arguments = [
            *("-chardev", f"socket,id=c,path={tmp_path / socket}{chardev}"),
            *("-device", f"{device},chardev=c,addr=04.0,disable-legacy=on"),
            *more,
        ]
        running.append(QtestMachine(arguments, **options))  # type: ignore[arg-type]  # handed through
        return running[-1]

    yield start
    for machine in running:
        machine.close()
