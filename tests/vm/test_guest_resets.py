"""A Linux guest whose SCSI disks are reset, taken from their driver and unplugged while token copies run on them."""

from __future__ import annotations

import json
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from qemu_odx.cli.monitor_client import MonitorClient
from qemu_odx.lab.accelerator import choose_accelerator
from qemu_odx.lab.backend import Backend, DiskSpec, ScsiExport, serve_command
from qemu_odx.lab.guest import Guest
from qemu_odx.lab.machine import Plug
from qemu_odx.lab.paths import data_folder
from qemu_odx.lab.qemu import GuestSpec
from qemu_odx.lab.run_folder import RunFolder
from qemu_odx.testing.monitor_faults import MonitorFaults

if TYPE_CHECKING:
    from qemu_odx.lab.image import Image

MIB = 1 << 20
PATIENCE = 240.0
SCRIPTS, OWN, TOLD = "/tmp/odx", "/tmp/resets", "/run/told"  # noqa: S108 - in the guest
RESET = "for d in /dev/sd?; do sg_reset -N -d $d; sg_reset -N -b $d; done"
"""Logical unit resets, and what Linux makes of a bus reset; some drivers know no bus."""
REBIND = (
    "cd /sys/bus/virtio/drivers/virtio_scsi; device=$(ls -d virtio*); "
    "echo $device > unbind; sleep 0.2; echo $device > bind"
)


class Copies:
    """The copier in the guest."""

    def __init__(self, guest: Guest) -> None:
        self.guest = guest
        guest.shell.upload(data_folder("guest_scripts") / "linux", SCRIPTS)
        guest.shell.upload(Path(__file__).parent / "resets", OWN)
        self.run(f"mkdir {TOLD}")
        guest.shell.start(f"nohup python3 {OWN}/copier.py {SCRIPTS} {TOLD} > {TOLD}/log 2>&1 &")
        self.told("begun")

    def run(self, command: str) -> str:
        """The output of a command in the guest."""
        return self.guest.shell.run(command, seconds=PATIENCE).stdout

    def told(self, name: str) -> dict[str, Any]:
        """What the copier tells, waited for."""
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            if words := self.run(f"cat {TOLD}/{name} 2> /dev/null"):
                found: dict[str, Any] = json.loads(words)
                return found
            time.sleep(0.1)
        raise AssertionError(f"the guest did not tell '{name}': {self.run(f'cat {TOLD}/log')}")

    def await_held(self, faults: MonitorFaults, rule: str) -> None:
        """Until a copy is held by a rule: it cannot end before whatever comes next."""
        deadline = time.monotonic() + PATIENCE
        while not faults.find(rule)["held"]:
            assert time.monotonic() < deadline, f"no copy is begun any more: {self.told('count')}"
            time.sleep(0.05)

    def await_failed(self, more_than: int) -> None:
        """Until more copies than that have failed."""
        deadline = time.monotonic() + PATIENCE
        while self.told("count")["failed"] <= more_than:
            assert time.monotonic() < deadline, (
                f"the copy that was in the way went well: {self.told('count')}"
            )
            time.sleep(0.1)

    def await_more(self) -> None:
        """Until two more copies have gone well from now on: the second began after all this."""
        before = self.told("count")["good"]
        deadline = time.monotonic() + PATIENCE
        while self.told("count")["good"] < before + 2:
            assert time.monotonic() < deadline, f"no copy succeeds any more: {self.told('count')}"
            time.sleep(0.1)


def reset_under_a_copy(copies: Copies, faults: MonitorFaults, when: str) -> None:
    """A reset ends a copy that cannot have ended before: it is held, before or after it has been done."""
    failed = copies.told("count")["failed"]
    with faults.rule(f"op=WRITE USING TOKEN,action=stall,count=1,when={when}") as rule:
        copies.await_held(faults, rule)
        copies.run(RESET)
        copies.await_failed(failed)
        assert not faults.find(rule)["held"]


@pytest.mark.timeout(900)
def test_copies_while_their_device_is_reset_rebound_and_unplugged(image: Image) -> None:
    """A copy that says it went well did; the token is good after each of these; nothing breaks in the server."""
    with RunFolder() as run, ExitStack() as stack:
        disks = [
            DiskSpec("d0", run.path / "d0.img", 64 * MIB, "odx-source"),
            DiskSpec("d1", run.path / "d1.img", 64 * MIB, "odx-destination"),
        ]
        export = ScsiExport(run.path / "s.sock", ("d0", "d1"))
        command = [*serve_command(disks, [export]), "--monitor", str(run.path / "m.sock")]
        backend = Backend(command, run.path / "serve.log")
        stack.callback(backend.stop)
        monitor = stack.enter_context(MonitorClient(str(run.path / "m.sock")))
        guest = Guest(
            GuestSpec(image, choose_accelerator(), memory_mib=256, hotplug_ports=1),
            run.path,
            patience=PATIENCE,
        )
        stack.callback(guest.kill)
        guest.machine.plug("disks", Plug("scsi", export.socket))
        copies = Copies(guest)
        copies.await_more()
        for when in ("before", "after"):
            reset_under_a_copy(copies, MonitorFaults(monitor.execute), when)
        copies.run(RESET)
        copies.await_more()
        for _ in range(2):
            copies.run(REBIND)
            copies.await_more()
        guest.machine.unplug("disks", PATIENCE)
        guest.machine.plug("disks", Plug("scsi", export.socket))
        copies.await_more()
        copies.run(f"touch {TOLD}/stop")
        ended = copies.told("ended")
        assert ended["wrong"] == 0
        backend.check()
        log = (run.path / "serve.log").read_text()
        assert "internal error" not in log
        assert "out of service" not in log
        guest.power_off()
        assert backend.stop() == 0
