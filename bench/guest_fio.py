"""fio in a real guest: a verified random mix on our blk and scsi disks, and on qemu-storage-daemon's blk disk.

    .venv/bin/python bench/guest_fio.py [--seconds S | --mebibytes N] [--rounds N] [--ours] [--folder DIR] [--json]

One guest has all three disks (with --ours, two). Each round runs the same job on each of them in turn:
4 jobs on parts of the disk, random reads and writes of 4 to 64 KiB, every block checked by its CRC soon after it was
written. A ratio is ours / theirs in requests per second. Exit status 1 if fio found anything wrong.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import tempfile
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from qemu_odx.lab.accelerator import choose_accelerator
from qemu_odx.lab.backend import Backend, BlkExport, DiskSpec, ScsiExport, serve_command
from qemu_odx.lab.guest import Guest
from qemu_odx.lab.image import ensure_image
from qemu_odx.lab.qemu import GuestSpec
from qemu_odx.lab.run_folder import RunFolder

if TYPE_CHECKING:
    from collections.abc import Iterator

MIB = 1 << 20
JOBS = 4
PART = 64 * MIB
SIZE = JOBS * PART
PATIENCE = 120.0
OURS = ("blk", "scsi")
PEER = "peer"

JOB = (
    f"fio --name=mix --numjobs={JOBS} --size={PART} --offset_increment={PART} --group_reporting"
    " --rw=randrw --bssplit=4k/70:16k/20:64k/10 --iodepth=8 --ioengine=libaio --direct=1"
    " --verify=crc32c --verify_backlog=128 --verify_fatal=1"
    " --output-format=json --filename={device} "
)
FIND_OURS = "grep -l '^odx-blk$' /sys/block/vd*/serial | cut -d/ -f4"
FIND_PEER = "grep -L '^odx-' /sys/block/vd*/serial | cut -d/ -f4"
FIND_SCSI = "ls /sys/block | grep '^sd'"
LOOKS = 1200
"""For a disk in the guest, a tenth of a second apart."""
SILENCE = 240.0
"""Seconds that fio may take longer than it was told to."""


class FioError(Exception):
    """fio found wrong data, or could not run."""


@contextmanager
def peer(image: Path, socket: Path) -> Iterator[None]:
    """A running qemu-storage-daemon with one export."""
    with image.open("wb") as file:
        file.truncate(SIZE)
    export = "type=vhost-user-blk,id=e0,node-name=d0,writable=on,num-queues=1,addr.type=unix"
    blockdev = f"driver=file,node-name=d0,filename={image}"
    export += f",addr.path={socket}"
    process = subprocess.Popen(["qemu-storage-daemon", "--blockdev", blockdev, "--export", export])
    try:
        end = time.monotonic() + PATIENCE
        while not socket.exists() and process.poll() is None and time.monotonic() < end:
            time.sleep(0.01)
        yield
    finally:
        process.terminate()
        process.wait(PATIENCE)


class Rig:
    """The guest and its disks by name: the device of each."""

    def __init__(self, guest: Guest, *, ours: bool) -> None:
        self._guest = guest
        self.devices = {"blk": self._device(FIND_OURS), "scsi": self._device(FIND_SCSI)}
        if not ours:
            self.devices[PEER] = self._device(FIND_PEER)

    def _device(self, command: str) -> str:
        for _ in range(LOOKS):
            found = self._guest.shell.run(command, seconds=SILENCE).stdout.split()
            if len(found) == 1:
                return f"/dev/{found[0]}"
            time.sleep(0.1)
        raise FioError(f"the guest has no such disk: {command}")

    def requests_per_second(self, name: str, length: str, seconds: int) -> float:
        """Run the job on a disk, as long as these words for fio say."""
        command = JOB.format(device=self.devices[name]) + length
        done = self._guest.shell.run(command, seconds=seconds * 4 + SILENCE)
        if done.status:
            raise FioError(f"fio on {name} ended with {done.status}: {done.stderr or done.stdout}")
        (job,) = json.loads(done.stdout[done.stdout.index("{") :])["jobs"]
        if job["error"] or not job["write"]["total_ios"]:
            raise FioError(f"fio on {name} reports error {job['error']}")
        return float(job["read"]["iops"] + job["write"]["iops"])


@contextmanager
def rig(folder: Path, *, ours: bool) -> Iterator[Rig]:
    """Boot the guest on fresh disks; at the end guest and server must go well."""
    image = ensure_image("linux-fio")
    with RunFolder() as run, ExitStack() as stack:
        disks = [DiskSpec(name, folder / f"{name}.img", SIZE, f"odx-{name}") for name in OURS]
        exports = [BlkExport(run.path / "blk.sock", "blk"), ScsiExport(run.path / "scsi.sock", ("scsi",))]
        backend = Backend(serve_command(disks, exports), run.path / "serve.log")
        stack.callback(backend.stop)
        sockets = [run.path / "blk.sock"]
        if not ours:
            sockets.append(run.path / "peer.sock")
            stack.enter_context(peer(folder / "peer.img", sockets[-1]))
        spec = GuestSpec(image, choose_accelerator(), (run.path / "scsi.sock",), tuple(sockets))
        guest = Guest(spec, run.path)
        stack.callback(guest.kill)
        yield Rig(guest, ours=ours)
        guest.power_off()
        assert backend.stop() == 0, "the server did not end well"


def measure(folder: Path, options: argparse.Namespace, console: Console) -> dict[str, list[float]]:
    """Requests per second on each disk, round by round."""
    length = f"--io_size={options.mebibytes}M"
    if options.mebibytes is None:
        length = f"--time_based --runtime={options.seconds}"
    with rig(folder, ours=options.ours) as guest:
        found: dict[str, list[float]] = {name: [] for name in guest.devices}
        for number in range(options.rounds):
            for name in list(found)[:: 1 - number % 2 * 2]:
                found[name].append(guest.requests_per_second(name, length, options.seconds))
                console.print(f"round {number + 1}, {name}: {found[name][-1]:.0f} requests/s", style="dim")
    return found


def summary(found: dict[str, list[float]]) -> list[dict[str, Any]]:
    """One row for each of our disks."""
    if PEER not in found:
        return [{"name": name, "ours": statistics.median(found[name])} for name in OURS]
    rows = []
    for name in OURS:
        ratios = sorted(ours / theirs for ours, theirs in zip(found[name], found[PEER], strict=True))
        ratio = {"min": ratios[0], "median": statistics.median(ratios), "max": ratios[-1]}
        rows.append(
            {"name": name, "ours": statistics.median(found[name]), "theirs": statistics.median(found[PEER])}
            | {"ratio": ratio}
        )
    return rows


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=int, default=60, help="of each run")
    parser.add_argument("--mebibytes", type=int, help="read and written by each job, instead of a time")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--ours", action="store_true", help="no disk of qemu-storage-daemon to compare with")
    parser.add_argument(
        "--folder", type=Path, default=Path(tempfile.gettempdir()), help="where the images go"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of a table")
    options = parser.parse_args()
    console = Console(stderr=True)
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        try:
            rows = summary(measure(Path(folder), options, console))
        except FioError as error:
            console.print(f"guest_fio: {error}")
            return 1
    if options.json:
        print(json.dumps(rows))
        return 0
    table = Table("disk", "ours /s", "theirs /s", "min", "ours / theirs", "max")
    for row in rows:
        ratio = [f"{row['ratio'][key]:.2f}" for key in ("min", "median", "max")] if "ratio" in row else []
        table.add_row(row["name"], f"{row['ours']:.0f}", f"{row['theirs']:.0f}" if ratio else "-", *ratio)
    Console().print(table)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
