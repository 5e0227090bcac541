"""A real guest whose server is killed again and again: fio finds every byte, token copies go on, nobody hears of it.

Every other kill comes while a copy is held between its token and its end, the others at any moment.

`ODX_KILLS` says how often (docs/restart.md); 3 if it does not.
"""

from __future__ import annotations

import json
import os
import random
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from qemu_odx.cli.monitor_client import MonitorClient
from qemu_odx.lab.accelerator import choose_accelerator
from qemu_odx.lab.backend import Backend, BlkExport, DiskSpec, ScsiExport, serve_command
from qemu_odx.lab.guest import Guest
from qemu_odx.lab.image import ensure_image
from qemu_odx.lab.paths import data_folder
from qemu_odx.lab.qemu import GuestSpec
from qemu_odx.lab.qemu_release import ensure_newer_qemu
from qemu_odx.lab.run_folder import RunFolder
from qemu_odx.testing.monitor_faults import MonitorFaults

if TYPE_CHECKING:
    from pathlib import Path

KILLS = int(os.environ.get("ODX_KILLS", "3"))
MIB = 1 << 20
COPIED = 2
WRITES = 100
"""Of fio from one kill to the next, and from the last one to the end."""
PATIENCE = 240.0
SCRIPTS = "/tmp/odx"  # noqa: S108 - in the guest
FIO_STATUS, COPIES_STATUS = "/run/fio.status", "/run/copies.status"
FIO = (
    f"fio --name=mix --size={48 * MIB} --rw=randrw --bssplit=4k/70:16k/20:64k/10 --iodepth=8 --ioengine=libaio"
    " --direct=1 --verify=crc32c --verify_backlog=64 --verify_fatal=1 --time_based --runtime=100000"
    " --trigger-file=/tmp/stop-fio --output-format=json --output=/tmp/fio.json"
)
FIND = (
    "for i in $(seq 1200); do found=$(grep -l '^odx-fio$' /sys/block/vd*/serial | cut -d/ -f4); "
    '[ -z "$found" ] || break; sleep 0.1; done; echo "$found"'
)
COMPLAINTS = "dmesg | grep -iE 'i/o error|abort|reset'"
"""Linux tells of the power-on attention of each SCSI disk when it finds it; of a restart there is to be no word."""
FOUND = "for i in $(seq 1200); do [ $(ls /sys/block | grep -c '^sd') = {number} ] && break; sleep 0.1; done"
COPIES = (
    "while ! [ -e /tmp/stop ]; do python3 {scripts}/odx_copy.py {arguments} 2>>/tmp/copies.err >>/tmp/copies"
    " || echo failed >>/tmp/copies; done"
)


@dataclass(frozen=True)
class Work:
    """What the guest does while its server is killed: fio on one disk, copies by token between the others."""

    guest: Guest
    node: str

    def run(self, command: str) -> str:
        """The output of a command in the guest."""
        return self.guest.shell.run(command, seconds=PATIENCE).stdout

    def begin(self, arguments: str) -> None:
        """Start both; their exit statuses will be in files."""
        copies = COPIES.format(scripts=SCRIPTS, arguments=arguments)
        for command, done in ((f"{FIO} --filename=/dev/{self.node}", FIO_STATUS), (copies, COPIES_STATUS)):
            self.run(f"(({command}); echo $? > {done}) > /dev/null 2>&1 &")

    def done(self) -> tuple[int, int]:
        """Writes that fio's disk has completed, and copies that have ended."""
        told = self.run(f"cat /sys/block/{self.node}/stat; cat /tmp/copies 2> /dev/null | wc -l")
        stat, copies = told.splitlines()
        return int(stat.split()[4]), int(copies)  # Documentation/block/stat.rst, "write I/Os"

    def await_more(self, writes: int, copies: int) -> None:
        """Until both have done so much more from now on."""
        before, deadline = self.done(), time.monotonic() + PATIENCE
        now = before
        while now[0] < before[0] + writes or now[1] < before[1] + copies:
            assert time.monotonic() < deadline, f"the guest's work stands still: {before}, {now}"
            time.sleep(0.05)
            now = self.done()

    def end(self, path: str) -> str:
        """What is in a file, once there is one."""
        return self.run(f"while ! [ -s {path} ]; do sleep 0.1; done; cat {path}").strip()


def started(command: list[str], run: Path, number: int) -> Backend:
    """The server, so many kills later."""
    return Backend([*command, "--monitor", str(run / f"monitor-{number}.sock")], run / f"serve-{number}.log")


def await_copy_held(monitor_socket: Path) -> None:
    """Until a copy is between its token and its end, and stays there: the next server has to know the token."""
    with MonitorClient(str(monitor_socket)) as monitor:
        faults = MonitorFaults(monitor.execute)
        rule = faults.add("op=WRITE USING TOKEN,action=stall")
        deadline = time.monotonic() + PATIENCE
        while not faults.find(rule)["held"]:
            assert time.monotonic() < deadline, "no copy is begun any more"
            time.sleep(0.05)


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
    backends = [started(command, run, 0)]
    guest = Guest(GuestSpec(ensure_image("linux-fio"), choose_accelerator(), extra=qemu), run)
    try:
        guest.shell.upload(data_folder("guest_scripts") / "linux", SCRIPTS)
        work = Work(guest, guest.shell.run(FIND, seconds=PATIENCE).stdout.strip())
        work.begin(arguments)
        work.run(FOUND.format(number=len(scsi)))
        before = work.run(COMPLAINTS)
        chance = random.Random(5)
        for number in range(KILLS):
            work.await_more(WRITES, copies=0 if number else 1)
            if number % 2:
                time.sleep(chance.uniform(0.0, 1.0))
            else:
                await_copy_held(run / f"monitor-{number}.sock")
            os.kill(backends[-1].pid, 9)
            backends.append(started(command, run, number + 1))
        work.await_more(WRITES, copies=2)  # the second began after the last kill
        work.run("touch /tmp/stop /tmp/stop-fio")
        assert (work.end(FIO_STATUS), work.end(COPIES_STATUS)) == ("0", "0")
        found = work.run("cat /tmp/fio.json")
        (job,) = json.loads(found[found.index("{") :])["jobs"]
        assert job["error"] == 0
        assert job["write"]["total_ios"] >= WRITES
        copies = work.run("cat /tmp/copies").split("\n")[:-1]
        assert "failed" not in copies, work.run("cat /tmp/copies.err")
        hashes = [json.loads(line)["sha256"] for line in copies]
        assert all(item["source_before"] == item["destination"] != item["source_after"] for item in hashes)
        assert work.run(COMPLAINTS) == before
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
