"""Faults at the virtio-blk door and at the disk, through the real server."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
from fault_rig import FaultRig, fault_rig, held, lasting, stays_open

from qemu_odx.wire.scsi.token_lists import Range, TokenInformation
from qemu_odx.wire.virtio import blk as wire
from qemu_odx.wire.virtio.blk import RequestType, Status

if TYPE_CHECKING:
    from collections.abc import Iterator

    from qemu_odx.testing.driver import Request

KIB = 1024


@pytest.fixture(scope="module")
def module_rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FaultRig]:
    """One server for the module."""
    with fault_rig(tmp_path_factory.mktemp("faults")) as made:
        yield made


@pytest.fixture
def rig(module_rig: FaultRig) -> Iterator[FaultRig]:
    """It, without rules before and after."""
    yield module_rig
    module_rig.faults.clear()
    assert module_rig.server.alive


def post(rig: FaultRig, kind: RequestType, sector: int, data: bytes = b"", room: int = 0) -> Request:
    """A request that is not waited for."""
    return rig.blk.queue.submit(wire.HEADER.pack(kind, 0, sector) + data, room + 1)


def image(rig: FaultRig, sector: int, length: int, name: str = "d0") -> bytes:
    """What the host finds there."""
    with (rig.server.cwd / f"{name}.img").open("rb") as file:
        file.seek(sector * 512)
        return file.read(length)


# -- virtio-blk -----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [RequestType.FLUSH, RequestType.GET_ID, RequestType.OUT, RequestType.IN])
@pytest.mark.parametrize("status", [Status.IOERR, Status.UNSUPP])
def test_blk_status(rig: FaultRig, kind: RequestType, status: Status) -> None:
    """Any request by its name."""
    data, room = (
        (b"n" * 512 if kind is RequestType.OUT else b""),
        {RequestType.IN: 512, RequestType.GET_ID: 20},
    )
    with rig.fault(f"op={kind.name},export=b.sock,action=blk-status,status={status.name}"):
        assert rig.blk.request(kind, 9, data, room.get(kind, 0))[0] == status
    assert image(rig, 9, 512) == bytes(512)


def test_partial_write_and_read(rig: FaultRig) -> None:
    """The first sectors, then IOERR."""
    old, new = os.urandom(8 * 512), os.urandom(8 * 512)
    rig.blk.write(100, old)
    with rig.fault("export=b.sock,action=partial,blocks=3"):
        assert rig.blk.request(RequestType.OUT, 100, new)[0] == Status.IOERR
        assert image(rig, 100, 8 * 512) == new[: 3 * 512] + old[3 * 512 :]
        status, data = rig.blk.request(RequestType.IN, 100, room=8 * 512)
        assert (status, data[: 3 * 512]) == (Status.IOERR, new[: 3 * 512])


def test_short_read_and_bit_flip(rig: FaultRig) -> None:
    """OK, with less data than asked for; OK, with wrong data."""
    data = os.urandom(4 * 512)
    rig.blk.write(200, data)
    with rig.fault("export=b.sock,action=short-read,blocks=1"):
        done = post(rig, RequestType.IN, 200, room=4 * 512)
        rig.wait_for(rig.blk.queue, done)
        assert (done.data_in[-1], done.written) == (Status.OK, 512)
        assert done.data_in[:512] == data[:512]
    with rig.fault("export=b.sock,op=IN,action=bit-flip,byte=600,bit=1"):
        assert rig.blk.read(200, 4 * 512) == data[:600] + bytes([data[600] ^ 2]) + data[601:]
    assert rig.blk.read(200, 4 * 512) == data


def test_stall_and_delay(rig: FaultRig) -> None:
    """Released by the SCSI guest; its time."""
    name = rig.faults.add("export=b.sock,op=OUT,lba=300,action=stall")
    request = post(rig, RequestType.OUT, 300, b"s" * 512)
    held(rig, name)
    assert image(rig, 300, 512) == bytes(512)
    rig.faults.release(name)
    assert rig.wait_for(rig.blk.queue, request).data_in == bytes([Status.OK])
    assert image(rig, 300, 512) == b"s" * 512
    with rig.fault("export=b.sock,op=FLUSH,action=delay,seconds=0.3,when=after"), lasting(0.3):
        request = post(rig, RequestType.FLUSH, 0)
        assert rig.wait_for(rig.blk.queue, request).data_in == bytes([Status.OK])


def test_never_answer_until_the_device_is_reset(rig: FaultRig) -> None:
    """GET_VRING_BASE is answered at once; the write was never done."""
    name = rig.faults.add("export=b.sock,op=OUT,lba=400,action=never-answer")
    request = post(rig, RequestType.OUT, 400, b"s" * 512)
    held(rig, name)
    stays_open(rig.blk.queue, request)
    rig.blk.front.stop()
    rig.faults.remove(name)
    assert rig.wait_for(rig.blk.queue, request).data_in == bytes([Status.IOERR])
    rig.blk.front.start()
    assert rig.blk.read(400, 512) == bytes(512)


# -- the disk -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("op", "kind", "fault"),
    [
        ("disk-read", RequestType.IN, (3, 0x11, 0)),
        ("disk-write", RequestType.OUT, (3, 0x0C, 0)),
        ("disk-flush", RequestType.FLUSH, (3, 0x0C, 0)),
    ],
)
def test_disk_errors(rig: FaultRig, op: str, kind: RequestType, fault: tuple[int, int, int]) -> None:
    """Both doors say so in their own words."""
    data, room = (b"n" * 512 if kind is RequestType.OUT else b""), (512 if kind is RequestType.IN else 0)
    commands = {RequestType.IN: "88", RequestType.OUT: "8a", RequestType.FLUSH: "91"}
    cdb = bytes.fromhex(commands[kind] + "00" + "0000000000000014" + "00000001" + "0000")
    with rig.fault(f"disk=d0,op={op},action=disk-error"):
        assert rig.blk.request(kind, 20, data, room)[0] == Status.IOERR
        assert rig.scsi.initiator.command(0, cdb, data).fault == fault
        assert rig.scsi.initiator.command(1, cdb, data).good
    assert image(rig, 20, 512) == bytes(512)


def test_discards_and_zeroes_fail(rig: FaultRig) -> None:
    """DISCARD, WRITE_ZEROES and UNMAP."""
    rig.blk.write(30, b"k" * 512)
    segment = wire.SEGMENT.pack(30, 1, 0)
    with rig.fault("disk=d0,op=zero,action=disk-error"):
        assert rig.blk.request(RequestType.DISCARD, 0, segment)[0] == Status.IOERR
        assert rig.blk.request(RequestType.WRITE_ZEROES, 0, segment)[0] == Status.IOERR
        assert rig.scsi.initiator.unmap(0, [Range(30, 1)]).fault == (3, 0x0C, 0)
    assert rig.blk.read(30, 512) == b"k" * 512


def test_no_space_for_a_write(rig: FaultRig) -> None:
    """27/07 over SCSI, IOERR over virtio-blk; a token write says that resources are short, having written nothing."""
    initiator = rig.scsi.initiator
    token = initiator.token(1, [Range(0, 8)])
    with rig.fault("disk=d0,action=out-of-space,op=disk-write"):
        assert initiator.write(0, 40, 1, b"w" * 512).fault == (7, 0x27, 7)
        assert rig.blk.request(RequestType.OUT, 40, b"w" * 512)[0] == Status.IOERR
        assert initiator.write_token(0, token, [Range(40, 8)], identifier=5).fault == (0xB, 0x55, 3)
        assert TokenInformation.parse(initiator.information(0, 5).data).status.status == 2
    assert image(rig, 40, 8 * 512) == bytes(8 * 512)


def test_no_space_for_a_snapshot(rig: FaultRig) -> None:
    """POPULATE TOKEN says so in the way that Windows understands."""
    with rig.fault("disk=d0,action=out-of-space,op=disk-snapshot"):
        assert rig.scsi.initiator.populate(0, [Range(0, 8)]).fault == (0xB, 0x55, 3)
    assert rig.scsi.initiator.populate(0, [Range(0, 8)]).good


def test_no_space_in_the_side_file(rig: FaultRig) -> None:
    """The guest's write goes through, the token is cancelled; with reflinks no token is made in the first place."""
    initiator = rig.scsi.initiator
    assert initiator.write(0, 500, 8, b"old!" * KIB).good
    token = initiator.token(0, [Range(500, 8)])
    name = rig.faults.add("disk=d0,action=out-of-space,op=snapshot-keep")
    rig.blk.write(500, b"new!" * KIB)
    if rig.faults.find(name)["fired"]:
        assert initiator.write_token(1, token, [Range(700, 8)]).fault == (5, 0x23, 8)
        assert initiator.read(1, 700, 8).data == bytes(4 * KIB)
    else:
        assert initiator.write_token(1, token, [Range(700, 8)]).good
        assert initiator.read(1, 700, 8).data == b"old!" * KIB
        assert initiator.populate(0, [Range(500, 8)]).fault == (0xB, 0x55, 3)
    assert rig.blk.read(500, 4 * KIB) == b"new!" * KIB


@pytest.mark.parametrize(("report", "status"), [("error", Status.IOERR), ("ok", Status.OK)])
def test_torn_write(rig: FaultRig, report: str, status: Status) -> None:
    """A prefix lands, in bytes; and the guest is told the truth or not."""
    old, new = os.urandom(4096), os.urandom(4096)
    rig.blk.write(800, old)
    with rig.fault(f"disk=d0,action=torn-write,bytes=1000,report={report}"):
        assert rig.blk.request(RequestType.OUT, 800, new)[0] == status
    assert rig.blk.read(800, 4096) == new[:1000] + old[1000:]


def test_a_torn_compare_and_write(rig: FaultRig) -> None:
    """It is a write to the disk like others."""
    initiator = rig.scsi.initiator
    assert initiator.write(0, 810, 1, b"o" * 512).good
    with rig.fault("disk=d0,action=torn-write,bytes=100"):
        assert initiator.compare_and_write(0, 810, 1, b"o" * 512, b"n" * 512).fault == (3, 0x0C, 0)
    assert initiator.read(0, 810, 1).data == b"n" * 100 + b"o" * 412
    with rig.fault("disk=d0,action=disk-error,op=disk-write"):
        assert initiator.compare_and_write(0, 810, 1, b"n" * 100 + b"o" * 412, b"n" * 512).fault == (
            3,
            0x0C,
            0,
        )
    assert initiator.read(0, 810, 1).data == b"n" * 100 + b"o" * 412


def test_a_bit_flips_on_the_way_to_the_disk(rig: FaultRig) -> None:
    """The guest's own data stay as they are; the disk's are wrong, until it is written again."""
    data = os.urandom(1024)
    with rig.fault("disk=d0,action=bit-flip,way=out,byte=513,bit=0,count=1"):
        rig.blk.write(820, data)
        assert rig.blk.read(820, 1024) == data[:513] + bytes([data[513] ^ 1]) + data[514:]
    rig.blk.write(820, data)
    assert rig.blk.read(820, 1024) == data


def test_a_token_write_fails_in_the_middle(rig: FaultRig) -> None:
    """The disk fails at one block: what was written before is a prefix, and TRANSFER COUNT says how long."""
    initiator = rig.scsi.initiator
    data = os.urandom(3 << 20)
    for at in range(0, len(data), 1 << 20):
        assert initiator.write(0, 8192 + at // 512, 2048, data[at : at + (1 << 20)]).good
    token = initiator.token(0, [Range(8192, 6144)])
    with rig.fault("disk=d1,action=disk-error,op=disk-write,lba=9000"):
        answer = initiator.write_token(1, token, [Range(6000, 6144)], identifier=21)
    assert answer.fault == (0xA, 0x0D, 4)
    count = answer.full_sense.information if answer.full_sense else None
    result = TokenInformation.parse(initiator.information(1, 21).data).status
    assert (result.status, result.count, count) == (3, count, 2048)
    assert image(rig, 6000, 2048 * 512, "d1") == data[: 2048 * 512]
