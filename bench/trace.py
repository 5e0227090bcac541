"""What watching costs: CPU time of the device side of one 4 KiB request, in process, with and without a trace.

    .venv/bin/python bench/trace.py [--requests N] [--json]

One virtio-blk and one virtio-scsi device on a disk in memory; batches of 32 requests, of which only `kick` is timed,
in CPU time of the thread. Each figure is the smallest of several rounds.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from qemu_odx.disk.memory import memory_disk
from qemu_odx.target.manager import CopyManager
from qemu_odx.target.target import Target
from qemu_odx.testing.driver import DriverQueue, Piece
from qemu_odx.testing.ram import GuestRam
from qemu_odx.testing.runner import InlineRunner
from qemu_odx.trace.recorder import Recorder
from qemu_odx.trace.sink import Sink
from qemu_odx.virtio.blk import BlkDevice
from qemu_odx.virtio.scsi import ScsiDevice
from qemu_odx.wire.virtio import blk, scsi

if TYPE_CHECKING:
    from qemu_odx.tap.exchange import Exchange, Outcome
    from qemu_odx.tap.gate import Gate, Tap

BATCH = 32
SIZE = 16 << 20
BLOCK = 4096
ROUNDS = 7


class Idle:
    """A tap that does nothing."""

    def taken(self, exchange: Exchange) -> None:
        """Nothing."""

    def ended(self, exchange: Exchange, outcome: Outcome) -> None:
        """Nothing."""


class Bench:
    """A device and its queue."""

    def __init__(self, kind: str) -> None:
        self.ram = GuestRam(8 << 20)
        self.disk = memory_disk("d0", SIZE, 512)
        self.disk.write(0, [os.urandom(SIZE)])
        self.data = os.urandom(BLOCK)
        runner = InlineRunner()
        self.device: BlkDevice | ScsiDevice
        if kind == "blk":
            self.device = BlkDevice(self.disk, runner)
            self.device.set_features(blk.F_FLUSH)
        else:
            self.device = ScsiDevice(Target.on({0: self.disk}, CopyManager(runner), runner))
        self.number = 0 if kind == "blk" else scsi.FIRST_REQUEST_QUEUE
        self.queue = DriverQueue(self.ram, 256)
        self.device.start_queue(self.number, self.queue.ring(self.ram.memory()))
        self.scsi = kind == "scsi"
        self.run(64, write=False)

    @property
    def gate(self) -> Gate:
        """Where taps go."""
        return self.device.gate

    def close(self) -> None:
        """Give everything back."""
        self.disk.close()
        self.ram.close()

    def run(self, requests: int, *, write: bool) -> float:
        """Seconds of CPU time per request."""
        spent = 0.0
        for first in range(0, requests, BATCH):
            for n in range(first, first + BATCH):
                self._post(n % (SIZE // BLOCK), write=write)
            self.queue.publish()
            began = time.thread_time()
            self.device.kick(self.number)
            spent += time.thread_time() - began
            done = self.queue.completions()
            if len(done) != BATCH:
                raise AssertionError(f"{len(done)} of {BATCH} requests were completed")
        return spent / requests

    def _post(self, place: int, *, write: bool) -> None:
        if self.scsi:
            cdb = (
                bytes((0x8A if write else 0x88, 0))
                + (place * 8).to_bytes(8, "big")
                + bytes((0, 0, 0, 8, 0, 0))
            )
            head = scsi.COMMAND.pack(scsi.encode_lun(0, 0), place, 0, 0, 0, cdb.ljust(32, b"\0"))
            room = scsi.RESPONSE_SIZE
        else:
            head = blk.HEADER.pack(int(write), 0, place * 8)
            room = 1
        if write:
            pieces = [self._piece(head), self._piece(self.data), self._piece(bytes(room), writable=True)]
        else:
            rooms = [room, BLOCK] if self.scsi else [BLOCK, room]
            pieces = [self._piece(head), *(self._piece(bytes(size), writable=True) for size in rooms)]
        self.queue.post(pieces, indirect=0)

    def _piece(self, data: bytes, *, writable: bool = False) -> Piece:
        gpa = self.ram.allocate(len(data))
        self.ram.write(gpa, data)
        return Piece(gpa, len(data), writable)


def tap(kind: str, folder: Path) -> Tap | None:
    """Who watches."""
    if kind == "nobody":
        return None
    if kind == "a tap that does nothing":
        return Idle()
    return Recorder(Sink(folder / "t.jsonl"), time.monotonic, data="data" in kind)


WATCHERS = ("nobody", "a tap that does nothing", "a trace", "a trace with data=on")


def measure(requests: int) -> list[dict[str, object]]:
    """Every row."""
    rows: list[dict[str, object]] = []
    with tempfile.TemporaryDirectory() as folder:
        for device in ("blk", "scsi"):
            for write in (False, True):
                for watcher in WATCHERS:
                    bench, watching = Bench(device), tap(watcher, Path(folder))
                    if watching is not None:
                        bench.gate.add(watching)
                    best = min(bench.run(requests, write=write) for _ in range(ROUNDS))
                    if isinstance(watching, Recorder):
                        watching.close()
                    bench.close()
                    what = f"{device} 4 KiB {'write' if write else 'read'}"
                    rows.append({"request": what, "watched by": watcher, "us": round(best * 1e6, 1)})
    return rows


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--requests", type=int, default=3200)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    rows = measure(given.requests)
    if given.json:
        print(json.dumps(rows))
        return
    table = Table("request", "watched by", "µs")
    for row in rows:
        table.add_row(*map(str, row.values()))
    Console().print(table)


if __name__ == "__main__":
    main()
