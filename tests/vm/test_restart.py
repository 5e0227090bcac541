"""A real guest whose server is killed again and again: fio finds every byte, token copies go on, nobody hears of it.

`ODX_KILLS` says how often (docs/restart.md); 3 if it does not.
"""

from __future__ import annotations

import json
import os
import random
import time
from typing import TYPE_CHECKING

import pytest

from qemu_odx.lab.accelerator import choose_accelerator
from qemu_odx.lab.backend import Backend, BlkExport, DiskSpec, ScsiExport, serve_command
from qemu_odx.lab.guest import Guest
from qemu_odx.lab.image import ensure_image
from qemu_odx.lab.paths import data_folder
from qemu_odx.lab.qemu import GuestSpec
from qemu_odx.lab.qemu_release import ensure_newer_qemu
from qemu_odx.lab.run_folder import RunFolder

if TYPE_CHECKING:
    from pathlib import Path

KILLS = int(os.environ.get("ODX_KILLS", "3"))
MIB = 1 << 20
COPIED = 8
SCRIPTS = "/tmp/odx"  # noqa: S108 - in the guest
FIO_STATUS, COPIES_STATUS = "/run/fio.status", "/run/copies.status"
FIO = (
    f"fio --name=mix --size={48 * MIB} --rw=randrw --bssplit=4k/70:16k/20:64k/10 --iodepth=8 --ioengine=libaio"
    " --direct=1 --verify=crc32c --verify_backlog=64 --verify_fatal=1 --time_based --runtime=100000"
    " --trigger-file=/tmp/stop-fio --output-format=json --output=/tmp/fio.json"
)
FIND = "grep -l '^{serial}$' /sys/block/vd*/serial | cut -d/ -f4"
COMPLAINTS = "dmesg | grep -iE 'i/o error|abort|reset'"
"""Linux tells of the power-on attention of each SCSI disk when it finds it; of a restart there is to be no word."""
FOUND = "for i in $(seq 300); do [ $(ls /sys/block | grep -c '^sd') = {number} ] && break; sleep 0.1; done"
COPIES = (
    "while ! [ -e /tmp/stop ]; do python3 {scripts}/odx_copy.py {arguments} 2>>/tmp/copies.err >>/tmp/copies"
    " || echo failed >>/tmp/copies; done"
)


def in_background(guest: Guest, command: str, done: str) -> None:
    """Start a command whose exit status will be in a file."""
    guest.shell.run(f"(({command}); echo $? > {done}) > /dev/null 2>&1 &", seconds=60)


def wait_for(guest: Guest, path: str) -> str:
    """What is in a file, once there is one."""
    return guest.shell.run(
        f"while ! [ -s {path} ]; do sleep 0.1; done; cat {path}", seconds=120
    ).stdout.strip()


def play(
    run: Path, scsi: tuple[str, ...], blk: tuple[str, ...], arguments: str, qemu: tuple[str, ...]
) -> None:
    """Boot a guest on three disks, let it work, kill its server, look at what it found."""
    disks = [DiskSpec(name, run / f"{name}.img", 96 * MIB, f"odx-{name}") for name in ("fio", "one", "two")]
    exports: list[ScsiExport | BlkExport] = [
        BlkExport(run / f"{name}.sock", name, mailbox=name != "fio" and not scsi) for name in blk
    ]
    if scsi:
        exports.append(ScsiExport(run / "scsi.sock", scsi))
    command = [*serve_command(disks, exports), "--state", str(run / "state")]
    backends = [Backend(command, run / "serve-0.log")]
    guest = Guest(GuestSpec(ensure_image("linux-fio"), choose_accelerator(), extra=qemu), run)
    try:
        guest.shell.upload(data_folder("guest_scripts") / "linux", SCRIPTS)
        node = guest.shell.run(FIND.format(serial="odx-fio"), seconds=60).stdout.strip()
        in_background(guest, f"{FIO} --filename=/dev/{node}", FIO_STATUS)
        in_background(guest, COPIES.format(scripts=SCRIPTS, arguments=arguments), COPIES_STATUS)
        guest.shell.run(FOUND.format(number=len(scsi)), seconds=60)
        before = guest.shell.run(COMPLAINTS, seconds=60).stdout
        chance = random.Random(5)
        time.sleep(3)
        for number in range(KILLS):
            time.sleep(chance.uniform(1.0, 3.0))
            os.kill(backends[-1].pid, 9)
            backends.append(Backend(command, run / f"serve-{number + 1}.log"))
        time.sleep(4)
        guest.shell.run("touch /tmp/stop /tmp/stop-fio", seconds=60)
        assert (wait_for(guest, FIO_STATUS), wait_for(guest, COPIES_STATUS)) == ("0", "0")
        found = guest.shell.run("cat /tmp/fio.json", seconds=60).stdout
        (job,) = json.loads(found[found.index("{") :])["jobs"]
        assert job["error"] == 0
        assert job["write"]["total_ios"] > 100 * KILLS
        copies = guest.shell.run("cat /tmp/copies", seconds=60).stdout.split("\n")[:-1]
        assert "failed" not in copies, guest.shell.run("cat /tmp/copies.err", seconds=60).stdout
        hashes = [json.loads(line)["sha256"] for line in copies]
        assert hashes
        assert all(item["source_before"] == item["destination"] != item["source_after"] for item in hashes)
        assert guest.shell.run(COMPLAINTS, seconds=60).stdout == before
        guest.power_off()
        assert backends[-1].stop() == 0
    finally:
        guest.kill()
        for backend in backends:
            backend.stop()


def device(kind: str, run: Path, name: str, reconnect: str) -> tuple[str, ...]:
    """QEMU's arguments for a device that comes back."""
    chardev = f"socket,id={name},path={run / name}.sock,{reconnect}"
    return ("-chardev", chardev, "-device", f"vhost-user-{kind}-pci,chardev={name}")


def test_blk_and_mailbox() -> None:
    """Any QEMU: token commands through the mailbox of a virtio-blk disk."""
    arguments = f"--mailbox --source odx-one --destination odx-two --mebibytes {COPIED}"
    with RunFolder() as run:
        names = ("fio", "one", "two")
        qemu = [word for name in names for word in device("blk", run.path, name, "reconnect=1")]
        play(run.path, (), names, arguments, tuple(qemu))


def test_scsi(monkeypatch: pytest.MonkeyPatch) -> None:
    """QEMU 10.0 reconnects virtio-scsi too: token commands by SG_IO."""
    folder = ensure_newer_qemu()
    if folder is None:
        pytest.skip("no newer QEMU than this distribution's is known")
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    arguments = f"--source odx-one --destination odx-two --mebibytes {COPIED}"
    with RunFolder() as run:
        again = "reconnect-ms=200"
        qemu = device("scsi", run.path, "scsi", again)
        qemu += device("blk", run.path, "fio", again) + device("blk", run.path, "two", again)
        play(run.path, ("one", "two"), ("fio", "two"), arguments, qemu)
