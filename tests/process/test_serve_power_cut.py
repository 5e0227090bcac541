"""The power is cut under a running server: what was flushed, or written through, is in the image."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest
from guests import Blk

from qemu_odx.server.power import EXIT_CODE
from qemu_odx.testing.mailbox import MailboxClient
from qemu_odx.testing.message_socket import wait_for
from qemu_odx.testing.scsi_guest import ScsiGuest
from qemu_odx.testing.serve import PATIENCE, ServeProcess, run_serve
from qemu_odx.wire.scsi.token_lists import Range
from qemu_odx.wire.vhost_user import ConfigSpace, Request
from qemu_odx.wire.virtio import blk

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from qemu_odx.testing.driver import DriverQueue
    from qemu_odx.testing.frontend import FrontEnd
    from qemu_odx.testing.initiator import Initiator

BLOCKS = 4096


def serve(folder: Path, seed: int, after: int, kind: str, *more: str) -> ServeProcess:
    """A server whose power goes during the `after`th change; a source disk without the layer beside it."""
    cut = f"layers=power-cut,power-cut-seed={seed},power-cut-after={after}"
    unit = "lun0=d0,lun1=src" if kind == "scsi" else "disk=d0,mailbox=on"
    return ServeProcess(
        [
            *("--disk", f"id=d0,path={folder}/d0.img,size={BLOCKS * 512},{cut}"),
            *("--disk", f"id=src,path={folder}/src.img,size={BLOCKS * 512}"),
            *("--export", f"type=vhost-user-{kind},socket={folder}/s.sock,{unit}"),
            *more,
        ]
    )


def watch(server: ServeProcess, front: FrontEnd) -> None:
    """Waits for completions end with the server: what it was asked last is never answered."""
    for vring, queue in zip(front.vrings, front.queues, strict=True):

        def wait(call: int = vring.call, queue: DriverQueue = queue) -> None:
            while not queue.arm_interrupt():
                with suppress(TimeoutError):
                    return wait_for(call, 0.1)
                if not server.alive:
                    raise ConnectionResetError("the server has ended")
            return None

        queue.wait = wait


def play(
    server: ServeProcess, front: FrontEnd, write: Callable[[int, bytes], None], most: int = 200
) -> list[bytes]:
    """Write one block after the other until the power goes; what was acknowledged."""
    acknowledged = []
    watch(server, front)
    try:
        for number in range(most):
            data = (number + 1).to_bytes(4, "big") * 128
            write(number, data)
            acknowledged.append(data)
    except OSError:
        assert server._process.wait(PATIENCE) == EXIT_CODE
        assert "the power was cut" in server.errors()
        return acknowledged
    raise AssertionError("the power did not go")


def on_the_medium(folder: Path, count: int) -> list[bytes]:
    """The first blocks of the image."""
    with (folder / "d0.img").open("rb") as image:
        return [image.read(512) for _ in range(count)]


@pytest.mark.parametrize("way", ["write", "discard", "write zeroes", "token by mailbox"])
def test_virtio_blk_in_write_through_mode(tmp_path: Path, way: str) -> None:
    """Whatever was acknowledged is there: no flush was needed."""
    if way in {"discard", "write zeroes"}:
        (tmp_path / "d0.img").write_bytes(b"old!" * (BLOCKS * 128))
    with serve(tmp_path, 1, 40, "blk") as server:
        guest = Blk(str(tmp_path / "s.sock")).go()
        guest.front.acknowledged(Request.SET_CONFIG, ConfigSpace(32, 1, 0, b"\0").pack())
        mailbox = MailboxClient(guest.write, guest.read).initiator()

        def write(number: int, data: bytes) -> None:
            kinds = {"discard": blk.RequestType.DISCARD, "write zeroes": blk.RequestType.WRITE_ZEROES}
            if way in kinds:
                segment = blk.SEGMENT.pack(number, 1, 0)
                assert guest.request(kinds[way], data=segment) == (blk.Status.OK, b"")
            elif way == "write":
                guest.write(number, data)
            else:
                guest.write(3000, data)
                token = mailbox.token(0, [Range(3000, 1)])
                assert mailbox.write_token(0, token, [Range(number, 1)]).good

        done = play(server, guest.front, write)
        guest.front.close()
    expected = [bytes(512)] * len(done) if way in {"discard", "write zeroes"} else done
    assert len(done) >= 19
    assert on_the_medium(tmp_path, len(done)) == expected


def test_virtio_blk_with_a_write_cache(tmp_path: Path) -> None:
    """What a flush covered is there; of the rest, this seed loses some: the layer does cut."""
    with serve(tmp_path, 5, 40, "blk") as server:
        guest = Blk(str(tmp_path / "s.sock")).go()

        def write(number: int, data: bytes) -> None:
            guest.write(number, data)
            if number == 19:
                assert guest.request(blk.RequestType.FLUSH) == (blk.Status.OK, b"")

        done = play(server, guest.front, write)
        guest.front.close()
    found = on_the_medium(tmp_path, 39)
    assert found[:20] == done[:20]
    assert found[20:] != done[20:39]
    assert set(found[20:]) <= {bytes(512), *done[20:]}


def extended_copy(initiator: Initiator, lba: int) -> bytes:
    """The parameter list of an EXTENDED COPY(LID1) of block 0 of unit 1 to a block of unit 0 (SPC-4 6.4)."""
    pages = [initiator.command(lun, "12018300ff00").data for lun in (1, 0)]
    names = [page.partition(bytes.fromhex("01030010"))[2][:16] for page in pages]
    cscds = [bytes((0xE4, 0, 0, 0, 1, 3, 0, 16)) + n + bytes(5) + (512).to_bytes(3, "big") for n in names]
    segment = bytes.fromhex("020000180000000100000001") + bytes(8) + lba.to_bytes(8, "big")
    head = bytes((1, 0x10)) + (64).to_bytes(2, "big") + bytes(4) + len(segment).to_bytes(4, "big") + bytes(4)
    return head + b"".join(cscds) + segment


@pytest.mark.parametrize("way", ["fua", "no write cache", "write same", "unmap", "token", "extended copy"])
def test_scsi_in_write_through_mode(tmp_path: Path, way: str) -> None:
    """FUA, and every command that changes blocks of a unit without a write cache."""
    with serve(tmp_path, 1, 30, "scsi") as server, ScsiGuest(tmp_path / "s.sock") as guest:
        initiator = guest.initiator
        if way != "fua":
            page = bytearray(initiator.command(0, "1a080800c0").data[4:])
            page[2] &= ~0x04
            assert initiator.command(0, "1510000018", bytes(4) + bytes(page)).good
        initiator.command(0, "00")

        def write(number: int, data: bytes) -> None:
            if way == "fua":
                cdb = b"\x8a\x08" + number.to_bytes(8, "big") + (1).to_bytes(4, "big") + b"\0\0"
                assert initiator.command(0, cdb, data).good
            elif way == "write same":
                assert initiator.write_same(0, number, 1, data).good
            elif way == "unmap":
                assert initiator.unmap(0, [Range(number, 1)]).good
            elif way == "token":
                assert initiator.write(1, 0, 1, data).good
                assert initiator.write_token(0, initiator.token(1, [Range(0, 1)]), [Range(number, 1)]).good
            elif way == "extended copy":
                assert initiator.write(1, 0, 1, data).good
                parameters = extended_copy(initiator, number)
                cdb = bytes((0x83, 0)) + bytes(8) + len(parameters).to_bytes(4, "big")
                assert initiator.command(0, cdb, parameters).good
            else:
                assert initiator.write(0, number, 1, data).good

        done = play(server, guest.front, write)
    expected = [bytes(512)] * len(done) if way == "unmap" else done
    assert len(done) == 29
    assert on_the_medium(tmp_path, len(done)) == expected


@pytest.mark.parametrize("state", [False, True], ids=["no state", "with a state folder"])
def test_no_token_outlives_the_power(tmp_path: Path, *, state: bool) -> None:
    """The next server does not know it, or knows that it was cancelled: it never shows data that were lost."""
    more = ("--state", str(tmp_path / "state")) if state else ()
    with serve(tmp_path, 2, 2, "scsi", *more) as server, ScsiGuest(tmp_path / "s.sock") as guest:
        assert guest.initiator.write(0, 0, 1, b"n" * 512).good
        token = guest.initiator.token(0, [Range(0, 1)])
        play(server, guest.front, lambda number, data: _insist(guest, number, data))
    with serve(tmp_path, 2, 1000, "scsi", *more), ScsiGuest(tmp_path / "s.sock") as guest:
        cause = 8 if state else 4
        assert guest.initiator.write_token(1, token, [Range(0, 1)]).fault == (5, 0x23, cause)


def test_a_token_in_use_does_not_either(tmp_path: Path) -> None:
    """The power goes in the second step of a copy in the background: neither token nor copy comes back."""
    state = ("--state", str(tmp_path / "state"))
    with serve(tmp_path, 2, 2, "scsi", *state) as server, ScsiGuest(tmp_path / "s.sock") as guest:
        initiator = guest.initiator
        assert initiator.write(1, 0, 2048, b"t" * 2048 * 512).good
        token = initiator.token(1, [Range(0, BLOCKS)])
        assert initiator.write_token(0, token, [Range(0, BLOCKS)], immediate=True, identifier=77).good
        assert server._process.wait(PATIENCE) == EXIT_CODE
    with serve(tmp_path, 2, 1000, "scsi", *state), ScsiGuest(tmp_path / "s.sock") as guest:
        assert guest.initiator.write_token(0, token, [Range(0, 1)]).fault == (5, 0x23, 8)
        assert guest.initiator.information(0, 77).fault == (5, 0x24, 0)


def _insist(guest: ScsiGuest, number: int, data: bytes) -> None:
    assert guest.initiator.write(0, number, 1, data).good


def test_layers_are_checked(tmp_path: Path) -> None:
    """Names, options without their layer, values."""
    disk = f"id=d0,path={tmp_path}/d0.img,size=1M,"
    export = ["--export", f"type=vhost-user-blk,socket={tmp_path}/s.sock,disk=d0"]
    for options, code, cure in (
        ("layers=magic", 2, "'magic' is none; there are "),
        ("power-cut-seed=1", 2, "'power-cut-seed' needs its layer: add it to layers="),
        ("layers=power-cut+power-cut", 2, "given twice"),
        ("layers=power-cut,power-cut-seed=x", 1, "power-cut-seed=x is no number"),
    ):
        done = run_serve(["--disk", disk + options, *export])
        assert (done.returncode, cure in done.stderr) == (code, True), done.stderr
        assert not (tmp_path / "d0.img").exists()


def test_a_signal_ends_it_as_ever(tmp_path: Path) -> None:
    """Without a cut nothing is lost: the server flushes at its end."""
    with serve(tmp_path, 0, 1000, "blk") as server:
        guest = Blk(str(tmp_path / "s.sock")).go()
        data = os.urandom(512)
        guest.write(7, data)
        guest.front.close()
        assert server.terminate(signal.SIGTERM) == 0
    assert on_the_medium(tmp_path, 8)[7] == data
