"""In the guest: loads two disks with verified I/O, and makes and uses tokens when it is told to by a line of JSON.

Standard library, and the guest scripts in the folder that is its first argument.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import mmap
import os
import random
import struct
import sys
import threading
import traceback

sys.path.insert(0, sys.argv[1])
import odx
from blk_mailbox import MailboxDisk
from disks import DirectDisk, blk_node, scsi_node
from sg import ScsiDisk

MIB = 1 << 20
BLOCK = 4096
BLKDISCARD = 0x1277
LOADED, LOADED_BLOCKS = 64 * MIB, 4096
"""Where the load goes on each disk: 16 MiB."""
ROD = 2 * MIB
RESULT = 32 * MIB
"""Where tokens are written to, on both disks."""


class Load(threading.Thread):
    """Writes, reads, discards and flushes blocks of one disk, and compares."""

    def __init__(self, node: str, seed: int) -> None:
        super().__init__(daemon=True)
        self.node, self.disk, self.chance = node, DirectDisk(node), random.Random(seed)
        self.stamps = [b""] * LOADED_BLOCKS  # 8 bytes, repeated all over the block; empty: not known
        self.count = {"read": 0, "write": 0, "discard": 0, "flush": 0}
        self.error = ""
        self.over = threading.Event()

    def run(self) -> None:
        """Until it is over or wrong."""
        try:
            while not self.over.is_set():
                self.step()
        except Exception:  # noqa: BLE001 - told to the host
            self.error = traceback.format_exc()

    def step(self) -> None:
        """One request."""
        blocks = self.chance.choice((1, 1, 1, 2, 16))
        first = self.chance.randrange(LOADED_BLOCKS - blocks)
        kind = self.chance.choices(("read", "write", "discard", "flush"), (50, 45, 3, 2))[0]
        getattr(self, kind)(first, blocks)
        self.count[kind] += 1

    def write(self, first: int, blocks: int) -> None:
        """A stamp never seen before in each block."""
        buffer = mmap.mmap(-1, blocks * BLOCK)
        for number in range(blocks):
            self.stamps[first + number] = stamp = self.chance.randbytes(8)
            buffer[number * BLOCK : (number + 1) * BLOCK] = stamp * (BLOCK // 8)
        self.disk.write(LOADED + first * BLOCK, buffer)

    def read(self, first: int, blocks: int) -> None:
        """What is known must be there."""
        buffer = mmap.mmap(-1, blocks * BLOCK)
        self.disk.read(LOADED + first * BLOCK, buffer)
        for number in range(blocks):
            stamp = self.stamps[first + number]
            if stamp and buffer[number * BLOCK : (number + 1) * BLOCK] != stamp * (BLOCK // 8):
                raise AssertionError(f"block {first + number} of the load on {self.node} is wrong")

    def discard(self, first: int, blocks: int) -> None:
        """Reads as zeros after."""
        fd = os.open(self.node, os.O_RDWR)
        fcntl.ioctl(fd, BLKDISCARD, struct.pack("QQ", LOADED + first * BLOCK, blocks * BLOCK))
        os.close(fd)
        self.stamps[first : first + blocks] = [bytes(8)] * blocks

    def flush(self, _first: int, _blocks: int) -> None:
        """Everything, and wait."""
        fd = os.open(self.node, os.O_RDWR)
        os.fsync(fd)
        os.close(fd)

    def finish(self) -> dict[str, int]:
        """Stop, and read all of it once more."""
        self.over.set()
        self.join()
        for first in range(0, LOADED_BLOCKS, 64):
            if not self.error:
                self.read(first, 64)
        return self.count


class Agent:
    """What the host can ask for."""

    def __init__(self, guest: str, doors: tuple[str, ...] = ("scsi", "blk")) -> None:
        self.scsi = scsi_node(f"{guest}-scsi") if "scsi" in doors else ""
        self.blk = blk_node(f"{guest}-blk") if "blk" in doors else ""
        self.doors = {node: ScsiDisk(node) for node in (self.scsi,) if node}
        self.doors |= {node: MailboxDisk(node) for node in (self.blk,) if node}
        self.plain = {node: DirectDisk(node) for node in self.doors}
        self.loads = [Load(node, sum(node.encode())) for node in self.doors]
        self.identifier = 0
        for load in self.loads:
            load.start()

    def populate(self, at: int, *, by_mailbox: bool, inactivity_timeout: int = 0) -> dict[str, str]:
        """New data, a token for them, and other data in their place."""
        node = self.blk if by_mailbox else self.scsi
        buffer = mmap.mmap(-1, ROD)
        buffer[:] = random.randbytes(ROD)
        self.plain[node].write(at, buffer)
        self.identifier += 1
        token = odx.populate_token(
            self.doors[node],
            self.identifier,
            at // 512,
            ROD // 512,
            inactivity_timeout=inactivity_timeout,
        )
        digest = hashlib.sha256(buffer).hexdigest()
        buffer[:] = bytes(ROD)
        self.plain[node].write(at, buffer)
        return {"token": token.hex(), "sha256": digest}

    def write(self, token: str, *, by_mailbox: bool) -> dict[str, str]:
        """Use a token, and read what came of it."""
        node = self.blk if by_mailbox else self.scsi
        self.identifier += 1
        place = {"offset": 0, "lba": RESULT // 512, "blocks": ROD // 512}
        odx.write_using_token(self.doors[node], self.identifier, bytes.fromhex(token), **place)
        return {"sha256": self.plain[node].sha256(RESULT, ROD, lambda _: None)}

    def counts(self) -> dict[str, object]:
        """What the loads have done, and their first error."""
        errors = [load.error for load in self.loads if load.error]
        total = {kind: sum(load.count[kind] for load in self.loads) for kind in self.loads[0].count}
        return {"errors": errors, **total}

    def finish(self) -> dict[str, object]:
        """The end of the load, with everything compared once more."""
        for load in self.loads:
            load.finish()
        return self.counts()


def say(answer: object) -> None:
    """One line of JSON."""
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


def main() -> None:
    """Answer lines of JSON until there are no more."""
    agent = Agent(sys.argv[2])
    say({"ready": True})
    for line in sys.stdin:
        request = json.loads(line)
        try:
            answer = getattr(agent, request.pop("do"))(**request)
        except Exception:  # noqa: BLE001 - told to the host
            answer = {"errors": [traceback.format_exc()]}
        say(answer)


if __name__ == "__main__":
    main()
