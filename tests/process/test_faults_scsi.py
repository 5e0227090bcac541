"""Faults at the SCSI door of the real server, each as an initiator sees it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
from fault_rig import FaultRig, fault_rig, held, lasting, scsi_end, stays_open
from guests import Blk, eventually

from qemu_odx.faults.actions import STATUSES
from qemu_odx.faults.senses import SENSES
from qemu_odx.testing.faults import FaultError
from qemu_odx.testing.mailbox import MailboxClient
from qemu_odx.wire.scsi.sense import pointer_of
from qemu_odx.wire.scsi.token_lists import Range, TokenInformation
from qemu_odx.wire.virtio import scsi
from qemu_odx.wire.virtio.scsi import Response, TaskManagement

if TYPE_CHECKING:
    from collections.abc import Iterator

    from qemu_odx.testing.initiator import Initiator

READ_ONE = bytes.fromhex("88000000000000000000000000010000")
WRITE_ONE = bytes.fromhex("8a000000000000000000000000010000")


@pytest.fixture(scope="module")
def module_rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FaultRig]:
    """One server for the module: it outlives what these rules do."""
    with fault_rig(tmp_path_factory.mktemp("faults")) as made:
        yield made


@pytest.fixture
def rig(module_rig: FaultRig) -> Iterator[FaultRig]:
    """It, without rules before and after."""
    yield module_rig
    module_rig.faults.clear()
    assert module_rig.server.alive


@pytest.fixture
def initiator(rig: FaultRig) -> Initiator:
    """Sends commands to units 0 and 1."""
    return rig.scsi.initiator


@pytest.mark.parametrize("name", [name for name, value in SENSES.items() if value.asc == 0x23])
def test_every_token_cause_by_name(rig: FaultRig, initiator: Initiator, name: str) -> None:
    """As the sense bytes of WRITE USING TOKEN, and as its result; nothing was written; then the token works."""
    old = os.urandom(8 * 512)
    assert initiator.write(0, 100, 8, old).good
    assert initiator.write(1, 100, 8, bytes(8 * 512)).good
    token = initiator.token(0, [Range(100, 8)])
    with rig.fault(f"op=WRITE USING TOKEN,count=1,sense={name}"):
        answer = initiator.write_token(1, token, [Range(100, 8)], identifier=77)
        assert answer.sense == SENSES[name].fixed()
        assert answer.fault == (5, 0x23, SENSES[name].ascq)
        result = TokenInformation.parse(initiator.information(1, 77).data).status
        assert (result.status, result.count, result.sense[: len(answer.sense)]) == (2, 0, answer.sense)
        assert initiator.read(1, 100, 8).data == bytes(8 * 512)
        assert initiator.write_token(1, token, [Range(100, 8)]).good
    assert initiator.read(1, 100, 8).data == old


@pytest.mark.parametrize(("word", "status"), STATUSES.items())
def test_status_words(rig: FaultRig, initiator: Initiator, word: str, status: int) -> None:
    """No sense data come with them, and the write has not happened."""
    assert initiator.write(0, 5, 1, b"a" * 512).good
    with rig.fault(f"op=write,action=status,status={word},count=1"):
        answer = initiator.write(0, 5, 1, b"b" * 512)
        assert (answer.status, answer.sense) == (status, b"")
    assert initiator.read(0, 5, 1).data == b"a" * 512


def test_sense_after_the_deed(rig: FaultRig, initiator: Initiator) -> None:
    """when=after: the write is done, and the guest told otherwise; INFORMATION is what the rule says."""
    with rig.fault("op=write,sense=write-error,information=7,when=after"):
        answer = initiator.write(0, 7, 1, b"c" * 512)
        assert answer.fault == (3, 0x0C, 0)
        assert answer.full_sense is not None
        assert answer.full_sense.information == 7
    assert initiator.read(0, 7, 1).data == b"c" * 512


def test_a_bad_block(rig: FaultRig, initiator: Initiator) -> None:
    """By LBA, whatever touches it: reads, and the token that would be made of it."""
    with rig.fault("disk=d0,lba=1000,op=read+POPULATE TOKEN,sense=unrecovered-read-error"):
        assert initiator.read(0, 992, 8).good
        assert initiator.read(0, 996, 8).fault == (3, 0x11, 0)
        assert initiator.read(1, 996, 8).good
        assert initiator.populate(0, [Range(0, 8), Range(990, 11)], identifier=3).fault == (3, 0x11, 0)
        assert TokenInformation.parse(initiator.information(0, 3).data).token is None
        assert initiator.populate(0, [Range(0, 8), Range(990, 10)]).good


def test_partial_read_and_write(rig: FaultRig, initiator: Initiator) -> None:
    """The first blocks are done; INFORMATION has the first that is not."""
    old, new = os.urandom(8 * 512), os.urandom(8 * 512)
    assert initiator.write(0, 2000, 8, old).good
    with rig.fault("action=partial,blocks=3,op=read+write"):
        answer = initiator.write(0, 2000, 8, new)
        assert (answer.fault, answer.full_sense and answer.full_sense.information) == ((3, 0x0C, 0), 2003)
        answer = initiator.read(0, 2000, 8)
        assert (answer.fault, answer.full_sense and answer.full_sense.information) == ((3, 0x11, 0), 2003)
        assert answer.data == new[: 3 * 512]
        assert initiator.read(0, 2000, 3).data == new[: 3 * 512]
    assert initiator.read(0, 2000, 8).data == new[: 3 * 512] + old[3 * 512 :]


@pytest.mark.parametrize("blocks", [0, 1, 5, 11])
def test_partial_token_write_is_a_prefix(rig: FaultRig, initiator: Initiator, blocks: int) -> None:
    """In the order of the descriptors; TRANSFER COUNT is in the sense data and in the result."""
    data = os.urandom(12 * 512)
    assert initiator.write(0, 3000, 12, data).good
    token = initiator.token(0, [Range(3000, 12)])
    for lba in (400, 300):
        assert initiator.write(1, lba, 6, bytes(6 * 512)).good
    with rig.fault(f"action=partial,op=WRITE USING TOKEN,blocks={blocks}"):
        answer = initiator.write_token(1, token, [Range(400, 6), Range(300, 6)], identifier=9)
        assert answer.fault == ((0xA if blocks else 5), 0x0D, 4)
        assert answer.full_sense is not None
        assert answer.full_sense.information == blocks
        result = TokenInformation.parse(initiator.information(1, 9).data).status
        assert (result.status, result.completion, result.count) == (3, 2, blocks)
        assert result.sense[: len(answer.sense)] == answer.sense
    found = initiator.read(1, 400, 6).data + initiator.read(1, 300, 6).data
    assert found == data[: blocks * 512].ljust(12 * 512, b"\0")


def test_partial_populate_makes_a_shorter_token(rig: FaultRig, initiator: Initiator) -> None:
    """It stands for the first blocks alone: a write that asks for more is cut or refused."""
    data = os.urandom(12 * 512)
    assert initiator.write(0, 3100, 12, data).good
    with rig.fault("action=partial,op=POPULATE TOKEN,blocks=5"):
        answer = initiator.populate(0, [Range(3100, 12)], identifier=11)
        assert (answer.fault, answer.full_sense and answer.full_sense.information) == ((0xA, 0x0D, 4), 5)
    information = TokenInformation.parse(initiator.information(0, 11).data)
    assert (information.status.status, information.status.count) == (3, 5)
    assert information.token is not None
    assert initiator.write(0, 3100, 12, bytes(12 * 512)).good
    assert initiator.write_token(1, information.token, [Range(600, 6)]).fault == (5, 0x0D, 4)
    assert initiator.write_token(1, information.token, [Range(600, 5)]).good
    assert initiator.read(1, 600, 5).data == data[: 5 * 512]


def test_short_read(rig: FaultRig, initiator: Initiator) -> None:
    """GOOD, with a residual."""
    data = os.urandom(8 * 512)
    assert initiator.write(0, 50, 8, data).good
    with rig.fault("action=short-read,blocks=2"):
        answer = initiator.read(0, 50, 8)
    assert (answer.good, answer.data) == (True, data[:1024])


def test_bit_flip(rig: FaultRig, initiator: Initiator) -> None:
    """Exactly the bit that was named; without a name one of them, always the same for the same seed."""
    data = os.urandom(512)
    assert initiator.write(0, 60, 1, data).good
    with rig.fault("action=bit-flip,byte=3,bit=7,op=read"):
        assert initiator.read(0, 60, 1).data == data[:3] + bytes([data[3] ^ 0x80]) + data[4:]
    found = []
    for seed in (1, 1, 2):
        with rig.fault(f"action=bit-flip,op=read,seed={seed}"):
            found.append(initiator.read(0, 60, 1).data)
    assert found[0] == found[1] != found[2]
    wrong = int.from_bytes(found[0], "big") ^ int.from_bytes(data, "big")
    assert wrong.bit_count() == 1
    assert initiator.read(0, 60, 1).data == data


def test_a_bit_of_a_token_in_flight(rig: FaultRig, initiator: Initiator) -> None:
    """The guest gets a token that the server never made: it is unknown or corrupt, and nothing is written."""
    with rig.fault("action=bit-flip,op=RECEIVE ROD TOKEN INFORMATION,byte=500,bit=0"):
        token = initiator.token(0, [Range(0, 8)])
    answer = initiator.write_token(1, token, [Range(0, 8)])
    assert answer.fault in {(5, 0x23, 4), (5, 0x23, 5)}


def test_stall_until_released(rig: FaultRig, initiator: Initiator) -> None:
    """Other requests go on; released ones are executed in their order."""
    assert initiator.write(0, 70, 1, b"x" * 512).good
    cdb = READ_ONE[:9] + bytes([70]) + READ_ONE[10:]
    name = rig.faults.add("op=READ(16),lba=70,action=stall")
    requests = [rig.scsi.submit(0, cdb, room=512) for _ in range(3)]
    held(rig, name, 3)
    assert initiator.write(0, 70, 1, b"y" * 512).good
    rig.faults.release(name)
    for request in requests:
        rig.wait_for(rig.scsi.queue, request)
        assert scsi_end(request) == (Response.OK, 0, b"")
        assert request.data_in[scsi.RESPONSE_SIZE :] == b"y" * 512
    assert rig.faults.find(name)["state"] == "off"


def test_stall_after_the_deed(rig: FaultRig, initiator: Initiator) -> None:
    """when=after: the write is done, its answer waits."""
    name = rig.faults.add("op=WRITE(16),lba=71,action=stall,when=after")
    request = rig.scsi.submit(0, WRITE_ONE[:9] + bytes([71]) + WRITE_ONE[10:], b"z" * 512)
    held(rig, name)
    assert initiator.read(0, 71, 1).data == b"z" * 512
    assert request.written is None
    rig.faults.remove(name)
    assert scsi_end(rig.wait_for(rig.scsi.queue, request)) == (Response.OK, 0, b"")


def test_an_abort_ends_what_stalls(rig: FaultRig) -> None:
    """ABORT TASK SET is answered, the command ends as aborted, and is never executed."""
    name = rig.faults.add("op=WRITE(16),lba=72,action=stall")
    request = rig.scsi.submit(0, WRITE_ONE[:9] + bytes([72]) + WRITE_ONE[10:], b"never" * 102 + b"!!")
    held(rig, name)
    assert rig.scsi.task_management(TaskManagement.ABORT_TASK_SET, 0) == Response.OK
    assert scsi_end(rig.wait_for(rig.scsi.queue, request))[0] == Response.ABORTED
    held(rig, name, 0)
    rig.faults.remove(name)
    assert rig.scsi.initiator.read(0, 72, 1).data == bytes(512)


def test_delay_is_real_time_without_a_virtual_clock(rig: FaultRig, initiator: Initiator) -> None:
    """The answer does not come before its time; others do."""
    with rig.fault("op=READ(16),lba=73,action=delay,seconds=0.3"), lasting(0.3):
        request = rig.scsi.submit(0, READ_ONE[:9] + bytes([73]) + READ_ONE[10:], room=512)
        assert initiator.command(0, "00").good
        assert scsi_end(rig.wait_for(rig.scsi.queue, request)) == (Response.OK, 0, b"")


def test_answer_after_reset(rig: FaultRig) -> None:
    """An abort is not answered either; the reset of the unit ends both."""
    name = rig.faults.add("op=READ(16),lba=74,action=answer-after-reset")
    control = rig.scsi.front.queues[scsi.CONTROL_QUEUE]
    request = rig.scsi.submit(0, READ_ONE[:9] + bytes([74]) + READ_ONE[10:], room=512)
    held(rig, name)
    address = bytes((1, 0, 0x40, 0)) + bytes(4)
    abort = control.submit(scsi.TMF.pack(scsi.Control.TMF, TaskManagement.ABORT_TASK_SET, address, 0), 1)
    stays_open(control, abort)
    assert request.written is None
    assert rig.scsi.task_management(TaskManagement.LOGICAL_UNIT_RESET, 0) == Response.OK
    assert scsi_end(rig.wait_for(rig.scsi.queue, request))[0] == Response.RESET
    assert rig.wait_for(control, abort).data_in[0] == Response.OK
    assert rig.scsi.initiator.command(0, "00").fault == (6, 0x29, 0)
    held(rig, name, 0)


def test_never_answer(rig: FaultRig) -> None:
    """Neither the command nor the reset; what is released goes on, and the device reset needs no answer."""
    name = rig.faults.add("op=READ(16),lba=75,action=never-answer")
    control = rig.scsi.front.queues[scsi.CONTROL_QUEUE]
    request = rig.scsi.submit(0, READ_ONE[:9] + bytes([75]) + READ_ONE[10:], room=512)
    held(rig, name)
    address = bytes((1, 0, 0x40, 0)) + bytes(4)
    reset = control.submit(scsi.TMF.pack(scsi.Control.TMF, TaskManagement.LOGICAL_UNIT_RESET, address, 0), 1)
    held(rig, name, 2)
    stays_open(control, reset)
    assert request.written is None
    rig.scsi.front.stop()
    assert scsi_end(rig.wait_for(rig.scsi.queue, request))[0] in {Response.ABORTED, Response.RESET}
    rig.scsi.front.start()
    rig.scsi.initiator.command(0, "00")
    rig.scsi.initiator.command(1, "00")
    held(rig, name, 0)


def test_rules_stack(rig: FaultRig, initiator: Initiator) -> None:
    """A delay and an error: first the one, then the other; each counts for itself."""
    slow = rig.faults.add("op=READ(16),action=delay,seconds=0.2")
    bad = rig.faults.add("op=READ(16),nth=2,sense=internal-target-failure")
    assert initiator.read(0, 0, 1).good
    with lasting(0.2):
        request = rig.scsi.submit(0, READ_ONE, room=512)
        assert scsi_end(rig.wait_for(rig.scsi.queue, request))[1] == 2
    assert (rig.faults.find(slow)["fired"], rig.faults.find(bad)["fired"]) == (2, 1)
    assert (rig.faults.find(slow)["state"], rig.faults.find(bad)["state"]) == ("armed", "spent")


def test_faults_in_the_mailbox(rig: FaultRig) -> None:
    """The command in the page is hit, not the page: a rule for virtio-blk writes leaves the mailbox alone."""
    blk = Blk(str(rig.server.cwd / "m.sock")).go()
    with blk.front:
        client = MailboxClient(blk.write, blk.read).initiator()
        with rig.fault("export=m.sock,op=INQUIRY,sense=internal-target-failure"):
            assert client.command(0, "12000000ff00").fault == (4, 0x44, 0)
        name = rig.faults.add("export=m.sock,op=OUT+IN,action=blk-status,status=ioerr")
        assert client.command(0, "12000000ff00").good
        assert rig.faults.find(name)["seen"] == 0
        assert blk.request(1, 8, bytes(512))[0] == 1
        rig.faults.remove(name)


def test_the_guest_steers(rig: FaultRig, initiator: Initiator) -> None:
    """Armed and released at an exact moment; refusals say why; several lines at once."""
    rig.faults.command(
        "add name=one,op=READ(16),sense=3/11/00,armed=off\nadd name=two,action=stall,armed=off"
    )
    assert initiator.read(0, 0, 1).good
    rig.faults.arm("one")
    assert initiator.read(0, 0, 1).fault == (3, 0x11, 0)
    rig.faults.release("one")
    assert initiator.read(0, 0, 1).good
    assert [(item["name"], item["state"], item["fired"]) for item in rig.faults.list()] == [
        ("one", "off", 1),
        ("two", "off", 0),
    ]
    assert rig.faults.find("one")["last_event"] == "READ(16) on d0"
    for lines, told in (
        ("arm three", "there is no fault rule 'three'; there are: one, two"),
        ("explode", "'explode' is not one of add, arm, release, remove"),
        ("add action=nothing", "'nothing' is no action"),
        ("add name=x,action=disk-error,disk=d7", "disk d7 has no layer for that"),
        ("add op=read", "'action=' is missing"),
        ("add x", "'x' is not of the form key=value"),
    ):
        with pytest.raises(FaultError) as caught:
            rig.faults.command(lines)
        assert told in str(caught.value)


def test_a_rule_for_everything_does_not_lock_the_guest_out(rig: FaultRig, initiator: Initiator) -> None:
    """What arms and releases is never hit itself."""
    with rig.fault("name=all,action=never-answer"):
        request = rig.scsi.submit(0, READ_ONE, room=512)
        held(rig, "all")
    assert scsi_end(rig.wait_for(rig.scsi.queue, request))[:2] == (Response.OK, 0)


@pytest.mark.parametrize(
    ("cdb", "data", "fault"),
    [
        ("3b020000000000000400", b"arm ", (5, 0x24, 0)),
        ("3b010100000000000400", b"arm ", (5, 0x24, 0)),
        ("3b010000000100000400", b"arm ", (5, 0x24, 0)),
        ("3b010000000002000000", b"arm ", (5, 0x24, 0)),
        ("3b010000000000000400", b"\xff\xff\xff\xff", (5, 0x26, 0)),
        ("3c000000000000001000", b"", (5, 0x24, 0)),
    ],
)
def test_malformed_control(initiator: Initiator, cdb: str, data: bytes, fault: tuple[int, int, int]) -> None:
    """Wrong mode, buffer, offset, length, text: sense data that point at it."""
    answer = initiator.command(0, cdb, data)
    assert answer.fault == fault
    assert (pointer_of(answer.sense) is not None) is (fault[1] == 0x24)


def test_unwatched_again(rig: FaultRig, initiator: Initiator) -> None:
    """With the last rule gone, reads and writes take the express lane again."""
    with rig.fault("op=read,count=1,sense=3/11/00"):
        assert initiator.read(0, 0, 1).fault == (3, 0x11, 0)
    eventually(lambda: initiator.read(0, 0, 1).good, "still faulty")
