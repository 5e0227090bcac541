"""vhost-user-scsi-pci of a real QEMU on our server: commands through the ring, tokens included."""

from __future__ import annotations

import os
import struct
from typing import TYPE_CHECKING

import pytest

from qemu_odx.testing.virtio_pci import VirtioPci
from qemu_odx.wire.virtio import blk

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from qemu_odx.testing.driver import DriverQueue
    from qemu_odx.testing.qtest import QtestMachine
    from qemu_odx.testing.serve import ServeProcess

pytestmark = pytest.mark.qtest

SCSI = "vhost-user-scsi-pci,num_queues=2"
LINUX_LUN0 = bytes([1, 0, 0x40, 0, 0, 0, 0, 0])
WINDOWS_LUN0 = bytes([1, 0, 0, 0, 0, 0, 0, 0])
RESPONSE = struct.Struct("<IIHBB96s")


class Initiator:
    """Sends commands on a request queue."""

    def __init__(self, queue: DriverQueue, lun: bytes = LINUX_LUN0) -> None:
        self._queue = queue
        self._lun = lun

    def run(self, cdb: bytes, data_out: bytes = b"", room: int = 0) -> tuple[int, bytes, bytes]:
        """One command: status, sense, data."""
        request = self._lun + bytes(8) + bytes(3) + cdb.ljust(32, b"\0") + data_out
        done = self._queue.execute(request, RESPONSE.size + room)
        sense_length, _, _, status, response, sense = RESPONSE.unpack_from(done.data_in)
        assert response == 0
        return status, sense[:sense_length], done.data_in[RESPONSE.size :]

    def good(self, cdb: bytes, data_out: bytes = b"", room: int = 0) -> bytes:
        """One command that must end well; a unit attention is taken and the command sent again."""
        for _ in range(4):
            status, sense, data = self.run(cdb, data_out, room)
            if not (status == 2 and sense[2] & 0xF == 6):
                break
        assert (status, sense.hex()) == (0, "")
        return data


@pytest.fixture
def server(shared: ServeProcess) -> ServeProcess:
    """The server, running."""
    return shared


@pytest.fixture
def host(server: ServeProcess, boot: Callable[..., QtestMachine]) -> VirtioPci:
    """QEMU with a SCSI host of two request queues."""
    return VirtioPci(boot(SCSI, "s.sock"), 4)


def test_it_is_a_scsi_host(host: VirtioPci, server: ServeProcess) -> None:
    """Vendor 1AF4, device 1048; QEMU warns of nothing."""
    assert host.device_id == 0x10481AF4
    assert "dropped" not in server.errors()


@pytest.mark.parametrize("lun", [LINUX_LUN0, WINDOWS_LUN0], ids=["linux", "windows"])
def test_inquiry(host: VirtioPci, lun: bytes) -> None:
    """A direct access block device that supports third-party copy (SPC-4 6.6.2: 3PC)."""
    queues = host.start(queues=4)
    data = Initiator(queues[2], lun).good(bytes([0x12, 0, 0, 0, 96, 0]), room=96)
    assert data[0] == 0
    assert data[5] & 0x08


def test_both_request_queues(host: VirtioPci) -> None:
    """READ CAPACITY(10) on one, TEST UNIT READY on the other."""
    queues = host.start(queues=4)
    data = Initiator(queues[2]).good(bytes([0x25]).ljust(10, b"\0"), room=8)
    assert struct.unpack(">II", data) == (64 * 2048 - 1, 512)
    Initiator(queues[3]).good(bytes(6))


def test_write_and_read(host: VirtioPci) -> None:
    """64 KiB through the ring."""
    initiator = Initiator(host.start(queues=4)[2])
    data = os.urandom(65536)
    initiator.good(struct.pack(">BBIBHB", 0x2A, 0, 100, 0, 128, 0), data)
    assert initiator.good(struct.pack(">BBIBHB", 0x28, 0, 100, 0, 128, 0), room=65536) == data


def test_a_token_carries_the_data_of_its_time(host: VirtioPci) -> None:
    """POPULATE TOKEN, overwrite the source, WRITE USING TOKEN elsewhere: the old data arrive."""
    initiator = Initiator(host.start(queues=4)[2])
    old, blocks = os.urandom(1 << 20), 2048
    for n in range(8):
        initiator.good(struct.pack(">BBIBHB", 0x2A, 0, 256 * n, 0, 256, 0), old[131072 * n :][:131072])
    source = struct.pack(">QI4x", 0, blocks)
    populate = struct.pack(">HBxIIHH", 14 + len(source), 0, 0, 0, 0, len(source))[:16] + source
    initiator.good(struct.pack(">BB4xIIBB", 0x83, 0x10, 1, len(populate), 0, 0), populate)
    answer = initiator.good(struct.pack(">BBI4xIBB", 0x84, 0x07, 1, 1024, 0, 0), room=1024)
    for n in range(8):
        initiator.good(struct.pack(">BBIBHB", 0x2A, 0, 256 * n, 0, 256, 0), bytes(131072))
    target = struct.pack(">QI4x", 50000, blocks)
    head = struct.pack(">HBx4xQ", 534 + len(target), 0, 0)
    write = head + _token(answer) + bytes(6) + struct.pack(">H", len(target)) + target
    initiator.good(struct.pack(">BB4xIIBB", 0x83, 0x11, 2, len(write), 0, 0), write)
    copied = b"".join(
        initiator.good(struct.pack(">BBIBHB", 0x28, 0, 50000 + 256 * n, 0, 256, 0), room=131072)
        for n in range(8)
    )
    assert copied == old


def _token(answer: bytes) -> bytes:
    """The token in a RECEIVE ROD TOKEN INFORMATION answer: after the sense data and an 8-byte head."""
    sense_length = answer[13]
    place = 32 + sense_length
    (length,) = struct.unpack_from(">I", answer, place)
    assert length == 514
    return answer[place + 6 : place + 6 + 512]


def test_reset_by_the_driver(host: VirtioPci) -> None:
    """QEMU 7.2 announces it with RESET_DEVICE."""
    queues = host.start(queues=4)
    Initiator(queues[2]).good(bytes(6))
    host.reset()
    Initiator(host.start(queues=4)[2]).good(bytes(6))


def test_both_devices_of_one_disk_see_the_same(
    server: ServeProcess, boot: Callable[..., QtestMachine], tmp_path: Path
) -> None:
    """Written as SCSI, read as virtio-blk, in one machine."""
    second = (
        *("-chardev", f"socket,id=c2,path={tmp_path}/b.sock"),
        *("-device", "vhost-user-blk-pci,chardev=c2,addr=05.0,disable-legacy=on,num-queues=1"),
    )
    machine = boot(SCSI, "s.sock", *second)
    initiator = Initiator(VirtioPci(machine, 4).start(queues=4)[2])
    (queue,) = VirtioPci(machine, 5).start()
    initiator.good(struct.pack(">BBIBHB", 0x2A, 0, 9, 0, 1, 0), b"same" * 128)
    done = queue.execute(blk.HEADER.pack(blk.RequestType.IN, 0, 9), 513)
    assert done.data_in == b"same" * 128 + b"\0"
