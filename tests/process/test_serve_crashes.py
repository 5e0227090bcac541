"""A server that is killed again and again under load: nothing is lost, doubled or mixed up."""

from __future__ import annotations

import random
import struct
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING

from guests import MIB, Blk, frozen

from qemu_odx.testing.ram import GuestRam
from qemu_odx.testing.serve import ServeProcess
from qemu_odx.wire.virtio import blk

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from qemu_odx.testing.driver import Request

SMALL, LARGE = 8192, MIB // 2
"""The server does small ones at once, in batches; large ones run beside each other and end in any order."""
SMALLS, LARGES = 96, 48
SIZE = SMALLS * SMALL + LARGES * LARGE
DEPTH = 24
QUEUES = 2
KILLS = 20
ARGUMENTS = (
    *("--disk", f"id=d0,path=a.img,size={SIZE}"),
    *("--export", "type=vhost-user-blk,socket=s,disk=d0"),
)


def place(block: int) -> tuple[int, int]:
    """Where a block is on the disk: offset and length."""
    if block < SMALLS:
        return block * SMALL, SMALL
    return SMALLS * SMALL + (block - SMALLS) * LARGE, LARGE


class Load:
    """Random writes and reads of whole blocks on two queues, never two at once of one block.

    A block says everywhere in it which it is and how often it has been written; a read must see the last write.
    """

    def __init__(self, guest: Blk) -> None:
        self.guest = guest
        self.chance = random.Random(20)
        self.versions = [0] * (SMALLS + LARGES)
        self.running: dict[int, tuple[int, Request, bool]] = {}
        self.ended = 0

    def content(self, block: int) -> bytes:
        """What a block holds after its last write."""
        version, (_, length) = self.versions[block], place(block)
        return struct.pack("<II", block, version) * (length // 8) if version else bytes(length)

    def fill(self) -> None:
        """Keep the queues busy."""
        while len(self.running) < DEPTH * QUEUES:
            block = self.chance.randrange(len(self.versions))
            if block not in self.running:
                self._post(block, self.chance.randrange(QUEUES), writes=self.chance.random() < 0.7)

    def _post(self, block: int, queue: int, *, writes: bool) -> None:
        offset, length = place(block)
        self.versions[block] += writes
        header = blk.HEADER.pack(blk.RequestType.OUT if writes else blk.RequestType.IN, 0, offset // 512)
        driver = self.guest.front.queues[queue]
        request = (
            driver.submit(header + self.content(block), 1) if writes else driver.submit(header, length + 1)
        )
        self.running[block] = queue, request, writes

    def collect(self) -> None:
        """Take what has ended: each once, with the right data."""
        for queue in self.guest.front.queues:
            queue.completions()  # raises if one comes that is not in flight
        for block, (_, request, writes) in list(self.running.items()):
            if request.written is not None:
                assert request.data_in[-1] == blk.Status.OK
                assert writes or request.data_in[:-1] == self.content(block), f"block {block}"
                del self.running[block]
                self.ended += 1

    def some(self) -> None:
        """Let a while pass, and at least a queue's worth of requests."""
        enough, until = self.ended + DEPTH, time.monotonic() + 0.02
        while time.monotonic() < until or self.ended < enough:
            self.fill()
            self.collect()

    def drain(self) -> None:
        """Wait for all of it."""
        deadline = time.monotonic() + 60
        while self.running:
            self.collect()
            assert time.monotonic() < deadline, f"never completed: {self.running}"


def test_twenty_kills_under_load(tmp_path: Path, guests: Callable[..., Blk]) -> None:
    """Every request ends once and well; every block holds its last write, in the image too."""
    guest = guests(str(tmp_path / "s"), queues=QUEUES, ram=GuestRam(48 * MIB))
    load = Load(guest)
    with ExitStack() as stack:
        server = stack.enter_context(ServeProcess(ARGUMENTS, cwd=tmp_path))
        guest.go()
        for _ in range(KILLS):
            load.some()
            with frozen(server):
                load.fill()
            time.sleep(load.chance.uniform(0.0, 0.008))  # what it has been given takes it about so long
            server.kill()
            server.close()
            server = stack.enter_context(ServeProcess(ARGUMENTS, cwd=tmp_path))
            guest.front.resume()
        load.drain()
        guest.front.stop()
        guest.front.start()
        assert all(queue.used_pending() == 0 for queue in guest.front.queues)
        for block in range(SMALLS + LARGES):
            offset, length = place(block)
            assert guest.read(offset // 512, length) == load.content(block)
        assert server.errors() == ""
        assert server.terminate() == 0
    image = (tmp_path / "a.img").read_bytes()
    assert image == b"".join(map(load.content, range(SMALLS + LARGES)))
    assert load.ended > KILLS * DEPTH
