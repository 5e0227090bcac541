"""Token copy over virtio-blk through the real server: the mailbox of one export, beside the other front doors."""

from __future__ import annotations

import os
import random
from itertools import count
from typing import TYPE_CHECKING
from zlib import crc32

import pytest
from guests import Blk, eventually

from qemu_odx.testing.initiator import Answer, Initiator
from qemu_odx.testing.mailbox import MailboxClient
from qemu_odx.testing.scsi_guest import ScsiGuest
from qemu_odx.testing.serve import ServeProcess, run_serve
from qemu_odx.wire.mailbox import MailboxFormatError, Request
from qemu_odx.wire.scsi.token_lists import Range
from qemu_odx.wire.virtio import blk

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MIB = 1 << 20
PLACE, LENGTH = 524288, 278528
RESERVATION_CONFLICT = 0x18
FILLED = b"under the window" * (LENGTH // 16)


def arguments(folder: Path, *, mailbox: str) -> list[str]:
    """Two disks: both as LUNs of `s.sock`, each as a blk export, and the first again as `p.sock`, a plain one."""
    words = []
    for name in ("d0", "d1"):
        words += ["--disk", f"id={name},path={folder}/{name}.img,size=64M,serial={name}"]
        words += ["--export", f"type=vhost-user-blk,socket={folder}/{name}.sock,disk={name}{mailbox}"]
    words += ["--export", f"type=vhost-user-scsi,socket={folder}/s.sock,lun0=d0,lun1=d1"]
    return [*words, "--export", f"type=vhost-user-blk,socket={folder}/p.sock,disk=d0"]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ServeProcess]:
    """A server whose images hold something under the windows."""
    for name in ("d0", "d1"):
        with (tmp_path / f"{name}.img").open("wb") as image:
            image.truncate(64 * MIB)
            image.seek(PLACE)
            image.write(FILLED)
    with ServeProcess(arguments(tmp_path, mailbox=",mailbox=on"), cwd=tmp_path) as process:
        yield process


@pytest.fixture
def first(server: ServeProcess) -> Iterator[Blk]:
    """A guest on the first disk."""
    guest = Blk(str(server.cwd / "d0.sock")).go()
    with guest.front:
        yield guest


@pytest.fixture
def second(server: ServeProcess) -> Iterator[Blk]:
    """A guest on the second disk."""
    guest = Blk(str(server.cwd / "d1.sock")).go()
    with guest.front:
        yield guest


def under_the_window(folder: Path, name: str = "d0") -> bytes:
    """What the image holds there."""
    with (folder / f"{name}.img").open("rb") as image:
        image.seek(PLACE)
        return image.read(LENGTH)


def test_old_data_arrives_by_mailboxes_alone(first: Blk, second: Blk) -> None:
    """Populate over one virtio-blk disk, overwrite, write the token over another, read."""
    old = os.urandom(MIB)
    first.write(4096, old)
    token = MailboxClient(first.write, first.read).initiator().token(0, [Range(4096, 2048)])
    first.write(4096, bytes(MIB))
    assert (
        MailboxClient(second.write, second.read).initiator().write_token(0, token, [Range(8192, 2048)]).good
    )
    assert second.read(8192, MIB) == old


def test_tokens_of_scsi_and_of_the_mailbox_are_the_same(server: ServeProcess, first: Blk) -> None:
    """Each is good at the other door, and stands for the same bytes."""
    data = os.urandom(64 << 10)
    first.write(4096, data)
    by_mailbox = MailboxClient(first.write, first.read).initiator()
    with ScsiGuest(server.cwd / "s.sock") as guest:
        by_scsi = guest.initiator
        tokens = [by_mailbox.token(0, [Range(4096, 128)]), by_scsi.token(0, [Range(4096, 128)])]
        first.write(4096, bytes(len(data)))
        for place, token in enumerate(tokens):
            assert by_scsi.write_token(1, token, [Range(10000 + 128 * place, 128)]).good
            assert by_mailbox.write_token(0, token, [Range(20000 + 128 * place, 128)]).good
            assert by_scsi.read(1, 10000 + 128 * place, 128).data == data
            assert first.read(20000 + 128 * place, len(data)) == data


def test_both_doors_describe_the_same_unit(server: ServeProcess, first: Blk) -> None:
    """Device identification, capacity and copy limits; and the head page has the same designator and serial."""
    client = MailboxClient(first.write, first.read)
    by_mailbox = client.initiator()
    with ScsiGuest(server.cwd / "s.sock") as guest:
        for cdb in ("12018300ff00", "12018000ff00", "12018f00ff00", "9e1000000000000000000000002000"):
            assert by_mailbox.command(0, cdb) == guest.initiator.command(0, cdb)
        assert client.head.naa in guest.initiator.command(0, "12018300ff00").data
    assert client.head.serial == "d0"


def test_the_image_is_untouched_under_the_window(server: ServeProcess, first: Blk) -> None:
    """Commands, rubbish and discards there; then the image, a plain export, and a server without mailboxes."""
    MailboxClient(first.write, first.read, slot=3).initiator().token(0, [Range(0, 8)])
    first.write(PLACE // 512, os.urandom(LENGTH))
    segment = blk.SEGMENT.pack(PLACE // 512, LENGTH // 512, 0)
    for kind in (blk.RequestType.DISCARD, blk.RequestType.WRITE_ZEROES):
        assert first.request(kind, data=segment)[0] == blk.Status.OK
    assert under_the_window(server.cwd) == FILLED
    plain = Blk(str(server.cwd / "p.sock")).go()
    with plain.front:
        assert plain.read(PLACE // 512, LENGTH) == FILLED
    assert server.terminate() == 0
    with ServeProcess(arguments(server.cwd, mailbox=""), cwd=server.cwd):
        again = Blk(str(server.cwd / "d0.sock")).go()
        with again.front:
            assert again.read(PLACE // 512, LENGTH) == FILLED
            with pytest.raises(MailboxFormatError, match="no mailbox"):
                MailboxClient(again.write, again.read)


def test_off_is_no_mailbox(tmp_path: Path) -> None:
    """As if it was not given."""
    with ServeProcess(arguments(tmp_path, mailbox=",mailbox=off"), cwd=tmp_path):
        guest = Blk(str(tmp_path / "d0.sock")).go()
        with guest.front:
            assert guest.read(PLACE // 512, LENGTH) == bytes(LENGTH)


def test_a_mailbox_elsewhere(tmp_path: Path) -> None:
    """Where the option says; the default place is plain disk."""
    with ServeProcess(arguments(tmp_path, mailbox=",mailbox=63M"), cwd=tmp_path):
        guest = Blk(str(tmp_path / "d0.sock")).go()
        with guest.front:
            client = MailboxClient(guest.write, guest.read, offset=63 * MIB)
            assert client.initiator().command(0, "00").good
            assert guest.read(PLACE // 512, 4096) == bytes(4096)


def test_a_reconnect_empties_the_slots(server: ServeProcess, first: Blk) -> None:
    """A new driver finds no answer, no lease and no results of the old one; tokens live."""
    initiator = MailboxClient(first.write, first.read).initiator()
    token = initiator.token(0, [Range(0, 8)])
    first.front.lose()

    def again() -> bool:
        guest = Blk(str(server.cwd / "d0.sock")).go()
        with guest.front:
            assert not any(guest.read((PLACE + 16384) // 512, LENGTH - 16384))
            initiator = MailboxClient(guest.write, guest.read).initiator()
            assert initiator.information(0, 0).fault == (5, 0x24, 0)
            return initiator.write_token(0, token, [Range(64, 8)]).good

    eventually(again, "the new guest is not served")


def test_a_reservation_through_the_mailbox_is_the_guests_own(server: ServeProcess, first: Blk) -> None:
    """Its plain writes go on, another export's end; and the other way round the mailbox still answers."""
    own = MailboxClient(first.write, first.read).initiator()
    plain = Blk(str(server.cwd / "p.sock")).go()
    with plain.front, ScsiGuest(server.cwd / "s.sock") as scsi:
        assert own.command(0, "16").good  # RESERVE(6)
        first.write(8, b"mine" * 128)
        assert plain.request(blk.RequestType.OUT, 8, bytes(512))[0] == blk.Status.IOERR
        assert own.command(0, "17").good  # RELEASE(6)
        plain.write(8, bytes(512))
        assert scsi.initiator.command(0, "16").good
        assert first.request(blk.RequestType.OUT, 8, bytes(512))[0] == blk.Status.IOERR
        assert own.command(0, "00").status == RESERVATION_CONFLICT


def test_a_long_copy_holds_its_write_and_nothing_else(first: Blk) -> None:
    """60 MiB to the same disk in slot 0: meanwhile, unless we are late, a plain read and a command in slot 1."""
    for at in range(1, 61):
        first.write(at * 2048, os.urandom(MIB))
    other = MailboxClient(first.write, first.read, slot=1)
    token = other.initiator().token(0, [Range(2048, 60 * 2048)])
    sent: list[tuple[bytes, bytes]] = []

    def note(lun: int, cdb: bytes, data_out: bytes) -> Answer:
        sent.append((cdb, data_out))
        return Answer(0, b"", b"")

    Initiator(note).write_token(0, token, [Range(4096, 60 * 2048)], identifier=1000)
    client, sequences = MailboxClient(first.write, first.read), count(1)

    def other_things_during_a_copy() -> bool:
        sequence = next(sequences)
        page = Request(sequence, client.user, *sent[0]).packed().ljust(8192, b"\0")
        copy = first.queue.submit(blk.HEADER.pack(blk.RequestType.OUT, 0, client.place // 512) + page, 1)
        data = first.read(63 * 2048, 512)
        assert other(0, bytes(6), b"").good
        meanwhile = copy.written is None
        while copy.written is None:
            first.queue.completions() or first.queue.wait()
        assert (client.response().sequence, client.response().status) == (sequence, 0)
        assert first.read(63 * 2048, 512) == data
        return meanwhile

    eventually(other_things_during_a_copy, "nothing was ever done before the copy had ended")


def hostile_page(rng: random.Random) -> bytes:
    """Rubbish, or a sound request with some bytes changed, its checksum right or not."""
    if rng.random() < 0.3:
        return rng.randbytes(512)
    page = bytearray(Request(1, 1, rng.randbytes(16), rng.randbytes(300), 64).packed())
    for _ in range(rng.randrange(3)):
        page[rng.randrange(len(page))] = rng.randrange(256)
    if rng.random() < 0.7:
        page[36:40] = bytes(4)
        page[36:40] = crc32(page).to_bytes(4, "little")
    return bytes(page)


def test_hostile_pages_hurt_nobody(server: ServeProcess, first: Blk, second: Blk) -> None:
    """A thousand of them, at slots and elsewhere; the other disk goes on, the image and the log stay clean."""
    rng = random.Random(4711)
    victim = MailboxClient(second.write, second.read).initiator()
    for number in range(1000):
        slot = PLACE + 16384 * rng.randrange(1, 17)
        offset = slot if number % 2 else PLACE + 512 * rng.randrange(LENGTH // 512)
        first.write(offset // 512, hostile_page(rng).ljust(512 * rng.choice([1, 2, 16]), b"\xa5")[:8192])
        if number % 250 == 0:
            assert victim.command(0, "00").good
    assert under_the_window(server.cwd) == under_the_window(server.cwd, "d1") == FILLED
    assert MailboxClient(first.write, first.read).head.serial == "d0"
    assert server.alive
    assert "Traceback" not in server.errors()


@pytest.mark.parametrize(
    ("disk", "mailbox", "reason"),
    [
        ("size=512K", "on", "choose a smaller mailbox=OFFSET or a larger disk"),
        ("size=780K", "524288", "ends at 802816, behind the end of disk d0 at 798720"),
        ("size=1M", "1M", "ends at 1327104, behind the end of disk d0 at 1048576"),
    ],
)
def test_a_mailbox_that_does_not_fit(tmp_path: Path, disk: str, mailbox: str, reason: str) -> None:
    """One sentence with the cure, and nothing left behind."""
    export = f"type=vhost-user-blk,socket=b.sock,disk=d0,mailbox={mailbox}"
    done = run_serve(["--disk", f"id=d0,path=a.img,{disk}", "--export", export], cwd=tmp_path)
    assert (done.returncode, reason in done.stderr) == (1, True), done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_read_only_disk_has_no_mailbox(tmp_path: Path) -> None:
    """The reason, and what to leave out."""
    (tmp_path / "a.img").write_bytes(bytes(MIB))
    export = "type=vhost-user-blk,socket=b.sock,disk=d0,mailbox=on"
    done = run_serve(["--disk", "id=d0,path=a.img,readonly=on", "--export", export], cwd=tmp_path)
    assert done.returncode == 1
    assert "read-only, and a mailbox is written to: leave out mailbox= or readonly=on" in done.stderr
