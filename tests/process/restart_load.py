"""Verified load on a server that is killed meanwhile: guests' work as generators, each command's answer is checked.

Two disks in cells. A cell's content is a tag repeated, so each part of it says what it is. The model knows no kills.
"""

from __future__ import annotations

import random
import struct
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from qemu_odx.testing.initiator import Answer, Initiator
from qemu_odx.wire.scsi.token_lists import Range, TokenInformation
from qemu_odx.wire.virtio import scsi

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    from qemu_odx.testing.driver import Request
    from qemu_odx.testing.scsi_guest import ScsiGuest

    Command = tuple[int, bytes, bytes]
    """Logical unit, CDB, data-out."""
    Work = Generator[Command, Answer, None]

CELL = 64 << 10
BLOCKS = CELL // 512
CELLS = 512
SIZE = CELL * CELLS
SOURCE, TARGET = 0, 1
SHORT = 2
"""Seconds of inactivity after which some tokens expire."""
PATIENCE = 60.0
"""Seconds in which a command must end, a restart included."""
ROOM = 64 << 10
USES = 3
"""Of a token until it is deleted."""
DONE, BACKGROUND, TERMINATED = 0x01, 0x12, 0x60
"""COPY OPERATION STATUS (SPC-4 6.24)."""
EXPIRED, DELETED, NOT_RUNNING = (5, 0x23, 7), (5, 0x23, 9), (5, 0x24, 0)


@dataclass(slots=True, eq=False)
class Disk:
    """What a disk holds, by cell: a tag for each; and the cells that something is being done to."""

    tags: list[int] = field(default_factory=lambda: [0] * CELLS)
    busy: set[int] = field(default_factory=set)


def content(tag: int) -> bytes:
    """A cell with this tag."""
    return struct.pack("<Q", tag) * (CELL // 8)


def tags_in(data: bytes) -> set[str]:
    """The tags in some cells."""
    return {f"{struct.unpack_from('<Q', data, at)[0]:X}" for at in range(0, len(data) - 7, 8)}


class Load:
    """Guests that write, read, swap, make tokens, use them, delete them, let them expire, and stop copies."""

    WORKERS: ClassVar = {"writes": 6, "reads": 2, "swaps": 2, "tokens": 4, "background": 2, "expiry": 1}

    def __init__(self, guest: ScsiGuest, seed: int) -> None:
        self.guest = guest
        self.chance = random.Random(seed)
        self.disks = [Disk(), Disk()]
        self.stamp = 0
        self.counts: dict[str, int] = {}
        self.stopping = False
        self._sent: list[Command] = []
        self._initiator = Initiator(self._capture)
        self._running: list[tuple[Work, Request, float]] = []

    # -- the engine --------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin all the work."""
        for name, number in self.WORKERS.items():
            for _ in range(number):
                self._advance(getattr(self, name)(), None)

    def run(self, seconds: float) -> None:
        """Let it go on for a while."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.collect()

    def run_until(self, kinds: set[str], number: int) -> None:
        """Let it go on until there was so much of each kind."""
        deadline = time.monotonic() + PATIENCE
        while min(self.counts.get(kind, 0) for kind in kinds) < number:
            assert time.monotonic() < deadline, self.counts
            self.collect()

    def drain(self) -> None:
        """Let everything that has begun end."""
        self.stopping = True
        while self._running:
            self.collect()

    def collect(self) -> None:
        """Take what has ended and send what follows."""
        self.guest.queue.completions()
        waiting, self._running = self._running, []
        for work, request, deadline in waiting:
            if request.written is not None:
                self._advance(work, answer_to(request))
            else:
                assert time.monotonic() < deadline, "a command never ended"
                self._running.append((work, request, deadline))
        time.sleep(0.0005)

    def _advance(self, work: Work, answer: Answer | None) -> None:
        try:
            lun, cdb, data_out = work.send(answer) if answer else next(work)
        except StopIteration:
            return
        request = self.guest.submit(lun, cdb, data_out, 0 if data_out else ROOM)
        self._running.append((work, request, time.monotonic() + PATIENCE))

    def _capture(self, lun: int, cdb: bytes, data_out: bytes) -> Answer:
        self._sent.append((lun, cdb, data_out))
        return Answer(0, b"", b"")

    def command(self, name: str, *arguments: object, **options: object) -> Command:
        """The command that an initiator's method sends."""
        getattr(self._initiator, name)(*arguments, **options)
        return self._sent.pop()

    def _count(self, what: str) -> None:
        self.counts[what] = self.counts.get(what, 0) + 1

    def _claim(self, disk: Disk, most: int) -> list[int]:
        """Free cells in a row, taken."""
        while True:
            length, first = self.chance.randint(1, most), self.chance.randrange(CELLS)
            cells = list(range(first, min(CELLS, first + length)))
            if disk.busy.isdisjoint(cells):
                disk.busy.update(cells)
                return cells

    def _identifier(self) -> int:
        return next(self._initiator.identifiers)

    # -- the work ----------------------------------------------------------------------------------

    def writes(self) -> Work:
        """Cells are overwritten, those behind tokens too."""
        while not self.stopping:
            lun = self.chance.choice((SOURCE, SOURCE, TARGET))
            disk = self.disks[lun]
            cells = self._claim(disk, 2)
            self.stamp += 1
            tags = {cell: self.stamp << 16 | cell for cell in cells}
            data = b"".join(map(content, tags.values()))
            answer = yield self.command("write", lun, cells[0] * BLOCKS, len(cells) * BLOCKS, data)
            assert answer.good, answer
            for cell, tag in tags.items():
                disk.tags[cell] = tag
            disk.busy.difference_update(cells)
            self._count("writes")

    def reads(self) -> Work:
        """And read again."""
        while not self.stopping:
            lun = self.chance.choice((SOURCE, TARGET))
            disk = self.disks[lun]
            (cell,) = self._claim(disk, 1)
            answer = yield self.command("read", lun, cell * BLOCKS, BLOCKS)
            assert answer.good, answer
            assert answer.data == content(disk.tags[cell]), (
                f"cell {cell} of disk {lun}: {len(answer.data)} bytes, {tags_in(answer.data)}"
                f" instead of {disk.tags[cell]:X}"
            )
            disk.busy.discard(cell)
            self._count("reads")

    def swaps(self) -> Work:
        """COMPARE AND WRITE: sent again or not, it finds what it compares with, and is done once."""
        while not self.stopping:
            lun = self.chance.choice((SOURCE, TARGET))
            disk = self.disks[lun]
            (cell,) = self._claim(disk, 1)
            self.stamp += 1
            tag = self.stamp << 16 | cell
            data = content(disk.tags[cell]), content(tag)
            answer = yield self.command("compare_and_write", lun, cell * BLOCKS, BLOCKS, *data)
            assert answer.good, answer
            disk.tags[cell] = tag
            disk.busy.discard(cell)
            self._count("swaps")

    def tokens(self) -> Work:
        """A token is made, used some times, and deleted with its last use."""
        while not self.stopping:
            token, tags = yield from self._populate(16, timeout=600)
            for use in range(USES):
                last = use == 2
                cells = yield from self._use(token, tags, delete=last)
                self._count("token writes")
                del cells
            answer = yield self.command("write_token", TARGET, token, [Range(0, 1)])
            assert answer.fault == DELETED, answer
            self._count("deleted")

    def expiry(self) -> Work:
        """Nobody uses a token for a while: it has expired, killed server or not."""
        while not self.stopping:
            token, _ = yield from self._populate(4, timeout=SHORT)
            end = time.monotonic() + SHORT + 0.5
            while time.monotonic() < end:
                answer = yield self.command("read", SOURCE, 0, 1)
                assert answer.good, answer
            answer = yield self.command("write_token", TARGET, token, [Range(0, 1)])
            assert answer.fault == EXPIRED, answer
            self._count("expired")

    def background(self) -> Work:
        """Copies that answer at once: some are stopped, all tell how far they came, and that is true."""
        disk = self.disks[TARGET]
        while not self.stopping:
            token, tags = yield from self._populate(100, timeout=600)
            cells, identifier = self._scatter(disk, len(tags)), self._identifier()
            ranges = [Range(cell * BLOCKS, BLOCKS) for cell in cells]
            answer = yield self.command(
                "write_token", TARGET, token, ranges, identifier=identifier, immediate=True
            )
            assert answer.good, answer
            aborted = self.chance.random() < 0.5
            if aborted:
                answer = yield self.command("abort_copy", TARGET, identifier)
                assert answer.good or answer.fault == NOT_RUNNING, answer
                aborted = answer.good
            status, count = yield from self._outcome(identifier)
            assert status in ({DONE, TERMINATED} if aborted else {DONE}), f"status {status:02X}h"
            done = count // BLOCKS
            assert done == len(cells) or status == TERMINATED, f"{count} blocks"
            for cell, tag in zip(cells[:done], tags, strict=False):
                disk.tags[cell] = tag
            for cell, tag in zip(cells[done:], tags[done:], strict=True):
                yield from self._settle(cell, {disk.tags[cell], tag})
            disk.busy.difference_update(cells)
            self._count("stopped" if status == TERMINATED else "background")
            answer = yield self.command("write_token", TARGET, token, [Range(0, 0)], delete=True)
            assert answer.good, answer

    def _settle(self, cell: int, either: set[int]) -> Work:
        """A cell that a stopped copy may or may not have reached: each block is old or new; make it one."""
        answer = yield self.command("read", TARGET, cell * BLOCKS, BLOCKS)
        found = {struct.unpack_from("<Q", answer.data, at)[0] for at in range(0, CELL, 8)}
        assert found <= either, f"cell {cell} has {found}, not of {either}"
        tag = found.pop()
        answer = yield self.command("write", TARGET, cell * BLOCKS, BLOCKS, content(tag))
        assert answer.good, answer
        self.disks[TARGET].tags[cell] = tag

    def _scatter(self, disk: Disk, number: int) -> list[int]:
        """As many free cells, anywhere, taken."""
        free = [cell for cell in range(CELLS) if cell not in disk.busy]
        cells = self.chance.sample(free, number)
        disk.busy.update(cells)
        return cells

    def _populate(self, most: int, timeout: int) -> Generator[Command, Answer, tuple[bytes, list[int]]]:
        disk = self.disks[SOURCE]
        cells = self._claim(disk, most)
        identifier = self._identifier()
        ranges = [Range(cells[0] * BLOCKS, len(cells) * BLOCKS)]
        answer = yield self.command("populate", SOURCE, ranges, identifier=identifier, timeout=timeout)
        assert answer.good, answer
        tags = [disk.tags[cell] for cell in cells]
        disk.busy.difference_update(cells)
        answer = yield self.command("information", SOURCE, identifier)
        assert answer.good, answer
        token = TokenInformation.parse(answer.data).token
        assert token is not None
        self._count("tokens")
        return token, tags

    def _use(self, token: bytes, tags: list[int], *, delete: bool) -> Work:
        disk = self.disks[TARGET]
        cells = self._claim(disk, len(tags))
        ranges = [Range(cells[0] * BLOCKS, len(cells) * BLOCKS)]
        answer = yield self.command("write_token", TARGET, token, ranges, delete=delete)
        assert answer.good, answer
        for cell, tag in zip(cells, tags, strict=False):
            disk.tags[cell] = tag
        disk.busy.difference_update(cells)

    def _outcome(self, identifier: int) -> Generator[Command, Answer, tuple[int, int]]:
        while True:
            answer = yield self.command("information", TARGET, identifier)
            assert answer.good, answer
            status = TokenInformation.parse(answer.data).status
            if status.status != BACKGROUND:
                return status.status, status.count


def answer_to(request: Request) -> Answer:
    """How a request has ended."""
    length, residual, _, status, response, sense = scsi.RESPONSE.unpack_from(request.data_in)
    assert response == scsi.Response.OK, scsi.Response(response).name
    data = request.data_in[scsi.RESPONSE_SIZE :]
    return Answer(status, sense[:length], data[: len(data) - residual] if data else b"")


def images(disks: list[Disk]) -> Iterator[bytes]:
    """What the images must hold."""
    for disk in disks:
        yield b"".join(map(content, disk.tags))
