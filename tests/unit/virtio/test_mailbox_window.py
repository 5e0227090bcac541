"""The edges of the mailbox window, and everything in it that is no request and no response."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import mailbox_pages as pages
import pytest
from mailbox_bench import LENGTH, PLACE, Bench, slot

from qemu_odx.disk.memory import memory_disk
from qemu_odx.testing.ram import GuestRam
from qemu_odx.testing.runner import InlineRunner
from qemu_odx.virtio.blk import BlkDevice
from qemu_odx.wire.mailbox import Result
from qemu_odx.wire.virtio import blk as wire
from qemu_odx.wire.virtio.blk import RequestType, Status

if TYPE_CHECKING:
    from collections.abc import Iterator

INQUIRY = bytes.fromhex("120000006000")
END = PLACE + LENGTH


@pytest.fixture
def filled(mailbox: Bench) -> Bench:
    """A bench whose disk holds something everywhere, under the window too."""
    mailbox.disk.write(0, [b"disk" * (mailbox.disk.size // 4)])
    return mailbox


@pytest.fixture
def big_blocks(ram: GuestRam) -> Iterator[Bench]:
    """A bench on a disk with blocks of 4096 bytes."""
    disk = memory_disk("d4", 1 << 20, block_size=4096)
    yield Bench(ram, disk)
    disk.close()


def test_the_head_page(filled: Bench) -> None:
    """Every row of the table, then zeros."""
    page = filled.read(PLACE, 16384)
    assert page[:16] == b"QEMU-ODX-MAILBOX"
    numbers = [pages.get(page, at, 4) for at in range(16, 48, 4)]
    assert numbers == [1, 16, 16384, 16384, 8192, 8096, 8096, 512]
    assert [pages.get(page, 48, 8), pages.get(page, 56, 8)] == [PLACE, LENGTH]
    assert page[64:80] == filled.target.units[0].naa
    assert page[80:100] == filled.disk.serial.encode().ljust(20, b"\0")
    assert pages.get(page, 120, 4) == 30
    assert not any(page[100:120])
    assert not any(page[128:])


def test_a_disk_of_large_blocks(big_blocks: Bench) -> None:
    """The head says so, and a request is a whole block."""
    assert pages.get(big_blocks.read(PLACE, 4096), 44, 4) == 4096
    assert big_blocks.result(pages.request(INQUIRY, wanted=36)) == Result.EXECUTED


def test_request_areas_read_as_zeros(filled: Bench) -> None:
    """Also after a request."""
    filled.send(pages.request(INQUIRY))
    assert filled.read(slot(0), 8192) == bytes(8192)


def test_response_areas_of_unused_slots_are_zeros(filled: Bench) -> None:
    """All sixteen."""
    assert [filled.read(slot(number) + 8192, 8192) for number in range(16)] == [bytes(8192)] * 16


def test_any_part_of_a_response_can_be_read(filled: Bench) -> None:
    """Sector by sector it is the same as in one go."""
    filled.send(pages.request(INQUIRY, wanted=96), 15)
    area = filled.answer(15)
    assert any(area[:96])
    assert b"".join(filled.read(slot(15) + 8192 + at, 512) for at in range(0, 8192, 512)) == area


@pytest.mark.parametrize(
    ("offset", "length"),
    [
        (PLACE, 512),
        (PLACE, 16384),
        (PLACE + 8192, 16384),
        (slot(0) + 8192, 8192),
        (slot(0) + 8192, 16384),
        (slot(0) + 512, 512),
        (slot(3) + 512, 16384),
        (slot(15) + 512, 512),
    ],
    ids=[
        *("head", "whole head", "head and slot 0", "response", "response and next slot"),
        *("inside a request", "inside and next slot", "inside the last"),
    ],
)
def test_writes_that_are_no_request_are_ignored(filled: Bench, offset: int, length: int) -> None:
    """They succeed, though a request would stand at each slot they reach; no slot and no byte changes."""
    page = pages.request(INQUIRY)
    data = bytearray(length)
    for number in range(16):
        if offset <= slot(number) < offset + length:
            at = slot(number) - offset
            data[at : at + len(page)] = page
    shown, image = filled.read(PLACE, LENGTH), filled.image()
    filled.write(offset, bytes(data))
    assert filled.read(PLACE, LENGTH) == shown
    assert filled.image() == image


def test_a_request_may_be_as_long_as_the_window(filled: Bench) -> None:
    """From the first byte of slot 0 over all others: one request, in slot 0 only."""
    page = pages.request(INQUIRY).ljust(16384, b"\xee") * 16
    filled.write(slot(0), page)
    assert pages.get(filled.answer(0), 0, 4)
    assert not any(filled.read(slot(1), END - slot(1)))


def test_a_read_across_both_edges(filled: Bench) -> None:
    """Disk, window, disk."""
    data = filled.read(PLACE - 512, LENGTH + 1024)
    assert data[:512] == data[-512:] == b"disk" * 128
    assert data[512:-512] == filled.read(PLACE, LENGTH)


def test_a_write_across_the_front_edge(filled: Bench) -> None:
    """The part outside is written; the part inside goes on in the head page and is no request, however long."""
    data = bytearray(b"\x77" * (512 + 16384 + 512))
    data[512 + 16384 :] = pages.request(INQUIRY).ljust(512, b"\0")
    shown = filled.read(PLACE, LENGTH)
    filled.write(PLACE - 512, bytes(data))
    assert filled.image(PLACE - 512, 1024) == b"\x77" * 512 + b"disk" * 128
    assert filled.read(PLACE, LENGTH) == shown


def test_a_write_across_the_far_edge(filled: Bench) -> None:
    """It starts a request in the last slot and goes on behind the window: both are done."""
    page = pages.request(INQUIRY).ljust(16384, b"\xee")
    filled.write(slot(15), page + b"\x77" * 512)
    assert filled.answer(15)[:4] == pages.RESPONSE
    assert filled.image(END - 512, 1536) == b"disk" * 128 + b"\x77" * 512 + b"disk" * 128


def test_a_write_across_both_edges(filled: Bench) -> None:
    """Its two ends are on the disk, its middle nowhere."""
    filled.write(PLACE - 512, b"\x77" * (LENGTH + 1024))
    expected = b"\x77" * 512 + b"disk" * (LENGTH // 4) + b"\x77" * 512
    assert filled.image(PLACE - 512, LENGTH + 1024) == expected
    assert not any(filled.read(slot(0), END - slot(0)))


def test_neighbours_are_ordinary_disk(filled: Bench) -> None:
    """The sectors before and behind."""
    for offset in (PLACE - 512, END):
        filled.write(offset, b"\x77" * 512)
        assert filled.read(offset, 512) == filled.image(offset, 512) == b"\x77" * 512


@pytest.mark.parametrize("kind", [RequestType.DISCARD, RequestType.WRITE_ZEROES])
@pytest.mark.parametrize(
    ("offset", "length"),
    [
        (PLACE - 65536, LENGTH + 131072),
        (PLACE - 4096, 8192),
        (END - 4096, 8192),
        (PLACE, LENGTH),
        (0, 1 << 20),
    ],
    ids=["over", "front", "far", "just", "all"],
)
def test_discards_leave_the_window(filled: Bench, kind: RequestType, offset: int, length: int) -> None:
    """Outside zeros, inside the same responses, and beneath the same bytes."""
    filled.send(pages.request(INQUIRY, wanted=96))
    shown = filled.read(PLACE, LENGTH)
    expected = bytearray(filled.image())
    for at in range(offset, offset + length, 512):
        if not PLACE <= at < END:
            expected[at : at + 512] = bytes(512)
    segment = wire.SEGMENT.pack(offset // 512, length // 512, 0)
    assert filled.do(kind, 0, segment) == (Status.OK, b"")
    assert filled.image() == expected
    assert filled.read(PLACE, LENGTH) == shown


def test_requests_of_nothing(filled: Bench) -> None:
    """No data at the first byte of a slot, or elsewhere in the window, is no request."""
    for offset in (PLACE, slot(0), slot(0) + 512, END):
        assert filled.do(RequestType.OUT, offset) == (Status.OK, b"")
        assert filled.do(RequestType.IN, offset) == (Status.OK, b"")
    assert not any(filled.read(slot(0), 16384))


def test_the_express_lane_keeps_out(filled: Bench) -> None:
    """A batch of plain requests among which some touch the window: each gets what it should."""
    header = wire.HEADER.pack
    places = [0, PLACE, slot(0), PLACE - 512, END, slot(7) + 8192]
    reads = [
        filled.queue.post(
            filled.queue._out(header(RequestType.IN, 0, at // 512), ()) + filled.queue._in(513, (512,))
        )
        for at in places
    ]
    filled.queue.publish()
    filled.queue.completions()
    data = [read.data_in[:512] for read in reads]
    assert data[0] == data[3] == data[4] == b"disk" * 128
    assert data[1][:16] == b"QEMU-ODX-MAILBOX"
    assert data[2] == data[5] == bytes(512)


def test_what_scsi_sees_there(filled: Bench) -> None:
    """READ by the mailbox of the sectors of the mailbox: what the image holds."""
    initiator = filled.client().initiator()
    assert initiator.read(0, PLACE // 512, 8).data == b"disk" * 1024


def test_without_a_mailbox_it_is_plain_disk(filled: Bench) -> None:
    """The same disk behind a device without one, before and after."""
    filled.send(pages.request(INQUIRY))
    filled.write(PLACE, b"lost" * 1024)
    filled.device = BlkDevice(filled.disk, InlineRunner())
    with contextlib.closing(GuestRam(4 << 20)) as another:
        filled.queue = filled._queue(another, 0)
        assert filled.read(PLACE, LENGTH) == b"disk" * (LENGTH // 4)
        filled.write(slot(0), pages.request(INQUIRY).ljust(512, b"\0"))
        assert filled.read(slot(0), 512) == pages.request(INQUIRY).ljust(512, b"\0")


def test_a_disk_that_fails_beside_the_window(filled: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """A write across the front edge fails; the device goes on."""

    def fail(*_: object) -> None:
        raise OSError(5, "no")

    monkeypatch.setattr(filled.disk, "write", fail)
    assert filled.do(RequestType.OUT, PLACE - 512, bytes(1024))[0] == Status.IOERR
    assert filled.result(pages.request(INQUIRY)) == Result.EXECUTED


def test_reservations_do_not_lock_the_mailbox(ram: GuestRam) -> None:
    """Who is kept from the disk still reaches the mailbox, where the target says what is allowed."""
    disk = memory_disk("d0", 1 << 20)
    bench = Bench(ram, disk, kept_out=lambda _writing: True)
    assert bench.do(RequestType.OUT, 0, bytes(512))[0] == Status.IOERR
    assert bench.do(RequestType.IN, PLACE - 512, room=1024)[0] == Status.IOERR
    assert bench.do(RequestType.OUT, END - 512, bytes(1024))[0] == Status.IOERR
    assert bench.result(pages.request(INQUIRY)) == Result.EXECUTED
    disk.close()
