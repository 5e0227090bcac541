"""virtio-blk: what each request does to the disk, to guest memory and to the status byte."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

import pytest

from qemu_odx.disk.memory import memory_disk
from qemu_odx.testing.driver import DriverQueue, Piece, Request
from qemu_odx.testing.runner import HeldRunner, InlineRunner
from qemu_odx.virtio.blk import MAX_SEGMENT_SECTORS, MAX_SEGMENTS, BlkDevice
from qemu_odx.wire.virtio import blk as wire
from qemu_odx.wire.virtio.blk import RequestType, Status

if TYPE_CHECKING:
    from collections.abc import Iterator

    from qemu_odx.disk.file import FileDisk
    from qemu_odx.testing.ram import GuestRam

_SECTORS = 2048
_CACHE_BITS = wire.F_FLUSH | wire.F_CONFIG_WCE


class Bench:
    """A device on a memory disk, its first queue, and a log of what the disk was told."""

    def __init__(self, ram: GuestRam, disk: FileDisk, *, held: bool = False) -> None:
        self.disk = disk
        self.runner = HeldRunner()
        self.device = BlkDevice(disk, self.runner if held else InlineRunner(), num_queues=2)
        self.device.set_features(_CACHE_BITS)
        self.queue = DriverQueue(ram, 64, kick=lambda: self.device.kick(0))
        self.device.start_queue(0, self.queue.ring(ram.memory()))

    def do(self, kind: int, sector: int = 0, data: bytes = b"", in_length: int = 0) -> Request:
        """A request in the usual layout."""
        return self.queue.execute(wire.HEADER.pack(kind, 0, sector) + data, in_length + 1)

    def status(self, kind: int, sector: int = 0, data: bytes = b"", in_length: int = 0) -> int:
        """Its status."""
        return self.do(kind, sector, data, in_length).data_in[-1]

    def content(self, offset: int, length: int) -> bytes:
        """What the disk holds."""
        data = bytearray(length)
        self.disk.read(offset, [memoryview(data)])
        return bytes(data)


@pytest.fixture
def disk() -> Iterator[FileDisk]:
    """A disk of 1 MiB."""
    disk = memory_disk("d0", _SECTORS * 512)
    yield disk
    disk.close()


@pytest.fixture
def bench(ram: GuestRam, disk: FileDisk) -> Bench:
    """A device whose slow work runs at once."""
    return Bench(ram, disk)


@pytest.fixture
def big_blocks(ram: GuestRam) -> Iterator[Bench]:
    """A device on a disk with blocks of 4096 bytes."""
    disk = memory_disk("d4", _SECTORS * 512, block_size=4096)
    yield Bench(ram, disk)
    disk.close()


def test_write_and_read(bench: Bench) -> None:
    """OUT puts bytes on the disk, IN gets them back; lengths count data and status."""
    data = bytes(range(256)) * 4
    assert (bench.do(RequestType.OUT, 5, data).written, bench.content(5 * 512, 1024)) == (1, data)
    request = bench.do(RequestType.IN, 5, in_length=1024)
    assert (request.data_in, request.written) == (data + b"\0", 1025)


@pytest.mark.parametrize(
    ("cuts_out", "cuts_in"), [((1, 9), (511,)), ((16,), ()), ((), (512,)), ((15, 16, 16), (1, 1))]
)
def test_any_layout(bench: Bench, cuts_out: tuple[int, ...], cuts_in: tuple[int, ...]) -> None:
    """The header may be cut anywhere, the status may share its descriptor with data."""
    bench.do(RequestType.OUT, 0, b"\x5a" * 512)
    request = bench.queue.submit(
        wire.HEADER.pack(RequestType.IN, 0, 0), 513, cuts_out=cuts_out, cuts_in=cuts_in
    )
    bench.queue.completions()
    assert request.data_in == b"\x5a" * 512 + b"\0"


def test_header_and_data_in_one_descriptor(bench: Bench) -> None:
    """OUT with everything readable in one piece."""
    bench.queue.submit(wire.HEADER.pack(RequestType.OUT, 0, 1) + b"\x77" * 512, 1, indirect=0)
    assert bench.content(512, 512) == b"\x77" * 512


@pytest.mark.parametrize(
    ("sector", "length"),
    [(_SECTORS, 512), (_SECTORS - 1, 1024), (1 << 63, 512), ((1 << 64) - 1, 512), (0, 511), (0, 1)],
    ids=["behind the end", "over the end", "huge", "wrapping", "cut sector", "one byte"],
)
@pytest.mark.parametrize("kind", [RequestType.IN, RequestType.OUT])
def test_bad_range(bench: Bench, kind: RequestType, sector: int, length: int) -> None:
    """A range outside the disk or of odd length fails, moves nothing and claims nothing."""
    before = bench.content(0, _SECTORS * 512)
    if kind is RequestType.IN:
        request = bench.do(kind, sector, in_length=length)
        assert request.written == 0
    else:
        request = bench.do(kind, sector, b"\xee" * length)
        assert request.written == 1
    assert request.data_in[-1] == Status.IOERR
    assert bench.content(0, _SECTORS * 512) == before


def test_last_sector(bench: Bench) -> None:
    """The last sector is part of the disk."""
    assert bench.status(RequestType.OUT, _SECTORS - 1, b"z" * 512) == Status.OK


def test_nothing_to_transfer(bench: Bench) -> None:
    """Reads and writes of no data succeed."""
    assert bench.status(RequestType.IN) == bench.status(RequestType.OUT) == Status.OK


@pytest.mark.parametrize(
    ("sector", "length", "status"), [(8, 4096, 0), (1, 4096, 1), (0, 512, 1), (8, 512, 1)]
)
def test_whole_blocks_only(big_blocks: Bench, sector: int, length: int, status: int) -> None:
    """With blocks of 4096 bytes everything is in multiples of them, in units of 512-byte sectors."""
    assert big_blocks.status(RequestType.IN, sector, in_length=length) == status
    assert big_blocks.status(RequestType.OUT, sector, b"q" * length) == status


def test_io_error(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """A failure of the host is IOERR."""

    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, "no space")

    monkeypatch.setattr(bench.disk, "write", fail)
    assert bench.status(RequestType.OUT, 0, b"x" * 512) == Status.IOERR


def test_id(bench: Bench) -> None:
    """GET_ID: 20 bytes, padded with NUL; a shorter buffer gets the beginning, a longer one no more."""
    serial = bench.disk.serial.encode().ljust(20, b"\0")
    assert bench.do(RequestType.GET_ID, in_length=20).data_in == serial + b"\0"
    assert bench.do(RequestType.GET_ID, in_length=4).data_in == serial[:4] + b"\0"
    assert bench.do(RequestType.GET_ID, in_length=64).written == 20


@pytest.mark.parametrize("kind", [2, 10, 14, 15, 26, 3, 0x8000_0000, 0xFFFF_FFFF])
def test_unknown_request(bench: Bench, kind: int) -> None:
    """SCSI commands, lifetime, secure erase, zones and whatever else: UNSUPP."""
    assert bench.status(kind, in_length=512) == Status.UNSUPP


# -- discard and write zeroes ----------------------------------------------------------------------


def _segments(*segments: tuple[int, int, int]) -> bytes:
    return b"".join(wire.SEGMENT.pack(*segment) for segment in segments)


@pytest.mark.parametrize(
    ("kind", "flags"),
    [(RequestType.DISCARD, 0), (RequestType.WRITE_ZEROES, 0), (RequestType.WRITE_ZEROES, 1)],
)
def test_ranges_become_zero(bench: Bench, kind: RequestType, flags: int) -> None:
    """Every segment reads as zeros afterwards, its neighbours are untouched."""
    bench.do(RequestType.OUT, 0, b"\xab" * 512 * 40)
    assert bench.status(kind, 0, _segments((8, 8, flags), (24, 8, flags))) == Status.OK
    zeros, data = bytes(512 * 8), b"\xab" * 512 * 8
    assert bench.content(0, 512 * 40) == data + zeros + data + zeros + data


@pytest.mark.parametrize(
    ("kind", "payload", "status"),
    [
        (RequestType.DISCARD, _segments((0, 8, 1)), Status.UNSUPP),
        (RequestType.DISCARD, _segments((0, 8, 2)), Status.UNSUPP),
        (RequestType.WRITE_ZEROES, _segments((0, 8, 2)), Status.UNSUPP),
        (RequestType.WRITE_ZEROES, _segments((0, 8, 0x8000_0001)), Status.UNSUPP),
        (RequestType.DISCARD, _segments(*[(0, 1, 0)] * (MAX_SEGMENTS + 1)), Status.UNSUPP),
        (RequestType.DISCARD, _segments((0, MAX_SEGMENT_SECTORS + 1, 0)), Status.IOERR),
        (RequestType.DISCARD, _segments((0, 8, 0), (_SECTORS, 1, 0)), Status.IOERR),
        (RequestType.WRITE_ZEROES, _segments((0, 8, 0), ((1 << 64) - 1, 8, 0)), Status.IOERR),
        (RequestType.WRITE_ZEROES, _segments((0, 8, 0))[:-1], Status.IOERR),
        (RequestType.WRITE_ZEROES, b"", Status.IOERR),
    ],
)
def test_refused_ranges(bench: Bench, kind: RequestType, payload: bytes, status: Status) -> None:
    """Bad flags are not supported, bad ranges are errors; then no segment at all was run."""
    bench.do(RequestType.OUT, 0, b"\xab" * 4096)
    assert bench.status(kind, 0, payload) == status
    assert bench.content(0, 4096) == b"\xab" * 4096


def test_most_segments(bench: Bench) -> None:
    """As many segments as the configuration says are taken."""
    assert (
        bench.status(RequestType.DISCARD, 0, _segments(*[(n, 1, 0) for n in range(MAX_SEGMENTS)]))
        == Status.OK
    )


def test_segment_list_is_read_once(ram: GuestRam, disk: FileDisk) -> None:
    """A segment list changed after the check has no effect."""
    bench = Bench(ram, disk, held=True)
    disk.write(0, [b"\xab" * 8192])
    request = bench.queue.submit(
        wire.HEADER.pack(RequestType.DISCARD, 0, 0) + _segments((0, 8, 0), (8, 0, 0)), 1
    )
    ram.write(request.pieces[0].gpa + 16, _segments((8, 8, 0), (8, 8, 0)))
    bench.runner.run_all()
    assert bench.content(0, 8192) == bytes(4096) + b"\xab" * 4096


def test_failed_segment_ends_the_request(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """The segments after one that failed are not run."""
    tried: list[int] = []

    def fail(offset: int, _length: int) -> None:
        tried.append(offset)
        raise OSError(errno.EIO, "bad disk")

    monkeypatch.setattr(bench.disk, "discard", fail)
    assert bench.status(RequestType.DISCARD, 0, _segments((0, 8, 0), (8, 8, 0))) == Status.IOERR
    assert tried == [0]


# -- read-only -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "payload"),
    [
        (RequestType.OUT, b"x" * 512),
        (RequestType.DISCARD, _segments((0, 8, 0))),
        (RequestType.WRITE_ZEROES, _segments((0, 8, 0))),
    ],
)
def test_readonly(bench: Bench, kind: RequestType, payload: bytes) -> None:
    """Nothing changes a read-only disk; reads and flushes go on."""
    bench.do(RequestType.OUT, 0, b"\xab" * 4096)
    bench.disk.readonly = True
    assert bench.status(kind, 0, payload) == Status.IOERR
    assert bench.content(0, 4096) == b"\xab" * 4096
    assert bench.status(RequestType.IN, 0, in_length=512) == bench.status(RequestType.FLUSH) == Status.OK


def test_readonly_features(bench: Bench) -> None:
    """RO replaces DISCARD and WRITE_ZEROES; SIZE_MAX is never there."""
    assert wire.FEATURE_NAMES[1] == "SIZE_MAX"
    writable = bench.device.features
    bench.disk.readonly = True
    readonly = bench.device.features
    assert (
        writable & (wire.F_RO | wire.F_DISCARD | wire.F_WRITE_ZEROES) == wire.F_DISCARD | wire.F_WRITE_ZEROES
    )
    assert readonly & (wire.F_RO | wire.F_DISCARD | wire.F_WRITE_ZEROES) == wire.F_RO
    assert (writable | readonly) & 1 << 1 == 0


# -- stability -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("acked", "wce", "stable"),
    [
        (0, 1, True),
        (wire.F_FLUSH, 1, False),
        (wire.F_FLUSH, 0, False),
        (_CACHE_BITS, 1, False),
        (_CACHE_BITS, 0, True),
        (wire.F_CONFIG_WCE, 1, False),
        (wire.F_CONFIG_WCE, 0, True),
    ],
)
def test_write_through(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, acked: int, wce: int, stable: bool
) -> None:
    """A driver that cannot or need not flush has its writes flushed before they are completed."""
    flushed: list[int] = []
    monkeypatch.setattr(bench.disk, "flush", lambda: flushed.append(bench.queue.used_pending()))
    bench.device.set_features(acked)
    bench.device.write_config(wire.CONFIG_WCE_OFFSET, bytes([wce]))
    assert bench.status(RequestType.OUT, 0, b"x" * 512) == Status.OK
    assert flushed == ([0] if stable else [])


def test_zeroes_are_written_through(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Write zeroes is a write too: one flush after its last segment."""
    flushed: list[bytes] = []
    monkeypatch.setattr(bench.disk, "flush", lambda: flushed.append(bench.content(0, 1024)))
    bench.do(RequestType.OUT, 0, b"x" * 1024)
    bench.device.set_features(0)
    assert bench.status(RequestType.WRITE_ZEROES, 0, _segments((0, 1, 0), (1, 1, 0))) == Status.OK
    assert flushed == [bytes(1024)]


def test_reset_means_write_through(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a reset no driver has promised to flush."""
    flushed: list[int] = []
    monkeypatch.setattr(bench.disk, "flush", lambda: flushed.append(1))
    bench.device.reset()
    bench.do(RequestType.OUT, 0, b"x" * 512)
    assert flushed == [1]


def test_failed_flush_fails_the_write(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """With write-through a write that could not be flushed is IOERR."""

    def fail() -> None:
        raise OSError(errno.EIO, "bad disk")

    monkeypatch.setattr(bench.disk, "flush", fail)
    bench.device.set_features(0)
    assert bench.status(RequestType.OUT, 0, b"x" * 512) == Status.IOERR
    assert bench.status(RequestType.FLUSH) == Status.IOERR


# -- malformed -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("out", "in_length"), [(15, 1), (0, 513), (16, 0), (528, 0), (0, 1)])
def test_no_header_or_no_status(bench: Bench, out: int, in_length: int) -> None:
    """Without a header, or a place for the status, the request is completed with length 0; nothing is run."""
    before = bench.content(0, 4096)
    data = (wire.HEADER.pack(RequestType.OUT, 0, 0) + b"\xff" * 512)[:out]
    request = bench.queue.execute(data, in_length)
    assert request.written == 0
    assert request.data_in == bytes(in_length)
    assert bench.content(0, 4096) == before
    assert bench.status(RequestType.FLUSH) == Status.OK


def test_bad_buffer(bench: Bench, ram: GuestRam) -> None:
    """A data buffer outside guest memory is IOERR, as long as the status can be reached."""
    header = ram.allocate(16)
    ram.write(header, wire.HEADER.pack(RequestType.OUT, 0, 0))
    status = ram.allocate(1)
    bench.queue.post([Piece(header, 16), Piece(1 << 60, 512), Piece(status, 1, writable=True)])
    bench.queue.publish()
    assert bench.queue.take_used()[1] == 1
    assert ram.read(status, 1) == bytes([Status.IOERR])


def test_status_out_of_reach(bench: Bench, ram: GuestRam) -> None:
    """A status byte outside guest memory: completed with length 0."""
    header = ram.allocate(16)
    bench.queue.post([Piece(header, 16), Piece(1 << 60, 1, writable=True)])
    bench.queue.publish()
    assert bench.queue.take_used()[1] == 0


# -- configuration and queues ----------------------------------------------------------------------


def test_config(bench: Bench) -> None:
    """Capacity in sectors, block size, queues; 512-byte blocks in physical ones of 4 KiB."""
    expected = wire.BlkConfig(_SECTORS, 254, 512, 3, 8, 0, 1, 2, 1 << 22, 16, 8, 1 << 22, 16, 1)
    assert bench.device.config() == expected.pack()


def test_config_of_big_blocks(big_blocks: Bench) -> None:
    """4096-byte blocks are physical ones."""
    expected = wire.BlkConfig(_SECTORS, 254, 4096, 0, 1, 0, 1, 2, 1 << 22, 16, 8, 1 << 22, 16, 1)
    assert big_blocks.device.config() == expected.pack()


def test_wce_outlives_reset(bench: Bench) -> None:
    """QEMU goes on showing the guest what was written last, so the device keeps to it."""
    bench.device.write_config(32, b"\0")
    bench.device.reset()
    bench.device.disconnected()
    assert bench.device.config()[32] == 0


@pytest.mark.parametrize(
    ("offset", "data"), [(0, bytes(8)), (32, b"\2"), (32, b"\0\0"), (31, b"\0"), (32, b"")]
)
def test_refused_config_write(bench: Bench, offset: int, data: bytes) -> None:
    """Nothing but wce, and only 0 or 1."""
    with pytest.raises(ValueError, match="only wce"):
        bench.device.write_config(offset, data)


def test_kick_of_a_queue_that_is_not_started(bench: Bench) -> None:
    """Any guest can kick any queue."""
    bench.device.kick(1)
    bench.device.kick(200)
    assert bench.status(RequestType.FLUSH) == Status.OK


def test_stop_waits_for_the_disk(ram: GuestRam, disk: FileDisk) -> None:
    """A queue stops when the last request on a worker is completed."""
    bench = Bench(ram, disk, held=True)
    bench.queue.submit(wire.HEADER.pack(RequestType.FLUSH, 0, 0), 1)
    stopped: list[int] = []
    bench.device.stop_queue(0, stopped.append)
    assert stopped == []
    bench.runner.run_all()
    assert stopped == [1]
    assert bench.queue.used_pending() == 1


def test_queues_are_independent(bench: Bench, ram: GuestRam) -> None:
    """A broken queue leaves the other one alone."""
    other = DriverQueue(ram, 8, kick=lambda: bench.device.kick(1))
    bench.device.start_queue(1, other.ring(ram.memory()))
    other.set_avail_index(1000)
    other.kick()
    assert bench.status(RequestType.FLUSH) == Status.OK
