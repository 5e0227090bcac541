"""Token copy against its peers, as ratios measured in the same run.

    .venv/bin/python bench/tokens.py [--rounds N] [--json] [--folder DIR]

The server is the real one, driven over its vhost-user-scsi socket by the Python front end. Each row alternates
between ours and the peer and gives the ratio peer / ours, round by round: above 1, ours is faster. Run on DIR
(default: the temporary folder) and, as root, on a small XFS with reflink, mounted from a file.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import statistics
import subprocess
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from qemu_odx.testing.scsi_guest import ScsiGuest
from qemu_odx.testing.serve import ServeProcess
from qemu_odx.wire.scsi.token_lists import Range

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

MIB = 1 << 20
BLOCK = 512
COPY = 256 * MIB
TOKENS = 10_000
BIG_DISK = 101 << 30


@dataclass(slots=True)
class Row:
    """One comparison on one file system; seconds of each round."""

    name: str
    file_system: str
    ours: list[float] = field(default_factory=list)
    peer: list[float] = field(default_factory=list)

    def ratios(self) -> list[float]:
        """Peer / ours, ascending."""
        return sorted(peer / ours for ours, peer in zip(self.ours, self.peer, strict=True))

    def as_dict(self) -> dict[str, object]:
        """For --json."""
        ratios = self.ratios()
        return {
            "name": self.name,
            "file_system": self.file_system,
            "ours_seconds": statistics.median(self.ours),
            "peer_seconds": statistics.median(self.peer),
            "ratio": {"min": ratios[0], "median": statistics.median(ratios), "max": ratios[-1]},
        }


def seconds(action: Callable[[], object]) -> float:
    """How long it takes."""
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def compare(row: Row, rounds: int, ours: Callable[[], object], peer: Callable[[], object]) -> Row:
    """Alternate, after one round that does not count."""
    for number in range(rounds + 1):
        first, second = seconds(ours), seconds(peer)
        if number:
            row.ours.append(first)
            row.peer.append(second)
    return row


@contextlib.contextmanager
def guest_on(folder: Path, size: str) -> Iterator[ScsiGuest]:
    """A guest with two disks of `size` in a folder."""
    arguments = []
    for name in ("d0", "d1"):
        arguments += ["--disk", f"id={name},path={folder}/{name}.img,size={size}"]
    arguments += ["--export", f"type=vhost-user-scsi,socket={folder}/s.sock,lun0=d0,lun1=d1"]
    with ServeProcess(arguments), ScsiGuest(folder / "s.sock") as guest:
        yield guest
    for name in ("d0", "d1"):
        (folder / f"{name}.img").unlink()


def fill(guest: ScsiGuest, lun: int, length: int) -> None:
    """Random data from LBA 0 on."""
    for at in range(0, length, MIB):
        assert guest.initiator.write(lun, at // BLOCK, MIB // BLOCK, os.urandom(MIB)).good


def token_copy(guest: ScsiGuest) -> None:
    """POPULATE TOKEN, then WRITE USING TOKEN in pieces of the optimal 64 MiB."""
    token = guest.initiator.token(0, [Range(0, COPY // BLOCK)])
    step = 64 * MIB // BLOCK
    for at in range(0, COPY // BLOCK, step):
        assert guest.initiator.write_token(1, token, [Range(at, step)], offset=at).good
    assert guest.initiator.write_token(1, token, [Range(0, 0)], delete=True).good


def plain_copy(guest: ScsiGuest) -> None:
    """Read and write through the ring, 1 MiB at a time."""
    step = MIB // BLOCK
    for at in range(0, COPY // BLOCK, step):
        data = guest.initiator.read(0, at, step).data
        assert guest.initiator.write(1, at, step, data).good


def host_copy(folder: Path) -> None:
    """What `cp` does with the same bytes, reflink and all."""
    source, copy = folder / "d0.img", folder / "cp.img"
    subprocess.run(["cp", "--sparse=never", source, copy], check=True)
    copy.unlink()


def copies(folder: Path, kind: str, rounds: int) -> Iterator[Row]:
    """Token copy against read and write, and against cp."""
    with guest_on(folder, f"{COPY // MIB}M") as guest:
        fill(guest, 0, COPY)
        size = f"{COPY // MIB} MiB"
        yield compare(
            Row(f"token copy of {size} : guest reads and writes", kind),
            rounds,
            lambda: token_copy(guest),
            lambda: plain_copy(guest),
        )
        yield compare(
            Row(f"token copy of {size} : cp on the host", kind),
            rounds,
            lambda: token_copy(guest),
            lambda: host_copy(folder),
        )


def populates(folder: Path, kind: str, rounds: int) -> Iterator[Row]:
    """POPULATE TOKEN of 100 GiB against one of 1 MiB."""
    with guest_on(folder, str(BIG_DISK)) as guest:
        fill(guest, 0, 64 * MIB)

        def populate(length: int) -> Callable[[], None]:
            def act() -> None:
                for _ in range(20):
                    assert guest.initiator.populate(0, [Range(0, length // BLOCK)]).good

            return act

        name = "POPULATE TOKEN of 100 GiB : of 1 MiB"
        yield compare(Row(name, kind), rounds, populate(100 << 30), populate(MIB))


def writes(folder: Path, kind: str, rounds: int) -> Iterator[Row]:
    """Writes of 4 KiB with 10,000 live tokens, outside and inside their ranges, against none."""
    with (
        tempfile.TemporaryDirectory(dir=folder) as second,
        guest_on(folder, "2G") as guest,
        guest_on(Path(second), "2G") as bare,
    ):
        for number in range(TOKENS):
            assert guest.initiator.populate(0, [Range(number * 256, 256)], timeout=600).good
        data = os.urandom(4096)

        def write(where: ScsiGuest, base: int, stride: int) -> Callable[[], None]:
            def act() -> None:
                for number in range(2000):
                    assert where.initiator.write(0, base + number * stride, 8, data).good

            return act

        outside = TOKENS * 256
        yield compare(
            Row("4 KiB writes outside 10,000 tokens : no tokens", kind),
            rounds,
            write(guest, outside, 8),
            write(bare, outside, 8),
        )
        yield compare(
            Row("4 KiB writes inside 10,000 tokens : no tokens", kind),
            rounds,
            write(guest, 0, 256),
            write(bare, 0, 256),
        )


@contextlib.contextmanager
def xfs() -> Iterator[Path | None]:
    """A folder on an XFS with reflink, or None where it cannot be mounted."""
    if os.geteuid() or not shutil.which("mkfs.xfs"):
        yield None
        return
    with tempfile.TemporaryDirectory() as base:
        image, folder = Path(base) / "xfs.img", Path(base) / "mounted"
        folder.mkdir()
        with image.open("wb") as file:
            file.truncate(4 << 30)
        subprocess.run(["mkfs.xfs", "-q", "-m", "reflink=1", image], check=True)
        if subprocess.run(["mount", "-o", "loop", image, folder], check=False).returncode:
            yield None
            return
        try:
            yield folder
        finally:
            subprocess.run(["umount", folder], check=True)


def file_system(folder: Path) -> str:
    """The type of a folder's file system."""
    done = subprocess.run(["stat", "-f", "-c", "%T", folder], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def measure(folder: Path, kind: str, rounds: int, console: Console) -> list[Row]:
    """Every row on one file system, with a line of progress each."""
    rows = []
    for group in (copies, populates, writes):
        with tempfile.TemporaryDirectory(dir=folder) as run:
            for row in group(Path(run), kind, rounds):
                console.print(f"measured on {kind}: {row.name}", style="dim")
                rows.append(row)
    return rows


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of a table")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()))
    options = parser.parse_args()
    console = Console(stderr=True)
    rows = measure(options.folder, file_system(options.folder), options.rounds, console)
    with xfs() as folder:
        if folder is None:
            console.print("XFS rows left out: mounting one needs root and mkfs.xfs")
        else:
            rows += measure(folder, "xfs", options.rounds, console)
    if options.json:
        print(json.dumps([row.as_dict() for row in rows]))
        return
    table = Table("ours : peer", "on", "ours s", "peer s", "min", "peer / ours", "max")
    for row in rows:
        ratios = row.ratios()
        figures = (statistics.median(row.ours), statistics.median(row.peer), *_spread(ratios))
        table.add_row(row.name, row.file_system, *(f"{figure:.3g}" for figure in figures))
    Console().print(table)


def _spread(ratios: list[float]) -> tuple[float, float, float]:
    return ratios[0], statistics.median(ratios), ratios[-1]


if __name__ == "__main__":
    main()
