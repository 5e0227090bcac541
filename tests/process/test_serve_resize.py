"""Images that are made larger while guests use them: SIGUSR1 makes the server look."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

import pytest
from guests import MIB, Blk, eventually

from qemu_odx.testing.scsi_guest import ScsiGuest
from qemu_odx.testing.serve import ServeProcess
from qemu_odx.wire.virtio import blk, scsi

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ServeProcess]:
    """One disk behind both kinds of export, another one beside it."""
    arguments = [
        *("--disk", "id=d0,path=a.img,size=16M", "--disk", "id=d1,path=b.img,size=16M"),
        *("--export", "type=vhost-user-blk,socket=b.sock,disk=d0"),
        *("--export", "type=vhost-user-scsi,socket=s.sock,lun0=d1,lun3=d0"),
        *("--export", "type=vhost-user-blk,socket=c.sock,disk=d1"),
        "-v",
    ]
    with ServeProcess(arguments, cwd=tmp_path) as process:
        yield process


def resize(server: ServeProcess, size: int, said: str) -> None:
    """Another size, and wait until the server has said something about it."""
    os.truncate(server.cwd / "a.img", size)
    os.kill(server.pid, signal.SIGUSR1)
    eventually(lambda: said in server.errors(), f"it never said {said}")


def capacity(guest: Blk) -> int:
    """What the configuration space says now, in bytes."""
    return 512 * int.from_bytes(guest.front.get_config(0, 57)[:8], "little")


def test_a_blk_guest_is_told_and_uses_the_new_room(server: ServeProcess, guests: Callable[..., Blk]) -> None:
    """QEMU is asked to read the configuration again; the other export hears nothing."""
    guest, other = (guests(str(server.cwd / name)).go() for name in ("b.sock", "c.sock"))
    assert guest.request(blk.RequestType.IN, 20 * 2048, room=512)[0] == blk.Status.IOERR
    resize(server, 24 * MIB, f"disk d0: now {24 * MIB} bytes")
    assert guest.front.config_change_pending()
    assert capacity(guest) == 24 * MIB
    guest.write(20 * 2048, b"new" * 512)
    assert guest.read(20 * 2048, 1536) == b"new" * 512
    assert other.front.config_unchanged()
    assert capacity(other) == 16 * MIB


def test_a_guest_that_is_stopped_is_told_when_it_starts(
    server: ServeProcess, guests: Callable[..., Blk]
) -> None:
    """QEMU does not listen before; and not again when it has read it."""
    guest = guests(str(server.cwd / "b.sock")).go()
    guest.front.stop()
    resize(server, 24 * MIB, "now")
    assert guest.front.config_unchanged()
    guest.front.start()
    assert guest.front.config_change_pending()
    assert capacity(guest) == 24 * MIB
    guest.front.stop()
    guest.front.start()
    assert guest.front.config_unchanged()


def test_a_message_that_was_ignored_is_repeated_at_the_next_start(
    server: ServeProcess, guests: Callable[..., Blk]
) -> None:
    """QEMU may have stopped the device just when it came."""
    guest = guests(str(server.cwd / "b.sock")).go()
    resize(server, 24 * MIB, "now")
    assert guest.front.config_change_pending()
    guest.front.stop()
    guest.front.start()
    assert guest.front.config_change_pending()


def test_a_scsi_guest_gets_an_event_and_a_unit_attention(server: ServeProcess) -> None:
    """PARAM_CHANGE with 2A/09 for the unit on that disk, then READ CAPACITY says the new size."""
    with ScsiGuest(server.cwd / "s.sock") as guest:
        events = guest.front.queues[scsi.EVENT_QUEUE]
        buffers = [events.submit(b"", scsi.EVENT_SIZE) for _ in range(4)]
        resize(server, 24 * MIB, "now")
        while not events.completions():
            events.wait()
        kind, lun, reason = scsi.EVENT.unpack(buffers[0].data_in)
        assert (kind, scsi.decode_lun(lun), reason) == (scsi.Event.PARAM_CHANGE, (0, 3, False), 0x092A)
        assert guest.initiator.command(3, "00").fault == (6, 0x2A, 0x09)
        last = guest.initiator.command(3, "9e100000000000000000000000200000").data[:8]
        assert int.from_bytes(last, "big") == 24 * 2048 - 1
        assert guest.initiator.command(0, "00").good


def test_an_image_that_shrank_is_not_followed(server: ServeProcess, guests: Callable[..., Blk]) -> None:
    """The guest goes on; what is gone is an error; the log names the cure, which works."""
    guest = guests(str(server.cwd / "b.sock")).go()
    resize(server, 8 * MIB, f"disk d0: its image has shrunk: make it {16 * MIB} bytes again")
    assert guest.request(blk.RequestType.IN, 12 * 2048, room=512)[0] == blk.Status.IOERR
    assert guest.read(0, 512) == bytes(512)
    assert guest.front.config_unchanged()
    os.truncate(server.cwd / "a.img", 16 * MIB)
    assert guest.read(12 * 2048, 512) == bytes(512)


def test_a_size_that_is_no_whole_number_of_blocks(server: ServeProcess, guests: Callable[..., Blk]) -> None:
    """The last, half block is left out."""
    guest = guests(str(server.cwd / "b.sock")).go()
    resize(server, 24 * MIB + 700, "now")
    assert capacity(guest) == 24 * MIB + 512
