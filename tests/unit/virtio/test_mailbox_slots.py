"""The slots of the mailbox: every row of `docs/mailbox.md` about requests and responses."""

from __future__ import annotations

from typing import TYPE_CHECKING

import mailbox_pages as pages
import pytest
from mailbox_bench import TEST_UNIT_READY, slot

from qemu_odx.testing.initiator import Answer, Initiator
from qemu_odx.testing.mailbox import MailboxClient, RefusedError
from qemu_odx.wire.mailbox import MailboxFormatError, Result
from qemu_odx.wire.mailbox import Request as MailboxRequest
from qemu_odx.wire.scsi.token_lists import Range, TokenInformation
from qemu_odx.wire.virtio.blk import RequestType

if TYPE_CHECKING:
    from mailbox_bench import Bench

    from qemu_odx.testing.driver import Request
    from qemu_odx.testing.ram import GuestRam

INQUIRY = bytes.fromhex("120000006000")
READ_16 = bytes.fromhex("88000000000000000000000000400000")  # 64 blocks from 0 on
ALICE, BOB = 0xA11CE, 0xB0B


def test_a_command_is_executed(mailbox: Bench) -> None:
    """INQUIRY, which a new nexus may send at once: sequence, user, status, data."""
    mailbox.send(pages.request(INQUIRY, wanted=96, sequence=41, user=ALICE))
    area = mailbox.answer()
    assert [pages.get(area, at, 8) for at in (8, 16)] == [41, ALICE]
    assert [pages.get(area, at, 4) for at in (24, 28, 32, 36, 40)] == [0, 0, 0, 96, 96]
    assert area[96 + 8 : 96 + 16] == b"QEMU_ODX"
    assert not any(area[96 + 96 :])


def test_the_first_command_meets_the_unit_attention(mailbox: Bench) -> None:
    """CHECK CONDITION with 29/00 in the sense data; the second goes through."""
    mailbox.send(pages.request(TEST_UNIT_READY))
    area = mailbox.answer()
    assert [pages.get(area, at, 4) for at in (24, 28)] == [0, 2]
    assert pages.get(area, 32, 4) == 18
    assert (area[48] & 0x7F, area[48 + 2], area[48 + 12], area[48 + 13]) == (0x70, 6, 0x29, 0)
    mailbox.send(pages.request(TEST_UNIT_READY, sequence=2))
    assert pages.get(mailbox.answer(), 28, 4) == 0


def test_data_in_is_cut_to_what_was_wanted(mailbox: Bench) -> None:
    """READ of 32 KiB: a little of it is here, the response says how much there was."""
    mailbox.disk.write(0, [bytes(range(256)) * 128])
    mailbox.client().initiator()
    mailbox.clock.advance(31)
    mailbox.send(pages.request(READ_16, wanted=1000))
    area = mailbox.answer()
    assert [pages.get(area, at, 4) for at in (28, 36, 40)] == [0, 1000, 64 * 512]
    assert area[96:1096] == (bytes(range(256)) * 4)[:1000]
    assert not any(area[1096:])


def test_the_largest_request_and_response(mailbox: Bench) -> None:
    """8096 bytes out (16 blocks short of 8192: a parameter list of UNMAP with room to spare), 8096 in."""
    client = mailbox.client()
    client.initiator()
    unmap = bytes.fromhex("42000000000000") + (8096).to_bytes(2, "big") + bytes(1)
    answer = client.exchange(MailboxRequest(100, client.user, unmap, bytes(8096)))
    assert (answer.result, answer.status) == (0, 0)
    answer = client.exchange(MailboxRequest(101, client.user, READ_16, wanted=8096))
    assert (len(answer.data_in), answer.offered) == (8096, 64 * 512)


def test_a_long_cdb(mailbox: Bench) -> None:
    """32 bytes arrive whole: 7Fh is no command of ours, and sense points at it, not at a length."""
    client = mailbox.client()
    client.initiator()
    cdb = bytes.fromhex("7f000000000000180009") + bytes(22)
    assert client(0, cdb, b"").fault == (5, 0x20, 0)


def test_bytes_behind_a_short_cdb_are_no_part_of_it(mailbox: Bench) -> None:
    """READ(10) of which 6 bytes are said to be there: zeros behind them, not what stands there."""
    mailbox.client().initiator()
    mailbox.clock.advance(31)
    mailbox.send(pages.request(bytes.fromhex("280000000000") + b"\xff" * 26, cdb_length=6))
    assert [pages.get(mailbox.answer(), at, 4) for at in (24, 28)] == [0, 0]


BAD_PAGES = {
    "magic": (pages.request(INQUIRY, magic=b"ODXA"), Result.BAD_MAGIC),
    "zeros": (bytes(512), Result.BAD_MAGIC),
    "version 0": (pages.request(INQUIRY, version=0), Result.BAD_VERSION),
    "version 2": (pages.request(INQUIRY, version=2), Result.BAD_VERSION),
    "header of 95 bytes": (pages.request(INQUIRY, header_length=95), Result.BAD_VERSION),
    "header of 128 bytes": (pages.request(INQUIRY, header_length=128), Result.BAD_VERSION),
    "CDB of 5 bytes": (pages.request(INQUIRY, cdb_length=5), Result.BAD_LENGTH),
    "CDB of 33 bytes": (pages.request(INQUIRY, cdb_length=33), Result.BAD_LENGTH),
    "CDB of 4 GiB": (pages.request(INQUIRY, cdb_length=0xFFFFFFFF), Result.BAD_LENGTH),
    "data-out of 4 GiB": (pages.request(INQUIRY, out_length=0xFFFFFFFF), Result.BAD_LENGTH),
    "data-out of 8097 bytes": (pages.request(INQUIRY, bytes(8097)), Result.BAD_LENGTH),
    "data-out not written": (pages.request(INQUIRY, bytes(416), out_length=417), Result.BAD_LENGTH),
    "data-in of 8097 bytes": (pages.request(INQUIRY, wanted=8097), Result.BAD_LENGTH),
    "data-in of 4 GiB": (pages.request(INQUIRY, wanted=0xFFFFFFFF), Result.BAD_LENGTH),
    "checksum": (pages.request(INQUIRY, checksum=1), Result.BAD_CHECKSUM),
    "torn data-out": (pages.request(INQUIRY, b"whole")[:-1] + b"!", Result.BAD_CHECKSUM),
    "user 0": (pages.request(INQUIRY, user=0), Result.BAD_USER),
    "all wrong": (pages.request(b"", user=0, magic=b"", version=9, checksum=0), Result.BAD_MAGIC),
    "all but the magic": (pages.request(b"", user=0, version=9, checksum=0), Result.BAD_VERSION),
    "length and later": (pages.request(b"", user=0, checksum=0), Result.BAD_LENGTH),
    "checksum and user": (pages.request(INQUIRY, user=0, checksum=0), Result.BAD_CHECKSUM),
}


@pytest.mark.parametrize("name", BAD_PAGES)
def test_a_bad_page_is_refused(mailbox: Bench, name: str) -> None:
    """Its result, the sequence and user it named, nothing else; and the slot takes the next request."""
    page, result = BAD_PAGES[name]
    image = mailbox.image()
    mailbox.send(page)
    identity = pages.get(page, 8, 8), pages.get(page, 16, 8)
    assert mailbox.answer() == pages.response(*identity, result)
    assert mailbox.image() == image
    assert mailbox.result(pages.request(INQUIRY, wanted=36)) == Result.EXECUTED


def test_a_torn_write_runs_no_command(mailbox: Bench) -> None:
    """A driver whose write is cut in two: the first half does not cover the data-out, the second begins inside."""
    mailbox.client().initiator()
    mailbox.clock.advance(31)
    write = bytes.fromhex("8a00000000000000000000000001 0000")
    page = pages.request(write, b"\x77" * 512).ljust(1024, b"\0")
    assert mailbox.result(page[:512]) == Result.BAD_LENGTH
    mailbox.write(slot(0) + 512, page[512:])
    assert pages.get(mailbox.answer(), 24, 4) == Result.BAD_LENGTH
    assert mailbox.image(0, 512) == bytes(512)
    assert mailbox.result(page) == Result.EXECUTED
    assert mailbox.image(0, 512) == b"\x77" * 512


def test_too_little_data_out_is_no_success(mailbox: Bench) -> None:
    """WRITE of two blocks with the data of one and rubbish behind: nothing is written, and the result says so."""
    mailbox.client().initiator()
    mailbox.clock.advance(31)
    write = bytes.fromhex("8a00000000000000000000000002 0000")
    page = pages.request(write, b"\x77" * 512).ljust(8192, b"\xee")
    assert mailbox.result(page) == Result.BAD_LENGTH
    assert mailbox.image(0, 1024) == bytes(1024)


@pytest.mark.parametrize(
    ("sequence", "result"), [(8, Result.EXECUTED), (7, Result.BAD_SEQUENCE), (6, Result.BAD_SEQUENCE)]
)
def test_sequences_rise(mailbox: Bench, sequence: int, result: Result) -> None:
    """A replayed or older request of the same user is refused, also after the lease."""
    assert mailbox.result(pages.request(INQUIRY, sequence=7)) == Result.EXECUTED
    mailbox.clock.advance(31)
    assert mailbox.result(pages.request(INQUIRY, sequence=sequence)) == result


def test_a_replayed_write_writes_nothing(mailbox: Bench) -> None:
    """The same page twice, with another write to the block in between."""
    mailbox.client().initiator()
    mailbox.clock.advance(31)
    page = pages.request(bytes.fromhex("8a00000000000000000000000001 0000"), b"\x77" * 512)
    mailbox.send(page)
    mailbox.disk.write(0, [b"\x88" * 512])
    assert mailbox.result(page) == Result.BAD_SEQUENCE
    assert mailbox.image(0, 512) == b"\x88" * 512


def test_a_refused_request_uses_up_no_sequence(mailbox: Bench) -> None:
    """Damaged with sequence 9, then sound with 2."""
    assert mailbox.result(pages.request(INQUIRY, sequence=1)) == Result.EXECUTED
    assert mailbox.result(pages.request(INQUIRY, sequence=9, checksum=0)) == Result.BAD_CHECKSUM
    assert mailbox.result(pages.request(INQUIRY, sequence=2)) == Result.EXECUTED


def test_sequences_belong_to_the_slot(mailbox: Bench) -> None:
    """The same number in another slot is fine, and the first slot's response stays."""
    mailbox.send(pages.request(INQUIRY, sequence=7, wanted=36), 0)
    before = mailbox.answer(0)
    assert mailbox.result(pages.request(INQUIRY, sequence=7), 1) == Result.EXECUTED
    assert mailbox.answer(0) == before


@pytest.mark.parametrize(
    ("seconds", "result"),
    [(0.0, Result.SLOT_TAKEN), (29.9, Result.SLOT_TAKEN), (30.0, Result.EXECUTED), (1e6, Result.EXECUTED)],
)
def test_another_user_waits_for_the_lease(mailbox: Bench, seconds: float, result: Result) -> None:
    """30 seconds after the last command the slot is free, for any sequence."""
    assert mailbox.result(pages.request(INQUIRY, sequence=100, user=ALICE)) == Result.EXECUTED
    mailbox.clock.advance(seconds)
    assert mailbox.result(pages.request(INQUIRY, sequence=1, user=BOB)) == result


def test_refused_requests_prolong_no_lease(mailbox: Bench) -> None:
    """Neither the owner's nor anybody else's."""
    assert mailbox.result(pages.request(INQUIRY, sequence=5, user=ALICE)) == Result.EXECUTED
    mailbox.clock.advance(20)
    assert mailbox.result(pages.request(INQUIRY, sequence=5, user=ALICE)) == Result.BAD_SEQUENCE
    assert mailbox.result(pages.request(INQUIRY, sequence=1, user=BOB)) == Result.SLOT_TAKEN
    mailbox.clock.advance(10)
    assert mailbox.result(pages.request(INQUIRY, sequence=1, user=BOB)) == Result.EXECUTED


def test_a_taken_slot_is_refused_before_the_sequence_is_looked_at(mailbox: Bench) -> None:
    """And the owner is not hurt: its next request is executed."""
    client = mailbox.client(user=ALICE)
    client.initiator()
    with pytest.raises(RefusedError, match="SLOT_TAKEN"):
        mailbox.client(user=BOB)(0, INQUIRY, b"")
    assert client(0, INQUIRY, b"").good


def test_a_driver_takes_only_its_own_response(mailbox: Bench) -> None:
    """What our client does when somebody else's request came in between its write and its read."""

    def write(sector: int, data: bytes) -> None:
        mailbox.write(sector * 512, data)
        mailbox.send(pages.request(INQUIRY, user=BOB))

    client = MailboxClient(write, lambda sector, length: mailbox.read(sector * 512, length), user=ALICE)
    with pytest.raises(MailboxFormatError, match="another request"):
        client(0, INQUIRY, b"")


# -- while a command runs --------------------------------------------------------------------------


def begin_copy(mailbox: Bench) -> Request:
    """Make a token for the first eight blocks, and leave its writing to blocks 64 on running in slot 0."""
    mailbox.disk.write(0, [b"old!" * 1024])
    token = mailbox.client(1, user=BOB).initiator().token(0, [Range(0, 8)])
    sent: list[tuple[bytes, bytes]] = []

    def note(lun: int, cdb: bytes, data_out: bytes) -> Answer:
        sent.append((cdb, data_out))
        return Answer(0, b"", b"")

    Initiator(note).write_token(0, token, [Range(64, 8)], identifier=77)
    page = pages.request(*sent[0], sequence=2, user=ALICE)
    running = mailbox.submit(RequestType.OUT, slot(0), page.ljust(8192, b"\0"))
    mailbox.queue.completions()
    assert running.written is None
    return running


def end_copy(mailbox: Bench, running: Request) -> None:
    """Let the copy go on to its end."""
    mailbox.copies.run_all()
    mailbox.queue.completions()
    assert running.data_in == b"\0"


def test_the_write_completes_when_the_copy_has(mailbox: Bench) -> None:
    """The previous response is shown until then; then the copy's, with the data in place."""
    mailbox.send(pages.request(INQUIRY, sequence=1, user=ALICE, wanted=36))
    before = mailbox.answer()
    running = begin_copy(mailbox)
    assert mailbox.answer() == before
    end_copy(mailbox, running)
    area = mailbox.answer()
    assert [pages.get(area, 8, 8), pages.get(area, 16, 8)] == [2, ALICE]
    assert [pages.get(area, at, 4) for at in (24, 28)] == [0, 0]
    assert mailbox.image(64 * 512, 4096) == b"old!" * 1024


def test_other_slots_and_other_io_go_on(mailbox: Bench) -> None:
    """Meanwhile commands in another slot, plain reads and writes, the other queue."""
    running = begin_copy(mailbox)
    assert mailbox.result(pages.request(INQUIRY), 2) == Result.EXECUTED
    mailbox.write(0, b"new!" * 128)
    assert mailbox.read(0, 512) == b"new!" * 128
    mailbox.queue = mailbox.second
    assert mailbox.read(512, 512) == b"old!" * 128
    assert running.written is None


@pytest.mark.parametrize("user", [ALICE, BOB])
def test_a_second_request_while_one_runs(mailbox: Bench, user: int) -> None:
    """Refused whoever sends it, and the refusal is shown until the first ends, whose answer is not lost."""
    running = begin_copy(mailbox)
    assert mailbox.result(pages.request(INQUIRY, sequence=3, user=user)) == Result.SLOT_TAKEN
    assert mailbox.answer() == pages.response(3, user, Result.SLOT_TAKEN)
    end_copy(mailbox, running)
    assert pages.get(mailbox.answer(), 8, 8) == 2


def test_the_lease_counts_from_the_end_of_a_command(mailbox: Bench) -> None:
    """A copy of an hour: its user still has the time to read the answer."""
    running = begin_copy(mailbox)
    mailbox.clock.advance(3600)
    assert mailbox.result(pages.request(INQUIRY, sequence=1, user=BOB)) == Result.SLOT_TAKEN
    end_copy(mailbox, running)
    assert mailbox.result(pages.request(INQUIRY, sequence=1, user=BOB)) == Result.SLOT_TAKEN
    mailbox.clock.advance(30)
    assert mailbox.result(pages.request(INQUIRY, sequence=1, user=BOB)) == Result.EXECUTED


def test_a_lost_answer_is_asked_for_elsewhere(mailbox: Bench) -> None:
    """All users share the nexus: RECEIVE ROD TOKEN INFORMATION in another slot tells how the copy ended."""
    end_copy(mailbox, begin_copy(mailbox))
    mailbox.send(pages.request(INQUIRY, sequence=1, user=BOB))
    assert mailbox.answer() == pages.response(1, BOB, Result.SLOT_TAKEN)
    answer = Initiator(mailbox.client(3)).information(0, 77)
    status = TokenInformation.parse(answer.data).status
    assert (status.status, status.count) == (1, 8)


def test_the_page_is_looked_at_once(mailbox: Bench, ram: GuestRam) -> None:
    """The guest changes CDB and data while the command runs: what was checked is what is executed."""
    running = begin_copy(mailbox)
    for piece in running.pieces:
        if not piece.writable:
            ram.write(piece.gpa, b"\xff" * piece.length)
    end_copy(mailbox, running)
    assert pages.get(mailbox.answer(), 28, 4) == 0
    assert mailbox.image(64 * 512, 4096) == b"old!" * 1024


# -- lives of a driver -----------------------------------------------------------------------------


def test_a_queue_stops_when_the_copy_has_ended(mailbox: Bench) -> None:
    """Nothing touches the ring after `stopped`."""
    running = begin_copy(mailbox)
    stopped: list[int] = []
    mailbox.device.stop_queue(0, stopped.append)
    assert stopped == []
    end_copy(mailbox, running)
    assert len(stopped) == 1


@pytest.mark.parametrize("end", ["reset", "disconnected"])
def test_a_new_life_begins_with_empty_slots(mailbox: Bench, end: str) -> None:
    """Nothing of the old responses, users, sequences and results; unit attention again; tokens live."""
    initiator = mailbox.client(user=ALICE).initiator()
    mailbox.disk.write(0, [b"old!" * 1024])
    token = initiator.token(0, [Range(0, 8)])
    getattr(mailbox.device, end)()
    assert not any(mailbox.answer())
    assert mailbox.target.nexuses() == ()
    other = Initiator(mailbox.client(user=BOB))
    assert other.command(0, "00").fault == (6, 0x29, 0)
    assert other.information(0, 0).fault == (5, 0x24, 0)
    assert other.write_token(0, token, [Range(64, 8)]).good
    assert mailbox.image(64 * 512, 4096) == b"old!" * 1024


def test_a_task_that_another_nexus_ends(mailbox: Bench) -> None:
    """TASK ABORTED in the response; the write still ends well."""
    running = begin_copy(mailbox)
    mailbox.target.reset_lun(0, lambda _: None)
    end_copy(mailbox, running)
    assert [pages.get(mailbox.answer(), at, 4) for at in (24, 28)] == [0, 0x40]
