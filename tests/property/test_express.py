"""Express lanes, and taps, against the plain way: equal worlds, one with and one without, must stay equal."""

from __future__ import annotations

import errno
import os
import random
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qemu_odx.disk.file import FileDisk
from qemu_odx.disk.memory import memory_disk
from qemu_odx.tap.decision import Decision
from qemu_odx.target.manager import CopyManager
from qemu_odx.target.target import Target
from qemu_odx.testing.driver import DriverQueue, Piece
from qemu_odx.testing.ram import GuestRam
from qemu_odx.testing.runner import InlineRunner
from qemu_odx.trace.recorder import Recorder
from qemu_odx.trace.sink import Sink
from qemu_odx.virtio.blk import BlkDevice
from qemu_odx.virtio.express import Lane, descriptors_of
from qemu_odx.virtio.scsi import ScsiDevice
from qemu_odx.wire.virtio import blk, scsi

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from qemu_odx.disk.port import Io
    from qemu_odx.tap.exchange import Exchange, Outcome
    from qemu_odx.tap.gate import Tap
    from qemu_odx.virtio.port import Begun

ROOM = 32
"""Sectors of the disk that each request of a batch has to itself: requests in flight have no order."""
BATCH = 4
SECTORS = ROOM * BATCH
_GPA_NOWHERE = 0x7000_0000


@dataclass(frozen=True)
class Step:
    """One request.

    Attributes:
        kind: virtio-blk request type; the first byte of the CDB for virtio-scsi.
        sector: place in the request's own room, or anywhere wild.
        length: bytes of data.
        parts: pieces of the data.
        style: how the request is laid out: "usual", or with a flaw.
        table: None: descriptors in the ring; else how many of them come before an indirect table.
        flags: byte 1 of the CDB.
        lun: logical unit.
    """

    kind: int
    sector: int
    length: int
    parts: int
    style: str
    table: int | None
    flags: int
    lun: int


def steps(kinds: Sequence[int]) -> st.SearchStrategy[Step]:
    """Mostly such as the lanes take."""
    return st.builds(
        Step,
        kind=st.sampled_from(kinds),
        sector=st.sampled_from([0, 0, 0, 8, 8, 1, SECTORS, 1 << 31, (1 << 32) - 1]),
        length=st.sampled_from([4096, 4096, 4096, 8192, 512, 0, 511, 513]),
        parts=st.sampled_from([1, 1, 1, 2, 5]),
        style=st.sampled_from(
            ["usual"] * 12
            + ["no status", "long header", "short header", "nowhere", "empty piece", "mixed", "apart"]
        ),
        table=st.sampled_from([0, 0, 0, None, 1]),
        flags=st.sampled_from([0, 0, 0x08, 0xE0]),
        lun=st.sampled_from([0, 0, 0, 1]),
    )


class Beside(InlineRunner):
    """Reads beside the loop, and ends the newest first; every third is refused, or ends badly, in turn."""

    def __init__(self) -> None:
        self.asked = 0
        self._reads: list[tuple[int, int, Sequence[memoryview], Callable[[int], None]]] = []

    def read(
        self, fd: int, offset: int, into: Sequence[memoryview], done: Callable[[int], None], *, apart: bool
    ) -> bool:
        """Not before `finish`."""
        del apart
        self.asked += 1
        if self.asked % 6 == 0:
            return False
        self._reads.append((-1 if self.asked % 6 == 3 else fd, offset, into, done))
        return True

    def finish(self) -> None:
        """Do them."""
        while self._reads:
            fd, offset, into, done = self._reads.pop()
            done(-errno.EBADF if fd < 0 else os.preadv(fd, into, offset))


class World:
    """A disk, a device, its request queue."""

    def __init__(
        self,
        device: str,
        *,
        plain: bool,
        block_size: int,
        wce: int,
        tap: Tap | None = None,
        beside: Beside | None = None,
    ) -> None:
        self.ram = GuestRam(4 << 20, pieces=2)
        self.disk = memory_disk("d", SECTORS * 512, block_size)
        self.disk.write(0, [random.Random(1).randbytes(SECTORS * 512)])
        self.scsi = device == "scsi"
        self.beside = beside
        runner = beside or InlineRunner()
        self.device = (
            ScsiDevice(Target.on({0: self.disk}, CopyManager(runner), runner))
            if self.scsi
            else BlkDevice(self.disk, runner)
        )
        if isinstance(self.device, BlkDevice):
            self.device.set_features(blk.F_FLUSH | blk.F_CONFIG_WCE)
            self.device.write_config(blk.CONFIG_WCE_OFFSET, bytes([wce]))
        number = scsi.FIRST_REQUEST_QUEUE if self.scsi else 0
        self.taken = 0
        self.queue = DriverQueue(self.ram, 64, kick=lambda: self.device.kick(number))
        self.device.start_queue(number, self.queue.ring(self.ram.memory()))
        queue = self.device._queues._started[number][0]
        if plain:
            queue._express = None
        else:
            self._count(queue._express)
            queue._express = self._counting
        # Takes the unit attention of a new initiator; lanes look where an address was found last; and the disk finds
        # out with the first read whether its file system can say what is cached.
        for kind in (0x00, 0x28) if self.scsi else (0,):
            self.run([Step(kind, 0, 4096, 1, "usual", 0, 0, 0)])
        self.taken = 0
        if tap is not None:
            self.device.gate.add(tap)
        if beside is not None:
            self.disk.try_batch = self._nothing_cached  # type: ignore[method-assign]

    def _nothing_cached(self, batch: Sequence[Io]) -> Sequence[int]:
        assert not FileDisk.try_batch(self.disk, [io for io in batch if io[0]])
        return [place for place, io in enumerate(batch) if not io[0]]

    def _count(self, lane: Lane) -> None:
        self._lane = lane

    def _counting(self, heads: Sequence[int], done: list[int], begun: Begun) -> Sequence[int]:
        rest = self._lane(heads, done, begun)
        self.taken += len(heads) - len(rest)
        return rest

    def close(self) -> None:
        """Give everything back."""
        self.ram.close()
        self.disk.close()

    def run(self, batch: Sequence[Step]) -> list[tuple[int | None, bytes]]:
        """Post all, kick once; used length and writable part of each."""
        requests = []
        for number, step in enumerate(batch):
            pieces = self._pieces(step, (number * ROOM + step.sector) & 0xFFFFFFFF, number)
            requests.append(self.queue.post(pieces, indirect=step.table))
        self.queue.publish()
        if self.beside is not None:
            self.beside.finish()
        for request in requests:
            # Bytes at no address cannot be read back: the driver's own collection would stumble.
            request.pieces = [piece for piece in request.pieces if piece.gpa < _GPA_NOWHERE]
        self.queue.completions()
        return [(request.written, request.data_in) for request in requests]

    def content(self) -> bytes:
        """The disk."""
        data = bytearray(self.disk.size)
        self.disk.read(0, [memoryview(data)])
        return bytes(data)

    def _pieces(self, step: Step, sector: int, number: int) -> list[Piece]:
        header, response, writes = (self._scsi if self.scsi else self._blk)(step, sector)
        if step.style == "long header":
            header += b"\0"
        elif step.style == "short header":
            header = header[:-1]
        out = [self._piece(header)]
        data = random.Random(number).randbytes(step.length) if writes else bytes(step.length)
        size = max(1, -(-step.length // step.parts))
        pieces = [
            self._piece(data[at : at + size], writable=not writes, apart=step.style == "apart")
            for at in range(0, step.length, size)
        ]
        status = [] if step.style == "no status" else [self._piece(b"\xee" * response, writable=True)]
        if step.style == "nowhere" and pieces:
            pieces[-1] = Piece(_GPA_NOWHERE, pieces[-1].length, pieces[-1].writable)
        elif step.style == "empty piece":
            pieces.insert(0, Piece(self.ram.base, 0, not writes))
        elif step.style == "mixed" and pieces:
            pieces[0] = Piece(pieces[0].gpa, pieces[0].length, not pieces[0].writable)
        return out + (status + pieces if self.scsi and not writes else pieces + status)

    def _piece(self, data: bytes, *, writable: bool = False, apart: bool = False) -> Piece:
        if apart:
            self.ram.allocate(16)
        gpa = self.ram.allocate(len(data))
        self.ram.write(gpa, data)
        return Piece(gpa, len(data), writable)

    @staticmethod
    def _blk(step: Step, sector: int) -> tuple[bytes, int, bool]:
        return blk.HEADER.pack(step.kind, 0, sector), 1, step.kind in {1, 11}

    def _scsi(self, step: Step, sector: int) -> tuple[bytes, int, bool]:
        block, count = sector * 512 // self.disk.block_size, step.length // self.disk.block_size
        cdb = bytearray(32)
        cdb[0], cdb[1] = step.kind, step.flags
        if step.kind in {0x88, 0x8A}:
            cdb[2:10], cdb[10:14] = block.to_bytes(8, "big"), count.to_bytes(4, "big")
        else:
            cdb[2:6], cdb[7:9] = block.to_bytes(4, "big"), count.to_bytes(2, "big")
        lun = scsi.encode_lun(0, step.lun)
        return scsi.COMMAND.pack(lun, 1, 0, 0, 0, bytes(cdb)), scsi.RESPONSE_SIZE, step.kind in {0x2A, 0x8A}


def check(
    device: str, batches: list[list[Step]], block_size: int, wce: int, *, beside: Beside | None = None
) -> int:
    """Run the batches in both worlds and compare; how many requests the lane took."""
    worlds = [
        World(device, plain=True, block_size=block_size, wce=wce),
        World(device, plain=False, block_size=block_size, wce=wce, beside=beside),
    ]
    try:
        for batch in batches:
            plain, express = (world.run(batch) for world in worlds)
            assert express == plain
            assert worlds[1].content() == worlds[0].content()
        return worlds[1].taken
    finally:
        for world in worlds:
            world.close()


class Recording(Recorder):
    """A recorder as a tap: whatever a guest sends, it never fails."""

    def __init__(self) -> None:
        super().__init__(Sink(Path(os.devnull)), lambda: 0.0, data=True, full=True)
        self.failures: list[Exception] = []
        self.seen = 0

    def ended(self, exchange: Exchange, outcome: Outcome) -> None:
        """As it does; the gate would only log what it raises."""
        self.seen += 1
        try:
            super().ended(exchange, outcome)
        except Exception as error:  # noqa: BLE001 - for the test to tell
            self.failures.append(error)


class Idle:
    """A tap that decides nothing, and counts."""

    def __init__(self) -> None:
        self.open: list[Exchange] = []
        self.seen = 0

    def taken(self, exchange: Exchange) -> Decision | None:
        """Not even a decision to do everything as usual, every other time."""
        assert exchange.spans is not None
        self.open.append(exchange)
        self.seen += 1
        return Decision() if self.seen % 2 else None

    def ended(self, exchange: Exchange, outcome: Outcome) -> None:
        """Each that was taken, once."""
        assert outcome.ended >= exchange.taken
        self.open.remove(exchange)


def check_recorder(device: str, batches: list[list[Step]], block_size: int, wce: int) -> None:
    """The same with a recorder that writes down all data."""
    tap = Recording()
    worlds = [
        World(device, plain=True, block_size=block_size, wce=wce),
        World(device, plain=False, block_size=block_size, wce=wce, tap=tap),
    ]
    try:
        for batch in batches:
            plain, recorded = (world.run(batch) for world in worlds)
            assert recorded == plain
        assert tap.failures == []
        assert tap.seen == sum(map(len, batches))
    finally:
        tap.close()
        for world in worlds:
            world.close()


def check_tap(device: str, batches: list[list[Step]], block_size: int, wce: int) -> None:
    """Run the batches in a world without lanes, and in one with lanes and a tap, and compare."""
    tap = Idle()
    worlds = [
        World(device, plain=True, block_size=block_size, wce=wce),
        World(device, plain=False, block_size=block_size, wce=wce, tap=tap),
    ]
    try:
        for batch in batches:
            plain, tapped = (world.run(batch) for world in worlds)
            assert tapped == plain
            assert worlds[1].content() == worlds[0].content()
        assert worlds[1].taken == 0
        assert tap.seen == sum(map(len, batches))
        assert tap.open == []
    finally:
        for world in worlds:
            world.close()


_blocks = st.sampled_from([512, 512, 4096])
_BLK_KINDS = [0, 0, 1, 1, 4, 8, 99]
_SCSI_KINDS = [0x28, 0x28, 0x2A, 0x2A, 0x88, 0x8A, 0x00, 0x12, 0x83]


@settings(max_examples=300, deadline=None)
@given(
    batches=st.lists(st.lists(steps(_BLK_KINDS), min_size=1, max_size=BATCH), min_size=1, max_size=3),
    block_size=_blocks,
    wce=st.sampled_from([1, 1, 0]),
)
def test_blk_lane_does_what_the_plain_way_does(batches: list[list[Step]], block_size: int, wce: int) -> None:
    """Status, used length, data, disk: all the same."""
    check("blk", batches, block_size, wce)


@settings(max_examples=300, deadline=None)
@given(
    batches=st.lists(st.lists(steps(_BLK_KINDS), min_size=1, max_size=BATCH), min_size=1, max_size=3),
    block_size=_blocks,
)
def test_reads_that_the_blk_lane_only_begins_are_the_same(batches: list[list[Step]], block_size: int) -> None:
    """With some that cannot be begun, and some that end badly and are done again."""
    check("blk", batches, block_size, 1, beside=Beside())


def test_a_read_that_was_begun_and_fails_is_an_io_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """In the plain way's own words: nothing was written."""
    beside = Beside()
    world = World("blk", plain=False, block_size=512, wce=1, beside=beside)

    def broken(*_: object) -> None:
        raise OSError(errno.EIO, "broken")

    monkeypatch.setattr(world.disk, "read", broken)
    beside.asked = 2  # the next ends badly
    try:
        ((written, data),) = world.run([Step(0, 0, 4096, 1, "usual", 0, 0, 0)])
        assert (written, data[-1:]) == (0, bytes([blk.Status.IOERR]))
    finally:
        world.close()


def test_the_blk_lane_begins_reads_and_a_log_knows_what_they_filled() -> None:
    """Also a log that was begun after them."""
    beside = Beside()
    world = World("blk", plain=False, block_size=512, wce=1, beside=beside)
    device = world.device._queues._started[0][0]
    marked: list[tuple[int, int]] = []
    finish = beside.finish

    def log_and_finish() -> None:
        assert (beside.asked, device.in_flight) == (1, 1)
        device._ring.memory.mark_written = lambda *span: marked.append(span)
        finish()

    beside.finish = log_and_finish  # type: ignore[method-assign]
    try:
        (found,) = world.run([Step(0, 0, 4096, 5, "apart", 0, 0, 0)])
        assert found == (4097, world.content()[:4096] + b"\0")
        assert sum(length for _, length in marked) == 4097
        assert device.in_flight == 0
    finally:
        world.close()


@settings(max_examples=300, deadline=None)
@given(
    batches=st.lists(st.lists(steps(_SCSI_KINDS), min_size=1, max_size=BATCH), min_size=1, max_size=3),
    block_size=_blocks,
)
def test_scsi_lane_does_what_the_plain_way_does(batches: list[list[Step]], block_size: int) -> None:
    """Response, sense, residual, used length, data, disk: all the same."""
    check("scsi", batches, block_size, 1)


@settings(max_examples=200, deadline=None)
@given(
    device=st.sampled_from(["blk", "scsi"]),
    data=st.data(),
    block_size=_blocks,
    wce=st.sampled_from([1, 0]),
)
def test_a_tap_that_decides_nothing_changes_nothing(
    device: str, data: st.DataObject, block_size: int, wce: int
) -> None:
    """It sees every request taken and ended, malformed ones too, and no lane is open."""
    kinds = _BLK_KINDS if device == "blk" else _SCSI_KINDS
    batch = st.lists(steps(kinds), min_size=1, max_size=BATCH)
    check_tap(device, data.draw(st.lists(batch, min_size=1, max_size=3)), block_size, wce)


@settings(max_examples=60, deadline=None)
@given(device=st.sampled_from(["blk", "scsi"]), data=st.data(), block_size=_blocks)
def test_recording_changes_nothing_and_never_fails(device: str, data: st.DataObject, block_size: int) -> None:
    """Malformed requests too."""
    kinds = _BLK_KINDS if device == "blk" else [*_SCSI_KINDS, 0x84, 0x42, 0x9E, 0xFF, 0x7F]
    batch = st.lists(steps(kinds), min_size=1, max_size=BATCH)
    check_recorder(device, data.draw(st.lists(batch, min_size=1, max_size=3)), block_size, 1)


@pytest.mark.parametrize(("device", "kinds"), [("blk", (0, 1)), ("scsi", (0x28, 0x2A, 0x88, 0x8A))])
@pytest.mark.parametrize("table", [0, None])
def test_the_lane_takes_the_usual_requests(device: str, kinds: tuple[int, ...], table: int | None) -> None:
    """In the ring only of three descriptors, in a table of any number: or the comparison would compare nothing."""
    batch = [Step(kind, 0, 4096, 1, "usual", table, 0, 0) for kind in kinds]
    assert check(device, [batch], 512, 1) == len(kinds)
    if table is not None:
        long = [Step(kind, 0, 4096, 5, style, table, 0, 0) for kind in kinds for style in ("usual", "apart")]
        assert check(device, [long[:BATCH], long[BATCH:]] if len(long) > BATCH else [long], 512, 1) == len(
            long
        )


def test_descriptors_are_given_only_in_order() -> None:
    """A table whose descriptors are chained otherwise is none of the lane's business."""
    ram = GuestRam(1 << 20)
    memory = ram.memory()
    queue = DriverQueue(ram, 8)
    pieces = [Piece(ram.allocate(16), 16, writable=n > 0) for n in range(4)]
    request = queue.post(pieces, indirect=0)
    memory.views(ram.base, 1)  # what was used last is where the lane looks
    assert request.table is not None
    found = descriptors_of([request.head], queue.ring(memory), memory.recent)
    assert found[0] is not None
    assert found[0][0::4] == tuple(piece.gpa for piece in pieces)
    ram.write(request.table.gpa + 14, b"\2\0")  # the first leads to the third
    assert descriptors_of([request.head], queue.ring(memory), memory.recent) == [None]
    ram.close()
