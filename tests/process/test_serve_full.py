"""The host's file system is full while tokens hold old data: writes go through, the tokens are cancelled."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
from guests import Blk

from qemu_odx.testing.scsi_guest import ScsiGuest
from qemu_odx.testing.serve import ServeProcess
from qemu_odx.wire.scsi.token_lists import Range
from qemu_odx.wire.virtio import blk

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SIZE = 3 << 19
"""Of the image, on a file system of 2 MiB: half a MiB is left for old data."""
BLOCKS = SIZE // 512
PART = BLOCKS // 6
CANCELLED = (5, 0x23, 8)


@pytest.fixture
def server(tiny: Path, tmp_path: Path) -> Iterator[ServeProcess]:
    """A disk on the small file system by SCSI and virtio-blk, and another one elsewhere."""
    arguments = [
        *("--disk", f"id=d0,path={tiny}/a.img,size={SIZE}"),
        *("--disk", f"id=d1,path={tmp_path}/b.img,size={SIZE}"),
        *("--export", f"type=vhost-user-scsi,socket={tmp_path}/s.sock,lun0=d0,lun1=d1"),
        *("--export", f"type=vhost-user-blk,socket={tmp_path}/b.sock,disk=d0"),
    ]
    with ServeProcess(arguments, cwd=tmp_path) as process:
        yield process


def fill(guest: ScsiGuest, data: bytes) -> None:
    """The whole disk."""
    for lba in range(0, BLOCKS, PART):
        assert guest.initiator.write(0, lba, PART, data[lba * 512 : (lba + PART) * 512]).good


@pytest.mark.parametrize("way", ["scsi", "blk", "write same", "zeroes by blk"])
def test_the_guests_write_goes_first(server: ServeProcess, way: str) -> None:
    """Every byte of it is there; the token says 23/08 again and again; the next token is a good one."""
    with ScsiGuest(server.cwd / "s.sock") as guest:
        initiator, old = guest.initiator, os.urandom(SIZE)
        new = bytes(SIZE) if "zero" in way else b"n" * SIZE if way == "write same" else os.urandom(SIZE)
        fill(guest, old)
        token = initiator.token(0, [Range(0, BLOCKS)])
        other = Blk(str(server.cwd / "b.sock")).go()
        for lba in range(0, BLOCKS, PART):
            part = new[lba * 512 : (lba + PART) * 512]
            if way == "scsi":
                assert initiator.write(0, lba, PART, part).good
            elif way == "blk":
                other.write(lba, part)
            elif way == "write same":
                assert initiator.write_same(0, lba, PART, b"n" * 512).good
            else:
                segment = blk.SEGMENT.pack(lba, PART, 0)
                assert other.request(blk.RequestType.WRITE_ZEROES, data=segment)[0] == blk.Status.OK
        for _ in range(2):
            assert initiator.write_token(1, token, [Range(0, BLOCKS)]).fault == CANCELLED
        assert other.read(0, SIZE) == new
        other.front.close()
        assert initiator.read(1, 0, PART).data == bytes(PART * 512)
        again = initiator.token(0, [Range(0, PART)])
        assert initiator.write_token(1, again, [Range(0, PART)]).good
        assert initiator.read(1, 0, PART).data == new[: PART * 512]
        assert server.alive


@pytest.mark.parametrize("zeroes", [False, True], ids=["write", "write zeroes"])
def test_old_data_makes_room_for_new(server: ServeProcess, *, zeroes: bool) -> None:
    """A write into a hole needs space, and gets that of the old data that were kept."""
    with ScsiGuest(server.cwd / "s.sock") as guest:
        initiator = guest.initiator
        for lba in range(0, 4 * PART, PART):
            assert initiator.write(0, lba, PART, os.urandom(PART * 512)).good
        token = initiator.token(0, [Range(0, 4 * PART)])
        for lba in range(0, 4 * PART - 256, 256):
            assert initiator.write(0, lba, 256, os.urandom(256 * 512)).good
        assert initiator.write_token(1, token, [Range(0, PART)]).good
        data = bytes(PART * 512) if zeroes else os.urandom(PART * 512)
        for lba in (4 * PART, 5 * PART):
            answer = (
                initiator.write_same(0, lba, PART, bytes(512))
                if zeroes
                else initiator.write(0, lba, PART, data)
            )
            assert answer.good
        assert initiator.write_token(1, token, [Range(0, PART)]).fault == CANCELLED
        assert initiator.read(0, 4 * PART, PART).data == data


def test_tokens_of_other_places_live_on(server: ServeProcess) -> None:
    """Only those whose old data could not be kept are cancelled."""
    with ScsiGuest(server.cwd / "s.sock") as guest:
        initiator, old = guest.initiator, os.urandom(SIZE)
        fill(guest, old)
        victim = initiator.token(0, [Range(0, BLOCKS - 8)])
        survivor = initiator.token(0, [Range(BLOCKS - 8, 8)])
        elsewhere = initiator.token(1, [Range(0, 8)])
        for lba in range(0, BLOCKS - PART, PART):
            assert initiator.write(0, lba, PART, os.urandom(PART * 512)).good
        assert initiator.write_token(1, victim, [Range(0, BLOCKS - 8)]).fault == CANCELLED
        assert initiator.write_token(1, survivor, [Range(0, 8)]).good
        assert initiator.read(1, 0, 8).data == old[-4096:]
        assert initiator.write_token(1, elsewhere, [Range(8, 8)]).good
