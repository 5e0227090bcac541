"""Token copy through the real server: the same tokens and the same data behind every export."""

from __future__ import annotations

import hashlib
import itertools
import os
from typing import TYPE_CHECKING

import pytest
from guests import Blk, eventually

from qemu_odx.testing.scsi_guest import ScsiGuest
from qemu_odx.testing.serve import ServeProcess
from qemu_odx.wire.scsi.token_lists import Range, TokenInformation
from qemu_odx.wire.virtio.scsi import Response, TaskManagement

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MIB = 1 << 20
BLOCKS = 64 * MIB // 512


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Path]:
    """Two disks as two LUNs of `s.sock`; the second also as `b.sock` and alone behind `t.sock`."""
    arguments = []
    for name in ("d0", "d1"):
        arguments += ["--disk", f"id={name},path={tmp_path}/{name}.img,size=64M,serial={name}"]
    arguments += ["--export", f"type=vhost-user-scsi,socket={tmp_path}/s.sock,lun0=d0,lun1=d1"]
    arguments += ["--export", f"type=vhost-user-scsi,socket={tmp_path}/t.sock,lun0=d1"]
    arguments += ["--export", f"type=vhost-user-blk,socket={tmp_path}/b.sock,disk=d1"]
    with ServeProcess(arguments):
        yield tmp_path


def test_discovery_over_the_ring(server: Path) -> None:
    """Both units are listed and answer with their own serial numbers."""
    with ScsiGuest(server / "s.sock") as guest:
        assert guest.luns() == [0, 1]
        serials = [guest.initiator.command(lun, "12018000ff00").data[4:] for lun in (0, 1)]
    assert serials == [b"d0", b"d1"]


def test_old_data_arrives_after_the_source_was_overwritten(server: Path) -> None:
    """Populate, overwrite through SCSI, write the token to the other unit, read through virtio-blk."""
    old = os.urandom(4 * MIB)
    with ScsiGuest(server / "s.sock") as guest:
        initiator = guest.initiator
        for at in range(0, len(old), MIB):
            assert initiator.write(0, at // 512, MIB // 512, old[at : at + MIB]).good
        token = initiator.token(0, [Range(0, 8192)])
        assert initiator.write(0, 0, 2048, bytes(MIB)).good
        assert initiator.unmap(0, [Range(2048, 2048)]).good
        assert initiator.write_token(1, token, [Range(1000, 8192)]).good
    blk = Blk(str(server / "b.sock")).go()
    with blk.front:
        copied = b"".join(blk.read(1000 + at // 512, MIB // 4) for at in range(0, len(old), MIB // 4))
    assert hashlib.sha256(copied).digest() == hashlib.sha256(old).digest()


def test_a_write_through_virtio_blk_does_not_reach_the_token(server: Path) -> None:
    """The guard is below both front doors."""
    with ScsiGuest(server / "s.sock") as guest:
        assert guest.initiator.write(1, 0, 8, b"old!" * 1024).good
        token = guest.initiator.token(1, [Range(0, 8)])
        blk = Blk(str(server / "b.sock")).go()
        with blk.front:
            blk.write(0, b"new!" * 1024)
        assert guest.initiator.write_token(0, token, [Range(64, 8)]).good
        assert guest.initiator.read(0, 64, 8).data == b"old!" * 1024
        assert guest.initiator.read(1, 0, 8).data == b"new!" * 1024


def test_a_token_is_good_through_another_export(server: Path) -> None:
    """One copy manager serves the process; whoever holds the token may use it."""
    with ScsiGuest(server / "s.sock") as first, ScsiGuest(server / "t.sock") as second:
        assert first.initiator.write(0, 5, 1, b"x" * 512).good
        token = first.initiator.token(0, [Range(5, 1)])
        assert second.initiator.write_token(0, token, [Range(9, 1)]).good
        assert first.initiator.read(1, 9, 1).data == b"x" * 512


def test_results_belong_to_the_nexus_and_go_with_it(server: Path) -> None:
    """Another guest, or the same one after a reconnect, asks for nothing of the old one; its token lives."""
    guest = ScsiGuest(server / "s.sock")
    with guest:
        token = guest.initiator.token(0, [Range(0, 8)])
        with ScsiGuest(server / "t.sock") as other:
            assert other.initiator.information(0, 0).fault == (5, 0x24, 0)
    with ScsiGuest(server / "s.sock") as again:
        assert again.initiator.information(0, 0).fault == (5, 0x24, 0)
        assert again.initiator.write_token(1, token, [Range(0, 8)]).good


def test_populate_of_the_whole_disk_takes_no_space(server: Path) -> None:
    """64 MiB frozen at once: nothing is copied until something is written."""
    with ScsiGuest(server / "s.sock") as guest:
        for at in range(0, BLOCKS, 2048):
            assert guest.initiator.write(0, at, 2048, os.urandom(MIB)).good
        spent = []
        for _ in range(5):  # others write to this file system too
            before = os.statvfs(server).f_bfree
            guest.initiator.token(0, [Range(0, BLOCKS)])
            spent.append((before - os.statvfs(server).f_bfree) * os.statvfs(server).f_frsize)
    assert min(spent) < 32 * MIB


def test_background_copy_is_polled_until_done(server: Path) -> None:
    """IMMED=1: GOOD at once, 12h while it runs, then 01h with the full count."""
    with ScsiGuest(server / "s.sock") as guest:
        token = guest.initiator.token(0, [Range(0, BLOCKS)])
        assert guest.initiator.write_token(1, token, [Range(0, BLOCKS)], identifier=9, immediate=True).good
        seen = []

        def over() -> bool:
            seen.append(TokenInformation.parse(guest.initiator.information(0, 9).data).status)
            return seen[-1].status != 0x12

        eventually(over, "it never ended")
        assert (seen[-1].status, seen[-1].count) == (0x01, BLOCKS)


def test_other_io_goes_on_during_a_copy(server: Path) -> None:
    """A read posted after a long copy is answered while the copy runs; again where the copy was too quick to tell."""
    with ScsiGuest(server / "s.sock") as guest:
        initiator, numbers = guest.initiator, itertools.count(1000)
        for at in range(0, BLOCKS, 2048):
            assert initiator.write(0, at, 2048, os.urandom(MIB)).good
        token = initiator.token(0, [Range(0, BLOCKS)])

        def read_during_a_copy() -> bool:
            number = next(numbers)
            assert initiator.write_token(1, token, [Range(0, BLOCKS)], identifier=number, immediate=True).good
            assert initiator.read(0, 0, 8).good
            status = TokenInformation.parse(initiator.information(0, number).data).status
            return status.status == 0x12 and initiator.abort_copy(0, number).good

        eventually(read_during_a_copy, "no read was ever answered before the copy had ended")


def test_unit_reset_answers_and_drops_results(server: Path) -> None:
    """LOGICAL UNIT RESET as vioscsi sends it: function complete."""
    with ScsiGuest(server / "s.sock") as guest:
        guest.initiator.token(0, [Range(0, 8)])
        assert guest.task_management(TaskManagement.LOGICAL_UNIT_RESET, 0) in {
            Response.OK,
            Response.FUNCTION_SUCCEEDED,
        }
        assert guest.initiator.command(0, "00").fault == (6, 0x29, 0)
        assert guest.initiator.information(0, 0).fault == (5, 0x24, 0)
