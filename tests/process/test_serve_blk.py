"""A virtio-blk disk of the real server, driven by a front end that says what QEMU says."""

from __future__ import annotations

import os
from itertools import repeat
from typing import TYPE_CHECKING

import pytest
from guests import MIB, SIZE, Blk, eventually, one_export

from qemu_odx.testing.frontend import QEMU_10_0_PROTOCOL
from qemu_odx.testing.ram import GuestRam
from qemu_odx.testing.serve import ServeProcess
from qemu_odx.wire.vhost_user import ConfigSpace, Feature, ProtocolFeature, Request
from qemu_odx.wire.virtio import blk

LARGE = 128 * MIB

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.fixture
def server(shared: ServeProcess) -> ServeProcess:
    """One server for all of them."""
    return shared


def test_what_is_written_is_read_and_lands_in_the_image(guest: Blk, server: ServeProcess) -> None:
    """One MiB at an odd place."""
    data = os.urandom(MIB)
    guest.write(3, data)
    assert guest.read(3, MIB) == data
    with (server.cwd / "a.img").open("rb") as image:
        image.seek(3 * 512)
        assert image.read(MIB) == data


def test_flush(guest: Blk) -> None:
    """It completes."""
    guest.write(0, b"x" * 512)
    assert guest.request(blk.RequestType.FLUSH) == (blk.Status.OK, b"")


def test_discard_reads_as_zeros(guest: Blk) -> None:
    """The range is given back."""
    guest.write(0, b"x" * 65536)
    segment = blk.SEGMENT.pack(8, 64, 0)
    assert guest.request(blk.RequestType.DISCARD, data=segment) == (blk.Status.OK, b"")
    assert guest.read(0, 65536) == b"x" * 4096 + bytes(32768) + b"x" * (65536 - 4096 - 32768)


def test_get_id_is_the_serial(guest: Blk) -> None:
    """As given to --disk."""
    assert guest.request(blk.RequestType.GET_ID, room=20) == (blk.Status.OK, b"SERIAL0".ljust(20, b"\0"))


def test_out_of_range_is_an_error_and_no_more(guest: Blk) -> None:
    """The next request works."""
    assert guest.request(blk.RequestType.IN, SIZE // 512, room=512)[0] == blk.Status.IOERR
    assert guest.read(0, 512) == bytes(512)


def test_capacity_in_the_configuration(guest: Blk) -> None:
    """First field, in sectors."""
    assert int.from_bytes(guest.front.config[:8], "little") == SIZE // 512


@pytest.mark.parametrize("lacking", [Feature.EVENT_IDX, Feature.INDIRECT_DESC, 0])
def test_with_and_without_ring_features(
    server: ServeProcess, guests: Callable[..., Blk], lacking: int
) -> None:
    """Firmware drives the ring without event index."""
    guest = guests(server.sockets[0], driver_features=~lacking & (1 << 64) - 1).go()
    guest.write(0, b"y" * 4096)
    assert guest.read(0, 4096) == b"y" * 4096


@pytest.mark.parametrize("lacking", list(ProtocolFeature), ids=lambda bit: bit.name)
def test_without_one_protocol_feature(
    server: ServeProcess, guests: Callable[..., Blk], lacking: ProtocolFeature
) -> None:
    """A front end need not know them all."""
    config = 0 if lacking is ProtocolFeature.CONFIG else 57
    known = QEMU_10_0_PROTOCOL & ~lacking.mask
    guest = guests(server.sockets[0], protocol=known, config_size=config).go()
    guest.write(0, b"z" * 4096)
    guest.front.stop()
    guest.front.start()
    assert guest.read(0, 4096) == b"z" * 4096


def test_memory_in_several_pieces(server: ServeProcess, guests: Callable[..., Blk]) -> None:
    """A buffer across a border of regions is two runs of host memory."""
    guest = guests(server.sockets[0], ram=GuestRam(16 * MIB, pieces=4)).go()
    data = os.urandom(6 * MIB)
    guest.write(0, data)
    assert guest.read(0, 6 * MIB) == data


def test_two_queues(server: ServeProcess, guests: Callable[..., Blk]) -> None:
    """Each serves the same disk."""
    guest = guests(server.sockets[2], queues=2).go()
    guest.write(0, b"q" * 512)
    done = guest.front.queues[1].execute(blk.HEADER.pack(blk.RequestType.IN, 0, 0), 513)
    assert done.data_in == b"q" * 512 + b"\0"


def test_a_full_ring_of_requests(guest: Blk) -> None:
    """64 at once, each completed once with its own data."""
    data = os.urandom(64 * 4096)
    guest.write(0, data)
    header = [blk.HEADER.pack(blk.RequestType.IN, 0, 8 * n) for n in range(64)]
    requests = [guest.queue.submit(head, 4097) for head in header]
    while any(request.written is None for request in requests):
        if not guest.queue.completions():
            guest.queue.wait()
    assert b"".join(request.data_in[:4096] for request in requests) == data


def test_stop_and_start_go_on_where_they_were(guest: Blk) -> None:
    """QMP stop and cont: the same ring, the index from GET_VRING_BASE."""
    guest.write(0, b"1" * 512)
    guest.front.stop()
    assert guest.front.vrings[0].base == 1
    guest.queue.submit(blk.HEADER.pack(blk.RequestType.IN, 0, 0), 513)
    guest.front.start()
    guest.queue.wait()
    (done,) = guest.queue.completions()
    assert done.data_in == b"1" * 512 + b"\0"


@pytest.mark.parametrize("modern", [False, True])
def test_reset_and_another_driver(server: ServeProcess, guests: Callable[..., Blk], *, modern: bool) -> None:
    """Firmware, then the system: as QEMU 7.2 and as 10.0 do it."""
    first = guests(server.sockets[0], modern=modern).go()
    first.write(0, b"f" * 512)
    first.front.reset()
    first.front.lose()
    second = guests(server.sockets[0], modern=modern, queue_size=16).go()
    assert second.read(0, 512) == b"f" * 512


def test_wce_off_is_kept_and_shown(tmp_path: Path, guests: Callable[..., Blk]) -> None:
    """A guest that was told "write-through" does not flush, so it stays so."""
    with one_export(tmp_path):
        guest = guests(str(tmp_path / "s")).go()
        guest.front.acknowledged(Request.SET_CONFIG, ConfigSpace(32, 1, 0, b"\0").pack())
        assert guest.front.get_config(32, 1) == b"\0"
        guest.write(0, b"s" * 512)
        guest.front.lose()
        assert guests(str(tmp_path / "s")).go().front.config[32] == 0


def wce(guest: Blk) -> int:
    """The write cache, as the configuration space has it now."""
    return guest.front.get_config(32, 1)[0]


@pytest.mark.parametrize("choice", [0, 1])
def test_the_choice_of_the_write_cache_survives_a_killed_server(
    tmp_path: Path, guests: Callable[..., Blk], choice: int
) -> None:
    """QEMU never tells the new one: a guest that chose write-through does not flush. It is in the in-flight area."""
    with one_export(tmp_path) as first:
        guest = guests(str(tmp_path / "s")).go()
        for value in (1 - choice, choice):
            guest.front.acknowledged(Request.SET_CONFIG, ConfigSpace(32, 1, 0, bytes([value])).pack())
        first.kill()
    with one_export(tmp_path):
        guest.front.resume()
        assert wce(guest) == choice
        guest.front.reset()
        guest.front.start()
        assert wce(guest) == choice


def test_a_guest_that_chose_nothing_keeps_its_cache(tmp_path: Path, guests: Callable[..., Blk]) -> None:
    """A killed server does not make its successor slow."""
    with one_export(tmp_path) as first:
        guest = guests(str(tmp_path / "s")).go()
        first.kill()
    with one_export(tmp_path):
        guest.front.resume()
        assert wce(guest) == 1


def test_without_an_in_flight_area_a_successor_writes_through(
    tmp_path: Path, guests: Callable[..., Blk]
) -> None:
    """Nothing is known of what the guest chose: the safe side."""
    known = QEMU_10_0_PROTOCOL & ~ProtocolFeature.INFLIGHT_SHMFD.mask
    with one_export(tmp_path) as first:
        guest = guests(str(tmp_path / "s"), protocol=known).go()
        first.kill()
    with one_export(tmp_path):
        guest.front.resume()
        assert wce(guest) == 0


def test_two_exports_of_one_disk_show_the_same(server: ServeProcess, guests: Callable[..., Blk]) -> None:
    """Written by one guest, read by the other."""
    one, two = guests(server.sockets[0]).go(), guests(server.sockets[1]).go()
    one.write(100, b"shared".ljust(512, b"\0"))
    assert two.read(100, 512) == b"shared".ljust(512, b"\0")


def test_disks_are_separate(server: ServeProcess, guests: Callable[..., Blk]) -> None:
    """And the other disk has nothing of it."""
    one, other = guests(server.sockets[0]).go(), guests(server.sockets[2]).go()
    one.write(0, b"mine" * 128)
    assert other.read(0, 512) == bytes(512)


# -- coming and going ------------------------------------------------------------------------------


def test_a_front_end_that_is_killed_leaves_nothing_behind(
    server: ServeProcess, guests: Callable[..., Blk]
) -> None:
    """Descriptors and mappings are back where they were, ten times over."""
    fds, maps = server.descriptors(), server.mappings()
    for _ in range(10):
        guest = guests(server.sockets[0]).go()
        guest.write(0, b"k" * 4096)
        for sector in range(0, 8 * 32, 8):
            guest.queue.submit(blk.HEADER.pack(blk.RequestType.IN, 0, sector), 4097)
        guest.front.lose()
    eventually(lambda: (server.descriptors(), server.mappings()) == (fds, maps), "something leaked")
    assert guests(server.sockets[0]).go().read(0, 4096) == b"k" * 4096


def test_half_a_message_then_death(server: ServeProcess, guests: Callable[..., Blk]) -> None:
    """With descriptors in the half that came."""
    fds = server.descriptors()
    guest = guests(server.sockets[0])
    guest.front.connect()
    guest.front.send_bytes(b"\x0d\0\0\0\1\0", [guest.front.ram.fd] * 5)
    guest.front.lose()
    eventually(lambda: server.descriptors() == fds, "descriptors leaked")


def test_a_server_that_was_killed_comes_back_and_nothing_is_lost(
    tmp_path: Path, guests: Callable[..., Blk]
) -> None:
    """A write and a read in the ring while nobody serves; the new server finishes them unasked."""
    arguments = [
        "--disk",
        f"id=d0,path=a.img,size={SIZE}",
        "--export",
        "type=vhost-user-blk,socket=s,disk=d0",
    ]
    with ServeProcess(arguments, cwd=tmp_path) as first:
        guest = guests(str(tmp_path / "s")).go()
        guest.write(0, b"before" * 512)
        first.kill()
    header = blk.HEADER.pack(blk.RequestType.OUT, 0, 16)
    write = guest.queue.submit(header + b"during" * 512, 1)
    with ServeProcess(arguments, cwd=tmp_path):
        guest.front.resume()
        guest.queue.wait()
        guest.queue.completions()
        assert write.data_in == b"\0"
        assert guest.read(0, 3072) == b"before" * 512
        assert guest.read(16, 3072) == b"during" * 512


def test_requests_that_were_running_when_the_server_died_run_again(
    tmp_path: Path, guests: Callable[..., Blk]
) -> None:
    """The in-flight area tells the new server which, in whatever order the others ended; each ends once.

    The first is held, so that the ring alone does not tell.
    """
    arguments = [
        "--disk",
        f"id=d0,path=a.img,size={LARGE}",
        "--export",
        "type=vhost-user-blk,socket=s,disk=d0",
    ]
    data = [os.urandom(4 * MIB) for _ in range(LARGE // (4 * MIB))]
    headers = [blk.HEADER.pack(blk.RequestType.OUT, 0, 8192 * n) for n in range(len(data))]
    with ServeProcess([*arguments, "--fault", "op=OUT,nth=1,action=stall"], cwd=tmp_path) as first:
        guest = guests(str(tmp_path / "s"), ram=GuestRam(LARGE + 16 * MIB)).go()
        writes = [guest.queue.submit(*pair) for pair in zip(map(bytes.__add__, headers, data), repeat(1))]
        eventually(lambda: guest.queue.used_pending() > 3, "nothing was done")
        first.kill()
    assert guest.queue.used_pending() < len(data)
    with ServeProcess(arguments, cwd=tmp_path):
        guest.front.resume()
        while any(write.written is None for write in writes):
            if not guest.queue.completions():
                guest.queue.wait()
        assert {write.data_in for write in writes} == {b"\0"}
        guest.front.stop()
        guest.front.start()
        assert guest.queue.used_pending() == 0
        assert all(guest.read(8192 * n, 4 * MIB) == piece for n, piece in enumerate(data))


def test_a_reconnecting_front_end_is_told_of_a_change(server: ServeProcess, guest: Blk) -> None:
    """It does not read the configuration again by itself: the disk may have grown meanwhile."""
    assert guest.front.config_unchanged()
    guest.front.lose()
    guest.front.resume()
    assert guest.front.config_change_pending()
    assert server.alive


def test_a_second_front_end_is_refused_and_the_first_goes_on(
    server: ServeProcess, guest: Blk, guests: Callable[..., Blk]
) -> None:
    """One at a time; the log says so."""
    second = guests(server.sockets[0])
    with pytest.raises(ConnectionError):
        second.front.connect()
    guest.write(0, b"mine" * 128)
    assert "a second front end was refused" in server.errors()


def test_the_next_front_end_may_come_at_once(server: ServeProcess, guests: Callable[..., Blk]) -> None:
    """Connecting right after the other one left, fifty times: never refused."""
    for _ in range(50):
        guest = guests(server.sockets[0])
        guest.front.connect()
        guest.front.lose()
    assert server.errors() == ""
