"""A server that is killed again and again under load: nothing is lost, doubled or mixed up."""

from __future__ import annotations

import random
import struct
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING

from guests import MIB, Blk

from qemu_odx.testing.ram import GuestRam
from qemu_odx.testing.serve import ServeProcess
from qemu_odx.wire.virtio import blk

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from qemu_odx.testing.driver import Request

BLOCK = 8192
BLOCKS = 512
DEPTH = 24
QUEUES = 2
KILLS = 20
ARGUMENTS = (
    *("--disk", f"id=d0,path=a.img,size={BLOCKS * BLOCK}"),
    *("--export", "type=vhost-user-blk,socket=s,disk=d0"),
)


class Load:
    """Random writes and reads of whole blocks on two queues, never two at once of one block.

    A block says everywhere in it which it is and how often it has been written; a read must see the last write.
    """

    def __init__(self, guest: Blk) -> None:
        self.guest = guest
        self.chance = random.Random(20)
        self.versions = [0] * BLOCKS
        self.running: dict[int, tuple[int, Request, bool]] = {}
        self.ended = 0

    def content(self, block: int) -> bytes:
        """What a block holds after its last write."""
        return (
            struct.pack("<II", block, self.versions[block]) * (BLOCK // 8)
            if self.versions[block]
            else bytes(BLOCK)
        )

    def fill(self) -> None:
        """Keep the queues busy."""
        while len(self.running) < DEPTH * QUEUES:
            block = self.chance.randrange(BLOCKS)
            if block not in self.running:
                self._post(block, self.chance.randrange(QUEUES), writes=self.chance.random() < 0.7)

    def _post(self, block: int, queue: int, *, writes: bool) -> None:
        sector = block * BLOCK // 512
        self.versions[block] += writes
        header = blk.HEADER.pack(blk.RequestType.OUT if writes else blk.RequestType.IN, 0, sector)
        driver = self.guest.front.queues[queue]
        request = (
            driver.submit(header + self.content(block), 1) if writes else driver.submit(header, BLOCK + 1)
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

    def drain(self) -> None:
        """Wait for all of it."""
        deadline = time.monotonic() + 20
        while self.running:
            self.collect()
            assert time.monotonic() < deadline, f"never completed: {self.running}"


def test_twenty_kills_under_load(tmp_path: Path, guests: Callable[..., Blk]) -> None:
    """Every request ends once and well; every block holds its last write, in the image too."""
    guest = guests(str(tmp_path / "s"), queues=QUEUES, ram=GuestRam(16 * MIB))
    load = Load(guest)
    with ExitStack() as stack:
        server = stack.enter_context(ServeProcess(ARGUMENTS, cwd=tmp_path))
        guest.go()
        for _ in range(KILLS):
            until = time.monotonic() + load.chance.uniform(0.0, 0.05)
            before = load.ended
            while time.monotonic() < until or load.ended == before:
                load.fill()
                load.collect()
            load.fill()
            server.kill()
            server.close()
            server = stack.enter_context(ServeProcess(ARGUMENTS, cwd=tmp_path))
            guest.front.resume()
        load.drain()
        guest.front.stop()
        guest.front.start()
        assert all(queue.used_pending() == 0 for queue in guest.front.queues)
        for block in range(BLOCKS):
            assert guest.read(block * BLOCK // 512, BLOCK) == load.content(block)
        assert server.errors() == ""
        assert server.terminate() == 0
    image = (tmp_path / "a.img").read_bytes()
    assert all(image[n * BLOCK :][:BLOCK] == load.content(n) for n in range(BLOCKS))
    assert load.ended > KILLS * DEPTH
