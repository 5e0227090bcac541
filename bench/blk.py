"""Our vhost-user-blk against qemu-storage-daemon's, as ratios measured in the same run.

    .venv/bin/python bench/blk.py [--rows PATTERN] [--rounds N] [--seconds S] [--peer KIND] [--folder DIR] [--json]

Both serve images of the same content to the same load generator (`bench/load`, built here with `cc`), in turn,
round by round, the first round uncounted. A ratio is ours / theirs in requests per second: above 1, ours is
faster. At depth 1 that is also the ratio of latencies. Rows of vhost-user-scsi have our own virtio-blk as peer.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import shutil
import statistics
import subprocess
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from qemu_odx.testing.scsi_guest import ScsiGuest
from qemu_odx.testing.serve import ServeProcess
from qemu_odx.wire.scsi.token_lists import Range

if TYPE_CHECKING:
    from collections.abc import Iterator

MIB = 1 << 20
SIZE = 512 * MIB
SPAN = SIZE // 2
"""The part of the disks that is used; live tokens cover blocks behind it, or in it."""
TOKENS = 1000
QUEUES = 4
SOURCES = Path(__file__).parent / "load"
PATIENCE = 60.0

PEERS = {
    "plain": "",
    "iothread": ",iothread=io0",
    "io_uring": "",
}
"""How qemu-storage-daemon is set up: as its manual shows it; with a polling thread of its own; with io_uring."""


@dataclass(slots=True)
class Row:
    """One comparison, and requests per second of each round.

    Attributes:
        load: arguments of the load generator.
        device: "blk", or "scsi" (then the peer is our blk).
        dropped: the page cache is emptied before each run.
        tokens: where 1,000 live tokens are: "", "elsewhere" (behind the span), "among" (between what is used).
    """

    name: str
    load: tuple[str, ...]
    device: str = "blk"
    dropped: bool = False
    tokens: str = ""
    ours: list[float] = field(default_factory=list)
    theirs: list[float] = field(default_factory=list)
    latencies: list[float] = field(default_factory=list)

    def ratios(self) -> list[float]:
        """Ours / theirs, ascending."""
        return sorted(ours / theirs for ours, theirs in zip(self.ours, self.theirs, strict=True))

    def as_dict(self) -> dict[str, object]:
        """For --json."""
        ratios = self.ratios()
        return {
            "name": self.name,
            "ours_iops": statistics.median(self.ours),
            "theirs_iops": statistics.median(self.theirs),
            "ours_p50_us": statistics.median(self.latencies),
            "ratio": {"min": ratios[0], "median": statistics.median(ratios), "max": ratios[-1]},
        }


def load(depth: int, block: int, *more: str, write: bool = False) -> tuple[str, ...]:
    """Arguments of the load generator."""
    return ("--depth", str(depth), "--block", str(block), "--write-percent", "100" if write else "0", *more)


def rows() -> Iterator[Row]:
    """Everything that is compared."""
    for write in (False, True):
        verb = "write" if write else "read"
        for depth in (1, 8, 32, 128):
            yield Row(f"4 KiB random {verb}, depth {depth}", load(depth, 4096, write=write))
        yield Row(f"64 KiB random {verb}, depth 16", load(16, 65536, write=write))
        segments = ("--segment", "4096")
        yield Row(f"64 KiB random {verb}, 16 segments, depth 16", load(16, 65536, *segments, write=write))
        yield Row(f"1 MiB sequential {verb}, depth 8", load(8, MIB, "--sequential", write=write))
        queues = ("--queues", str(QUEUES))
        yield Row(f"4 KiB random {verb}, 4 queues, depth 128", load(128, 4096, *queues, write=write))
        for tokens in ("elsewhere", "among"):
            yield Row(
                f"4 KiB random {verb}, 1,000 tokens {tokens}, depth 32",
                load(32, 4096, write=write),
                tokens=tokens,
            )
        for depth in (1, 32):
            name = f"4 KiB random {verb}, dropped, depth {depth}"
            yield Row(name, load(depth, 4096, write=write), dropped=True)
        for depth in (1, 32, 128):
            yield Row(
                f"scsi: 4 KiB random {verb}, depth {depth}", load(depth, 4096, write=write), device="scsi"
            )
        yield Row(
            f"scsi: 1 MiB sequential {verb}, depth 8",
            load(8, MIB, "--sequential", write=write),
            device="scsi",
        )
    yield Row("1 MiB sequential read, dropped, depth 8", load(8, MIB, "--sequential"), dropped=True)


def build(folder: Path) -> Path:
    """Build the load generator with the system's compiler."""
    program = folder / "load"
    flags = ["-O2", "-std=gnu11", "-Wall", "-Wextra", "-Werror"]
    subprocess.run(["cc", *flags, "-o", program, *sorted(SOURCES.glob("*.c"))], check=True)
    return program


def drop(image: Path) -> None:
    """Empty the page cache of an image."""
    with image.open("rb+") as file:
        os.fdatasync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


class Peer:
    """A running qemu-storage-daemon with one export."""

    def __init__(self, image: Path, socket: Path, kind: str) -> None:
        self._socket = socket
        aio = "io_uring" if kind == "io_uring" else "threads"
        blockdev = f"driver=file,node-name=d0,filename={image},aio={aio}"
        export = f"type=vhost-user-blk,id=e0,node-name=d0,writable=on,num-queues={QUEUES},addr.type=unix"
        thread = ["--object", "iothread,id=io0"] if kind == "iothread" else []
        export += f",addr.path={socket}{PEERS[kind]}"
        self._process = subprocess.Popen(
            ["qemu-storage-daemon", *thread, "--blockdev", blockdev, "--export", export]
        )
        end = time.monotonic() + PATIENCE
        while not socket.exists():
            assert self._process.poll() is None, "qemu-storage-daemon did not start"
            assert time.monotonic() < end, "qemu-storage-daemon does not listen"
            time.sleep(0.01)

    def close(self) -> None:
        """End it."""
        self._process.terminate()
        self._process.wait(PATIENCE)
        self._socket.unlink(missing_ok=True)


class Rig:
    """Both servers on images of the same content, and the load generator."""

    def __init__(self, folder: Path, peer: str, seconds: float, size: int) -> None:
        self._folder = folder
        self._peer = peer
        self._seconds = seconds
        self._span = size // 2
        self._load = build(folder)
        self._images = [folder / "ours.img", folder / "theirs.img"]
        with self._images[0].open("wb") as file:
            for _ in range(size // MIB):
                file.write(os.urandom(MIB))
        shutil.copyfile(*self._images)

    def measure(self, row: Row, rounds: int) -> None:
        """Alternate between the two, and who begins; the first round does not count.

        Both images are read anew before, in the same way: how the page cache holds a file depends on its past.
        """
        for image in self._images:
            drop(image)
            with image.open("rb") as file:
                while file.read(MIB):
                    pass
        with self._servers(row) as (ours, theirs):
            for number in range(rounds + 1):
                turns = [(ours, row.device, True), (theirs, "blk", False)]
                results = {
                    mine: self._run(row, socket, device)
                    for socket, device, mine in turns[:: 1 - number % 2 * 2]
                }
                if number:
                    row.ours.append(results[True]["iops"])
                    row.theirs.append(results[False]["iops"])
                    row.latencies.append(results[True]["p50_us"])

    def _run(self, row: Row, socket: Path, device: str) -> dict[str, Any]:
        for image in self._images:
            if row.dropped:
                drop(image)
        where = ("--socket", socket, "--device", device, "--span", str(self._span))
        seconds = ("--seconds", str(round(self._seconds * 1000)))
        done = subprocess.run([self._load, *where, *seconds, *row.load], capture_output=True, check=True)
        result: dict[str, Any] = json.loads(done.stdout)
        return result

    @contextlib.contextmanager
    def _servers(self, row: Row) -> Iterator[tuple[Path, Path]]:
        blk, scsi, peer = (self._folder / name for name in ("blk.sock", "scsi.sock", "peer.sock"))
        arguments = ["--disk", f"id=d0,path={self._images[0]}"]
        for socket, what in ((blk, "blk"), (scsi, "scsi")):
            target = "disk=d0" if what == "blk" else "lun0=d0"
            export = f"type=vhost-user-{what},socket={socket},{target},num-queues={QUEUES}"
            arguments += ["--export", export]
        with contextlib.ExitStack() as stack:
            stack.enter_context(ServeProcess(arguments))
            if row.device == "scsi":
                yield scsi, blk
                return
            daemon = Peer(self._images[1], peer, self._peer)
            stack.callback(daemon.close)
            if row.tokens:
                make_tokens(stack.enter_context(ScsiGuest(scsi)), among=row.tokens == "among")
            yield blk, peer


def make_tokens(guest: ScsiGuest, *, among: bool) -> None:
    """1,000 live tokens on every fourth 64 KiB behind what is used, or on 4 KiB in every 256 KiB of it."""
    for number in range(TOKENS):
        first = number * 512 if among else (SPAN >> 9) + number * 512
        assert guest.initiator.populate(0, [Range(first, 8 if among else 128)], timeout=600).good


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5, help="rounds that count, for each row")
    parser.add_argument("--seconds", type=float, default=1.0, help="of each run")
    parser.add_argument("--rows", default="", help="only rows in whose name this pattern is found")
    parser.add_argument("--peer", choices=PEERS, default="plain", help="how qemu-storage-daemon is set up")
    parser.add_argument(
        "--folder", type=Path, default=Path(tempfile.gettempdir()), help="where the images go"
    )
    parser.add_argument(
        "--mebibytes", type=int, default=SIZE // MIB, help="of each image; half of it is used"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of a table")
    options = parser.parse_args()
    chosen = [row for row in rows() if re.search(options.rows, row.name)]
    if options.mebibytes * MIB < SIZE and any(row.tokens for row in chosen):
        parser.error("rows with tokens need images of full size: choose other --rows")
    console = Console(stderr=True)
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        rig = Rig(Path(folder), options.peer, options.seconds, options.mebibytes * MIB)
        for row in chosen:
            rig.measure(row, options.rounds)
            console.print(f"{row.name}: {statistics.median(row.ratios()):.2f}", style="dim")
    if options.json:
        print(json.dumps({"peer": options.peer, "rows": [row.as_dict() for row in chosen]}))
        return
    table = Table("row", "ours /s", "theirs /s", "our p50 µs", "min", "ours / theirs", "max")
    for row in chosen:
        ratios = row.ratios()
        medians = (statistics.median(values) for values in (row.ours, row.theirs, row.latencies))
        spread = (ratios[0], statistics.median(ratios), ratios[-1])
        figures = (f"{figure:.0f}" for figure in medians)
        table.add_row(row.name, *figures, *(f"{figure:.2f}" for figure in spread))
    Console().print(table)


if __name__ == "__main__":
    main()
