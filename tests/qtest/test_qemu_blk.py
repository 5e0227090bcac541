"""vhost-user-blk-pci of a real QEMU on our server: the registers, the ring, the changes of life."""

from __future__ import annotations

import os
import signal
import threading
from typing import TYPE_CHECKING

import pytest

from qemu_odx.testing.driver import Piece
from qemu_odx.testing.qtest import poll
from qemu_odx.testing.virtio_pci import VirtioPci
from qemu_odx.wire.virtio import blk, features

if TYPE_CHECKING:
    from collections.abc import Callable

    from qemu_odx.testing.driver import DriverQueue
    from qemu_odx.testing.qtest import QtestMachine
    from qemu_odx.testing.serve import ServeProcess

pytestmark = pytest.mark.qtest

BLK = "vhost-user-blk-pci,num-queues=2,config-wce=on"
SECTORS = 64 * 2048


def write(queue: DriverQueue, sector: int, data: bytes) -> None:
    """Write, and insist."""
    assert queue.execute(blk.HEADER.pack(blk.RequestType.OUT, 0, sector) + data, 1).data_in == b"\0"


def read(queue: DriverQueue, sector: int, length: int) -> bytes:
    """Read, and insist."""
    done = queue.execute(blk.HEADER.pack(blk.RequestType.IN, 0, sector), length + 1)
    assert done.data_in[-1] == blk.Status.OK
    return done.data_in[:-1]


@pytest.fixture
def server(shared: ServeProcess) -> ServeProcess:
    """The server, running."""
    return shared


@pytest.fixture
def machine(server: ServeProcess, boot: Callable[..., QtestMachine]) -> QtestMachine:
    """QEMU with a two-queue disk."""
    return boot(BLK, "b.sock")


@pytest.fixture
def disk(machine: QtestMachine) -> VirtioPci:
    """The device, found, not yet started."""
    return VirtioPci(machine, 4)


def test_it_is_a_modern_block_device(disk: VirtioPci) -> None:
    """Vendor 1AF4, device 1042."""
    assert disk.device_id == 0x10421AF4


def test_the_features_a_guest_sees(disk: VirtioPci) -> None:
    """What we offer and QEMU passes, no more: not RO, not SIZE_MAX, not RING_RESET."""
    expected = (
        blk.F_SEG_MAX | blk.F_BLK_SIZE | blk.F_FLUSH | blk.F_TOPOLOGY | blk.F_CONFIG_WCE | blk.F_MQ
        | blk.F_DISCARD | blk.F_WRITE_ZEROES | features.F_INDIRECT_DESC | features.F_EVENT_IDX
        | features.F_VERSION_1
    )  # fmt: skip
    assert features.feature_names(disk.device_features(), blk.FEATURE_NAMES) == features.feature_names(
        expected, blk.FEATURE_NAMES
    )


def test_the_configuration_a_guest_sees(disk: VirtioPci) -> None:
    """Field by field (virtio 1.2, 5.2.4); QEMU puts in its own number of queues."""
    config = disk.config(57)

    def field(offset: int, size: int) -> int:
        return int.from_bytes(config[offset : offset + size], "little")

    assert field(0, 8) == SECTORS
    assert field(8, 4) == 0
    assert field(12, 4) == 254
    assert field(20, 4) == 512
    assert (field(24, 1), field(26, 2)) == (3, 8)
    assert (field(32, 1), field(34, 2)) == (1, 2)
    assert field(36, 4) > 0
    assert field(40, 4) == 16
    assert field(48, 4) > 0
    assert field(56, 1) == 1


def test_write_and_read_on_both_queues(disk: VirtioPci) -> None:
    """Through guest memory that QEMU shared, with an interrupt for each."""
    first, second = disk.start(queues=2)
    data = os.urandom(65536)
    write(first, 1000, data)
    assert read(second, 1000, 65536) == data
    poll(lambda: disk.interrupted(0), "interrupt of queue 0")
    poll(lambda: disk.interrupted(1), "interrupt of queue 1")


def test_get_id_flush_and_discard(disk: VirtioPci) -> None:
    """The other requests."""
    (queue,) = disk.start()
    done = queue.execute(blk.HEADER.pack(blk.RequestType.GET_ID, 0, 0), 21)
    assert done.data_in == b"SERIAL0".ljust(20, b"\0") + b"\0"
    write(queue, 0, b"x" * 8192)
    segment = blk.SEGMENT.pack(8, 8, 0)
    assert queue.execute(blk.HEADER.pack(blk.RequestType.DISCARD, 0, 0) + segment, 1).data_in == b"\0"
    assert queue.execute(blk.HEADER.pack(blk.RequestType.FLUSH, 0, 0), 1).data_in == b"\0"
    assert read(queue, 0, 8192) == b"x" * 4096 + bytes(4096)


def test_a_buffer_across_the_holes_of_a_pc(disk: VirtioPci, machine: QtestMachine) -> None:
    """QEMU shares low memory, the firmware's shadow and the rest as regions of one file."""
    (queue,) = disk.start()
    ram = machine.ram
    header = blk.HEADER.pack(blk.RequestType.OUT, 0, 0)
    ram.write(0x9_0000, header)
    ram.write(0xE_8000, b"A" * 4096)
    ram.write(0x20_0000 - 4096, b"B" * 4096)
    status = ram.allocate(1, 1)
    pieces = [Piece(0x9_0000, 16), Piece(0xE_8000, 4096), Piece(0x20_0000 - 4096, 4096)]
    request = queue.post([*pieces, Piece(status, 1, writable=True)])
    queue.publish()
    poll(lambda: queue.used_pending() > 0, "completion")
    assert queue.take_used()[0] == request.head
    assert ram.read(status, 1) == b"\0"
    queue.free.extend(request.slots)
    queue._posted.clear()
    assert read(queue, 0, 8192) == b"A" * 4096 + b"B" * 4096


def test_reset_and_start_with_other_features(disk: VirtioPci) -> None:
    """Firmware's driver first: one small queue, no event index; then the system's."""
    (firmware,) = disk.start(queues=1, size=16, accept=features.F_VERSION_1)
    write(firmware, 7, b"f" * 512)
    disk.reset()
    system = disk.start(queues=2)
    assert read(system[1], 7, 512) == b"f" * 512


def test_system_reset(disk: VirtioPci, machine: QtestMachine) -> None:
    """The machine's reset button."""
    (queue,) = disk.start()
    write(queue, 0, b"r" * 512)
    machine.qmp("system_reset")
    again = VirtioPci(machine, 4)
    assert read(again.start()[0], 0, 512) == b"r" * 512


def test_stop_and_cont(disk: VirtioPci, machine: QtestMachine) -> None:
    """The same rings go on, and a request put there meanwhile is done."""
    (queue,) = disk.start()
    write(queue, 0, b"s" * 512)
    machine.qmp("stop")
    request = queue.submit(blk.HEADER.pack(blk.RequestType.IN, 0, 0), 513)
    machine.qmp("cont")
    poll(lambda: bool(queue.completions()), "completion after cont")
    assert request.data_in == b"s" * 512 + b"\0"


def test_the_guest_switches_the_write_cache(
    serve: Callable[[], ServeProcess], boot: Callable[..., QtestMachine]
) -> None:
    """A configuration write reaches us, and comes back; the capacity is not the guest's to change."""
    serve()
    disk = VirtioPci(boot(BLK, "b.sock"), 4)
    disk.start()
    disk.write_config(32, 0)
    disk.write_config(0, 0xFF)
    assert disk.config(33)[32] == 0
    assert int.from_bytes(disk.config(8), "little") == SECTORS


def test_a_queue_that_does_not_exist_is_kicked(disk: VirtioPci) -> None:
    """Any guest can write any number there."""
    (queue,) = disk.start()
    disk.notify(1)
    disk.notify(77)
    write(queue, 0, b"k" * 512)


def test_a_guest_that_breaks_its_ring_hurts_only_that_ring(disk: VirtioPci, server: ServeProcess) -> None:
    """An index out of all bounds: one queue is out of service until the reset, the other serves."""
    first, second = disk.start(queues=2)
    first.set_avail_index(30000)
    disk.notify(0)
    write(second, 0, b"o" * 512)
    poll(lambda: "queue 0" in server.errors(), "line in the log")
    disk.reset()
    assert read(disk.start()[0], 0, 512) == b"o" * 512


def test_memory_is_hot_plugged_and_used(server: ServeProcess, boot: Callable[..., QtestMachine]) -> None:
    """The new region arrives while the rings run."""
    machine = boot(BLK, "b.sock", "-m", "64M,slots=2,maxmem=1G")
    disk = VirtioPci(machine, 4)
    (queue,) = disk.start()
    before = server.mappings()
    machine.qmp(
        "object-add", **{"qom-type": "memory-backend-memfd", "id": "more", "size": 128 << 20, "share": True}
    )
    machine.qmp("device_add", driver="pc-dimm", id="dimm", memdev="more")
    poll(lambda: server.mappings() == before + 1, "the region")
    write(queue, 0, b"h" * 512)


def test_memory_of_a_memfd_backend_is_sealed(server: ServeProcess, boot: Callable[..., QtestMachine]) -> None:
    """Nobody can truncate it under us, so nothing is noted; file memory is noted with -vv."""
    arguments = ("-object", "memory-backend-memfd,id=m2,size=64M,share=on", "-machine", "memory-backend=m2")
    # The rings are in memory that we cannot see here, but the start shares it all the same.
    VirtioPci(boot(BLK, "b.sock", *arguments), 4).start()
    poll(lambda: server.mappings() >= 3, "the regions")
    assert "not sealed" not in server.errors()


# -- coming and going ------------------------------------------------------------------------------


def test_qemu_leaves_and_another_comes(server: ServeProcess, boot: Callable[..., QtestMachine]) -> None:
    """Killed in the middle of nothing; the disk is there for the next."""
    fds, maps = server.descriptors(), server.mappings()
    machine = boot(BLK, "b.sock")
    write(VirtioPci(machine, 4).start()[0], 0, b"1" * 512)
    machine.close()
    poll(lambda: (server.descriptors(), server.mappings()) == (fds, maps), "release of everything")
    second = boot(BLK, "b.sock")
    assert read(VirtioPci(second, 4).start()[0], 0, 512) == b"1" * 512


def test_qemu_starts_before_the_server(
    serve: Callable[..., ServeProcess], boot: Callable[..., QtestMachine]
) -> None:
    """With reconnect= it waits for us: any order of start works. Its monitor answers only then."""
    servers: list[ServeProcess] = []
    thread = threading.Timer(1.0, lambda: servers.append(serve()))
    thread.start()
    machine = boot(BLK, "b.sock", chardev=",reconnect=1")
    thread.join()
    disk = VirtioPci(machine, 4)
    assert int.from_bytes(disk.config(8), "little") == SECTORS


def test_the_server_is_killed_and_comes_back(
    serve: Callable[[], ServeProcess], boot: Callable[..., QtestMachine]
) -> None:
    """QEMU reconnects; the request that waited is done; the guest sees no error."""
    first = serve()
    machine = boot(BLK, "b.sock", chardev=",reconnect=1")
    disk = VirtioPci(machine, 4)
    (queue,) = disk.start()
    write(queue, 0, b"0" * 4096)
    os.kill(first.pid, signal.SIGSTOP)
    request = queue.submit(blk.HEADER.pack(blk.RequestType.OUT, 0, 8) + b"1" * 4096, 1)
    first.kill()
    assert request.written is None
    serve()
    poll(lambda: bool(queue.completions()), "the request that waited")
    assert request.data_in == b"\0"
    assert read(queue, 0, 8192) == b"0" * 4096 + b"1" * 4096
    assert disk.status == 0xF


def test_the_server_ends_well_and_comes_back(
    serve: Callable[[], ServeProcess], boot: Callable[..., QtestMachine]
) -> None:
    """SIGTERM with QEMU connected, a new server, business as usual: three times."""
    server = serve()
    machine = boot(BLK, "b.sock", chardev=",reconnect=1")
    (queue,) = VirtioPci(machine, 4).start()
    for round_number in range(3):
        write(queue, round_number, bytes([round_number]) * 512)
        assert server.terminate() == 0
        server = serve()
        assert read(queue, round_number, 512) == bytes([round_number]) * 512


def test_a_disk_that_grew_meanwhile_is_noticed(
    serve: Callable[..., ServeProcess], boot: Callable[..., QtestMachine]
) -> None:
    """QEMU does not read the configuration again when it reconnects, unless it is told to."""
    first = serve()
    machine = boot(BLK, "b.sock", chardev=",reconnect=1")
    disk = VirtioPci(machine, 4)
    disk.start()
    image = first.cwd / "a.img"
    assert first.terminate() == 0
    os.truncate(image, 96 << 20)
    serve("id=d0,path=a.img")
    poll(lambda: int.from_bytes(disk.config(8), "little") == 96 * 2048, "the new capacity")


# -- refusals --------------------------------------------------------------------------------------


def test_memory_that_is_not_shared_is_explained(
    server: ServeProcess, boot: Callable[..., QtestMachine]
) -> None:
    """QEMU itself names no cause when it may add regions one by one: the cure is in our log."""
    arguments = ("-object", "memory-backend-ram,id=m2,size=64M", "-machine", "memory-backend=m2")
    VirtioPci(boot(BLK, "b.sock", *arguments), 4).start()
    cure = "shares no guest memory; give QEMU -object memory-backend-memfd"
    poll(lambda: cure in server.errors(), "the refusal")
    assert server.alive


def test_a_second_qemu_on_one_export_is_refused(
    server: ServeProcess, boot: Callable[..., QtestMachine]
) -> None:
    """It ends with an error; the first one goes on."""
    machine = boot(BLK, "b.sock")
    (queue,) = VirtioPci(machine, 4).start()
    with pytest.raises(AssertionError, match="QEMU"):
        boot(BLK, "b.sock")
    write(queue, 0, b"1" * 512)
    assert "a second front end was refused" in server.errors()
