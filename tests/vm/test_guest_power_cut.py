"""The host crashes under a Linux guest with ext4, often: the file system is sound, and confirmed files are there."""

from __future__ import annotations

import os
import random
import subprocess
import threading
import time
from contextlib import ExitStack, contextmanager
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from qemu_odx.cli.monitor_client import MonitorClient, MonitorFailure, NoServerError
from qemu_odx.lab.accelerator import choose_accelerator
from qemu_odx.lab.backend import Backend, BlkExport, DiskSpec, ScsiExport, serve_command
from qemu_odx.lab.guest import Guest
from qemu_odx.lab.image import ensure_image
from qemu_odx.lab.qemu import GuestSpec
from qemu_odx.lab.run_folder import RunFolder
from qemu_odx.server.power import EXIT_CODE

if TYPE_CHECKING:
    from collections.abc import Iterator

CUTS = int(os.environ.get("ODX_POWER_CUTS", "8"))
"""Cut points of each disk; more if the guest was too slow to have anything at stake at these."""
MIB = 1 << 20
CHECKED = 100
"""Confirmed files that are looked at."""
KEPT = 300
"""As the writer in the guest: older files are removed."""
DISKS = ("scsi", "blk")


class Rig:
    """A guest that writes files on two disks of ours, whose power can be cut."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.folder = folder
        disks = [self.disk(name) for name in DISKS]
        exports = [ScsiExport(folder / "s.sock", ("scsi",)), BlkExport(folder / "b.sock", "blk")]
        command = [*serve_command(disks, exports), "--monitor", str(folder / "m.sock")]
        self.backend = Backend(command, folder / "serve.log")
        stack.callback(self.backend.stop)
        image = ensure_image("linux-ext4")
        spec = GuestSpec(image, choose_accelerator(), (folder / "s.sock",), (folder / "b.sock",))
        self.guest = Guest(spec, folder)
        stack.callback(self.guest.kill)
        self.confirmed = [-1] * len(DISKS)
        self._begin()

    def disk(self, name: str) -> DiskSpec:
        """A disk with an empty ext4."""
        path = self.folder / f"{name}.img"
        with path.open("wb") as file:
            file.truncate(64 * MIB)
        subprocess.run(["mkfs.ext4", "-q", "-F", "-b", "4096", path], check=True)
        return DiskSpec(name, path, 64 * MIB, name, {"layers": "power-cut", "power-cut-seed": "11"})

    def _begin(self) -> None:
        shell = self.guest.shell
        shell.upload(Path(__file__).parent / "power_cut", "/tmp/writer")  # noqa: S108 - in the guest
        mount = (
            "for i in $(seq 1200); do [ -b /dev/sda ] && grep -q ext4 /proc/filesystems"
            " && grep -qs '^blk$' /sys/block/vd*/serial && break; sleep 0.1; done;"
            " mkdir /run/scsi /run/blk; mount -t ext4 /dev/sda /run/scsi;"
            " for d in /dev/vd*; do [ $(cat /sys/block/${d##*/}/serial) = blk ] && mount -t ext4 $d /run/blk; done;"
            " grep -c ext4 /proc/mounts"
        )
        done = shell.run(mount, seconds=240)
        assert done.stdout.split() == ["2"], done.stderr
        channel = shell.session()
        channel.exec_command("python3 /tmp/writer/writer.py /run/scsi /run/blk")
        threading.Thread(target=self._listen, args=(channel.makefile("r"),), daemon=True).start()

    def _listen(self, lines: Iterator[str]) -> None:
        for line in lines:
            place, number = map(int, line.split())
            self.confirmed[place] = number

    def wait(self, place: int, number: int) -> None:
        """Until a file is confirmed."""
        deadline = time.monotonic() + 120
        while self.confirmed[place] < number:
            assert time.monotonic() < deadline, f"no progress beyond {self.confirmed}"
            self.backend.check()
            time.sleep(0.02)


def content(number: int) -> bytes:
    """As the writer in the guest."""
    chance = random.Random(number)
    return chance.randbytes(chance.choice((10, 3000, 5000, 40_000)))


@contextmanager
def mounted(image: Path) -> Iterator[Path]:
    """The kernel takes it: mends what a crash may leave, by its journal."""
    folder = image.with_suffix(".mounted")
    folder.mkdir()
    subprocess.run(["mount", "-t", "ext4", "-o", "loop", image, folder], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)
        folder.rmdir()


def check(image: Path, confirmed: int, later: int) -> None:
    """The kernel takes it, what was confirmed is in it, and a full check finds nothing to mend.

    Args:
        image: the disk as it was between two confirmations.
        confirmed: the file that had been confirmed before.
        later: the file that had been confirmed afterwards; what is so old by then that it was removed is not missed.
    """
    with mounted(image) as folder:
        for number in range(max(0, confirmed - CHECKED, later + 2 - KEPT), confirmed + 1):
            assert (folder / f"{number}").read_bytes() == content(number), f"{image.name}: file {number}"
    done = subprocess.run(["e2fsck", "-fn", image], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_ext4_survives_every_cut(own_mounts: None) -> None:
    """Looks at what a crash would leave while the guest writes; then a real one."""
    chance, lost = random.Random(5), 0
    with RunFolder() as run, ExitStack() as stack:
        rig = Rig(run.path, stack)
        with MonitorClient(str(run.path / "m.sock")) as monitor:
            for cut in count():
                if cut >= CUTS and lost:
                    break
                assert cut < 20 * CUTS, "nothing was ever at stake"
                for place, name in enumerate(DISKS):
                    rig.wait(place, rig.confirmed[place] + chance.randint(1, 6))
                    confirmed, image = rig.confirmed[place], run.path / f"{name}-{cut}.cut"
                    arguments = {"disk": name, "image": str(image), "seed": cut}
                    lost += monitor.execute("odx-power-cut", arguments)["lost"]
                    check(image, confirmed, rig.confirmed[place])
                    image.unlink()
            confirmed_at_last = list(rig.confirmed)
            with pytest.raises((MonitorFailure, NoServerError)):
                monitor.execute("odx-power-cut")
        rig.guest.kill()
        assert rig.backend.stop() == EXIT_CODE
        for place, name in enumerate(DISKS):
            check(run.path / f"{name}.img", confirmed_at_last[place], rig.confirmed[place])
