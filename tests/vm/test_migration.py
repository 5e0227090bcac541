"""A guest moves from one QEMU to another on the same server, under load, with its tokens.

The two QEMUs are behind exports of their own: of one group, and of the same disks.
"""

from __future__ import annotations

import json
import time
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from qemu_odx.lab.accelerator import choose_accelerator
from qemu_odx.lab.adapters.linux import lab_linux
from qemu_odx.lab.backend import Backend, BlkExport, DiskSpec, ScsiExport, serve_command
from qemu_odx.lab.guest import Guest
from qemu_odx.lab.live import LiveGuest
from qemu_odx.lab.machines.qemu import QemuMachine
from qemu_odx.lab.paths import data_folder
from qemu_odx.lab.qemu import GuestSpec
from qemu_odx.lab.run_folder import RunFolder

if TYPE_CHECKING:
    from qemu_odx.lab.image import Image

MIB = 1 << 20
SIZE = 128 * MIB
PATIENCE = 240.0
SCRIPTS, SOAK, TOLD = "/tmp/odx", "/tmp/soak", "/run/told"  # noqa: S108 - in the guest
ENDS = ("here", "there")


def command(folder: Path) -> list[str]:
    """A server with two disks, each behind two exports: one for each end."""
    disks = [DiskSpec(f"g-{kind}", folder / f"{kind}.img", SIZE, f"g-{kind}") for kind in ("scsi", "blk")]
    exports: list[ScsiExport | BlkExport] = []
    for end in ENDS:
        exports += [
            ScsiExport(folder / f"{end}-s.sock", ("g-scsi",)),
            BlkExport(folder / f"{end}-b.sock", "g-blk", mailbox=True),
        ]
    return serve_command(disks, exports)


def spec(folder: Path, image: Image, end: str, *extra: str) -> GuestSpec:
    """The same machine at each end."""
    return GuestSpec(
        image,
        choose_accelerator(),
        (folder / f"{end}-s.sock",),
        (folder / f"{end}-b.sock",),
        memory_mib=256,
        extra=extra,
    )


def told(guest: LiveGuest, name: str) -> dict[str, Any]:
    """What the guest has told in a file, waited for."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        done = guest.shell.run(f"cat {TOLD}/{name} 2> /dev/null", seconds=PATIENCE)
        if done.status == 0:
            found: dict[str, Any] = json.loads(done.stdout)
            return found
        time.sleep(0.2)
    raise AssertionError(f"the guest did not tell '{name}'")


def migrate(source: QemuMachine, socket: Path) -> dict[str, Any]:
    """To its end; QEMU's own account of it. A guest that is too fast for its host may stand still for longer."""
    source.execute("migrate-set-parameters", {"max-bandwidth": 1 << 30, "downtime-limit": 2000})
    source.execute("migrate", {"uri": f"unix:{socket}"})
    began = time.monotonic()
    while (passed := time.monotonic() - began) < PATIENCE:
        found: dict[str, Any] = source.execute("query-migrate")
        if found.get("status") in {"completed", "failed", "cancelled"}:
            assert found["status"] == "completed", found
            return found
        if passed > PATIENCE / 4:
            source.execute("migrate-set-parameters", {"downtime-limit": 60_000})
        time.sleep(0.1)
    raise AssertionError(f"the migration did not end: {found}")


@pytest.mark.timeout(900)
def test_a_guest_moves_with_its_tokens(image: Image) -> None:
    """Not one wrong byte, no error in the guest, every token good by every door over there."""
    with RunFolder() as run, ExitStack() as stack:
        folders = [run.path / end for end in ENDS]
        for folder in folders:
            folder.mkdir()
        backend = Backend(command(run.path), run.path / "serve.log")
        stack.callback(backend.stop)
        here = Guest(spec(run.path, image, "here"), folders[0], patience=PATIENCE)
        stack.callback(here.kill)
        incoming = run.path / "move.sock"
        arriving = spec(run.path, image, "there", "-incoming", f"unix:{incoming}")
        there = QemuMachine(arriving, folders[1])
        stack.callback(there.kill)
        there.start()
        begin(here)
        before = told(here, "before")
        here.shell.close()
        account = migrate(here.machine, incoming)
        here.kill()
        adapter = replace(lab_linux(image), boot_seconds=PATIENCE)
        guest = LiveGuest(there, adapter, booted=True)
        stack.callback(guest.kill)
        guest.shell.run(f"touch {TOLD}/go", seconds=PATIENCE)
        after = told(guest, "after")
        assert after["wrong"] == after["errors"] == before["errors"] == []
        assert after["uses"] == 4
        assert all(after[kind] > after["arrived"][kind] >= before[kind] for kind in ("read", "write"))
        complaints = "dmesg | grep -E '(sd |scsi|vd[a-z]).*(error|fail|abort)' || true"
        assert guest.shell.run(complaints, seconds=PATIENCE).stdout == ""
        assert account["downtime"] < 120_000
        guest.power_off()
        backend.check()
        assert "dropped" not in (run.path / "serve.log").read_text()
        assert backend.stop() == 0


def begin(guest: Guest) -> None:
    """Start the load."""
    guest.shell.upload(data_folder("guest_scripts") / "linux", SCRIPTS)
    guest.shell.upload(Path(__file__).parent / "soak", SOAK)
    guest.shell.run(f"mkdir {TOLD}", seconds=PATIENCE)
    guest.shell.start(f"cd {SOAK}; nohup python3 mover.py {SCRIPTS} g {TOLD} scsi blk > {TOLD}/log 2>&1 &")
