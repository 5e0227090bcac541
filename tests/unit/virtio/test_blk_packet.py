"""The legacy SCSI packet request of virtio-blk."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from qemu_odx.testing.driver import DriverQueue, Request
from qemu_odx.testing.runner import InlineRunner
from qemu_odx.virtio.blk import BlkDevice
from qemu_odx.wire.scsi.token_lists import Range
from qemu_odx.wire.virtio import blk as wire
from qemu_odx.wire.virtio.blk import RequestType, Status

if TYPE_CHECKING:
    from mailbox_bench import Bench

    from qemu_odx.testing.ram import GuestRam

END = 96 + 16 + 1
TEST_UNIT_READY = bytes(6)
INQUIRY = bytes.fromhex("120000006000")
WRITE_10 = bytes.fromhex("2a000000000000000100")


def packet(bench: Bench, cdb: bytes, data_out: bytes = b"", room: int = 0) -> Request:
    """Post it with the borders that the legacy interface asks for, and wait."""
    header = wire.HEADER.pack(RequestType.SCSI_CMD, 0, 0)
    request = bench.queue.submit(
        header + cdb + data_out,
        room + END,
        cuts_out=[16, 16 + len(cdb)] if data_out else [16],
        cuts_in=[room, room + 96, room + 112] if room else [96, 112],
    )
    while not bench.queue.completions():
        bench.copies.step()
    return request


def end(request: Request) -> tuple[bytes, list[int], int]:
    """Sense, {errors, data length, sense length, residual}, status."""
    tail = request.data_in[-END:]
    numbers = [int.from_bytes(tail[at : at + 4], "little") for at in range(96, 112, 4)]
    return tail[:96], numbers, tail[112]


def test_a_command_without_data(mailbox: Bench) -> None:
    """The unit attention first: errors is CHECK CONDITION, the sense has its length; then GOOD."""
    sense, numbers, status = end(packet(mailbox, TEST_UNIT_READY))
    assert (numbers, status) == ([2, 0, 18, 0], Status.OK)
    assert (sense[2], sense[12], sense[13]) == (6, 0x29, 0)
    assert not any(sense[18:])
    assert end(packet(mailbox, TEST_UNIT_READY)) == (bytes(96), [0, 0, 0, 0], Status.OK)


@pytest.mark.parametrize(
    ("room", "residual", "written"), [(96, 0, 96 + END), (36, 0, 36 + END), (200, 104, 96)]
)
def test_data_in(mailbox: Bench, room: int, residual: int, written: int) -> None:
    """Before the sense; the residual is what was not filled, and no more than was written is claimed."""
    request = packet(mailbox, INQUIRY, room=room)
    assert end(request)[1:] == ([0, room, 0, residual], Status.OK)
    assert request.data_in[8:16] == b"QEMU_ODX"
    assert request.written == written


def test_data_out(mailbox: Bench) -> None:
    """WRITE of a block, with more data than it takes."""
    packet(mailbox, TEST_UNIT_READY)
    assert end(packet(mailbox, WRITE_10, b"\x77" * 1024))[1:] == ([0, 1024, 0, 512], Status.OK)
    assert mailbox.image(0, 1024) == b"\x77" * 512 + bytes(512)


def test_too_little_data_out_writes_nothing(mailbox: Bench) -> None:
    """And is no success."""
    packet(mailbox, TEST_UNIT_READY)
    request = packet(mailbox, WRITE_10, b"\x77" * 100)
    assert request.data_in[-1] == Status.IOERR
    assert mailbox.image(0, 512) == bytes(512)


def test_it_has_the_nexus_of_the_mailbox(mailbox: Bench) -> None:
    """A token made there is told of here (RECEIVE ROD TOKEN INFORMATION of list identifier 0)."""
    mailbox.client().initiator().token(0, [Range(0, 8)])
    cdb = bytes.fromhex("8407 00000000 00000000 00000400 0000")
    request = packet(mailbox, cdb, room=1024)
    assert end(request)[1][0] == 0
    assert request.data_in[5] & 0x7F in {1, 3}


def test_a_write_of_a_token_waits_for_the_copy(mailbox: Bench) -> None:
    """As through the mailbox."""
    token = mailbox.client().initiator().token(0, [Range(0, 8)])
    ranges = Range(64, 8).packed()
    parameters = (534 + 16).to_bytes(2, "big") + bytes(14) + token + bytes(6) + b"\0\x10" + ranges
    cdb = bytes.fromhex("8311 00000000 00000009") + len(parameters).to_bytes(4, "big") + bytes(2)
    mailbox.disk.write(0, [b"new!" * 1024])
    assert end(packet(mailbox, cdb, parameters))[1:] == ([0, len(parameters), 0, 0], Status.OK)
    assert mailbox.image(64 * 512, 4096) == bytes(4096)


@pytest.mark.parametrize(
    ("out", "cuts_out", "room"),
    [
        (TEST_UNIT_READY, (), END),
        (b"", (), END),
        (TEST_UNIT_READY[:5], (16,), END),
        (bytes(33), (16,), END),
        (TEST_UNIT_READY, (15,), END),
        (TEST_UNIT_READY, (16,), END - 1),
        (TEST_UNIT_READY, (16,), 1),
        (TEST_UNIT_READY + b"out", (16, 22), END + 1),
    ],
    ids=[
        "one descriptor",
        "no CDB",
        "CDB of 5",
        "CDB of 33",
        "cut header",
        "short end",
        "no end",
        "both ways",
    ],
)
def test_another_shape_fails(mailbox: Bench, out: bytes, cuts_out: tuple[int, ...], room: int) -> None:
    """IOERR, nothing else written; the next one works."""
    header = wire.HEADER.pack(RequestType.SCSI_CMD, 0, 0)
    request = mailbox.queue.submit(header + out, room, cuts_out=cuts_out)
    mailbox.queue.completions()
    assert request.data_in[-1] == Status.IOERR
    assert not any(request.data_in[:-1])
    assert end(packet(mailbox, INQUIRY, room=96))[2] == Status.OK


def test_without_a_mailbox_it_is_unsupported(mailbox: Bench, ram: GuestRam) -> None:
    """Status 2, and no command."""
    device = BlkDevice(mailbox.disk, InlineRunner())
    mailbox.queue = DriverQueue(ram, 64, kick=lambda: device.kick(0))
    device.start_queue(0, mailbox.queue.ring(ram.memory()))
    assert packet(mailbox, INQUIRY, room=96).data_in == bytes(96 + END - 1) + b"\2"
