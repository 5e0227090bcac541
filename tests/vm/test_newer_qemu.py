"""A real guest on a newer QEMU than the installed one: token copy, and a SCSI disk whose server is killed."""

from __future__ import annotations

import hashlib
import os
import time
from typing import TYPE_CHECKING

import pytest

from qemu_odx.cli.monitor_client import MonitorClient
from qemu_odx.lab.backend import Backend, serve_command
from qemu_odx.lab.demo import SOURCE_SERIAL, copy_in_guest, demo_disks
from qemu_odx.lab.guest import Guest
from qemu_odx.lab.phases import Silent
from qemu_odx.lab.qemu import GuestSpec
from qemu_odx.lab.qemu_release import ensure_newer_qemu
from qemu_odx.lab.run_folder import RunFolder
from qemu_odx.testing.monitor_faults import MonitorFaults

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from qemu_odx.lab.image import Image

WRITTEN_MIB = 16
HELD = f"disk=d0,op=write,lba={(WRITTEN_MIB << 11) - 1},action=stall"
"""The last write: the whole cannot be over before the server is killed."""
PATIENCE = 240.0


@pytest.fixture
def newer_qemu(monkeypatch: pytest.MonkeyPatch) -> None:
    """The lab starts the newer QEMU."""
    folder = ensure_newer_qemu()
    if folder is None:
        pytest.skip("no newer QEMU than this distribution's is known")
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")


def kill_once_it_holds(server: Backend, monitor_socket: Path, work: Callable[[], object]) -> None:
    """Let the guest work until the server holds a request of it, and kill the server."""
    with MonitorClient(str(monitor_socket)) as monitor:
        faults = MonitorFaults(monitor.execute)
        rule = faults.add(HELD)
        work()
        deadline = time.monotonic() + PATIENCE
        while not faults.find(rule)["held"]:
            assert time.monotonic() < deadline, "the guest does not write"
            time.sleep(0.05)
        os.kill(server.pid, 9)


@pytest.mark.usefixtures("newer_qemu")
def test_token_copy_and_a_killed_server(image: Image) -> None:
    """QEMU 10.0 reconnects vhost-user-scsi, which 7.2 cannot: the guest sees a pause, and no error."""
    with RunFolder() as run:
        disks, scsi, blk = demo_disks(run.path)
        command = serve_command(disks, [scsi, blk])
        first = Backend([*command, "--monitor", str(run.path / "m.sock")], run.path / "serve.log")
        device = (
            *("-chardev", f"socket,id=scsi,path={scsi.socket},reconnect-ms=200"),
            *("-device", "vhost-user-scsi-pci,chardev=scsi"),
        )
        guest = Guest(GuestSpec(image, "tcg", blk_sockets=(blk.socket,), extra=device), run.path)
        try:
            found = copy_in_guest(guest, first, Silent())
            assert found["sha256"]["destination"] == found["sha256"]["source_before"]
            node = guest.disk(SOURCE_SERIAL)
            guest.shell.run(f"dd if=/dev/urandom of=/tmp/data bs=1M count={WRITTEN_MIB}", seconds=PATIENCE)
            write = (
                f"(dd if=/tmp/data of={node} bs=64k oflag=direct; echo $? > /tmp/status) > /dev/null 2>&1 &"
            )
            kill_once_it_holds(first, run.path / "m.sock", lambda: guest.shell.run(write, seconds=PATIENCE))
            assert guest.shell.run("cat /tmp/status", seconds=PATIENCE).stdout == "", "the write has ended"
            second = Backend(command, run.path / "serve-again.log")
            done = guest.shell.run(
                "while ! [ -s /tmp/status ]; do sleep 0.1; done; cat /tmp/status; sha256sum < /tmp/data; "
                "dmesg | grep -ciE 'i/o error|abort'",
                seconds=PATIENCE,
            )
            status, digest, complaints = done.stdout.split("\n")[:3]
            assert (status, complaints) == ("0", "0")
            guest.power_off()
            assert second.stop() == 0
            with (run.path / "d0.img").open("rb") as file:
                assert hashlib.sha256(file.read(WRITTEN_MIB << 20)).hexdigest() == digest.split()[0]
        finally:
            guest.kill()
            first.stop()
