"""Persistent reservations and RESERVE: who may do what, who is told, what outlives what.

The data of PERSISTENT RESERVE IN below was read by sg_persist 1.46, which showed what the comments say.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from qemu_odx.target import conflicts
from qemu_odx.target.port import LoginNexus, Reply, Task
from qemu_odx.target.reservations import REGISTRATIONS, Access, Reservations
from qemu_odx.target.target import Target
from qemu_odx.testing.reserving import (
    CAPABILITIES,
    CLEAR,
    CONFLICT,
    EA,
    EA_AR,
    EA_RO,
    FULL_STATUS,
    IGNORE,
    KEYS,
    PREEMPT,
    PREEMPT_AND_ABORT,
    REGISTER,
    RELEASE,
    RESERVATION,
    RESERVE,
    WE,
    WE_AR,
    WE_RO,
    attentions,
    out,
    told,
)
from qemu_odx.testing.runner import HeldRunner, InlineRunner
from qemu_odx.wire.scsi import opcodes, sense
from qemu_odx.wire.scsi.persistent import Kind, transport_id
from qemu_odx.wire.scsi.token_lists import Range, TokenInformation

if TYPE_CHECKING:
    from qemu_odx.testing.conformance.reference import ReferenceTarget
    from qemu_odx.testing.initiator import Initiator


@pytest.fixture
def first(reference: ReferenceTarget) -> Initiator:
    """Registered with key A."""
    who = reference.initiator("A")
    assert out(who, REGISTER, 0, 0xA).good
    return who


@pytest.fixture
def second(reference: ReferenceTarget) -> Initiator:
    """Registered with key B."""
    who = reference.initiator("B")
    assert out(who, REGISTER, 0, 0xB).good
    return who


@pytest.fixture
def stranger(reference: ReferenceTarget) -> Initiator:
    """Not registered, but known to the target."""
    who = reference.initiator("S")
    assert who.command(0, "00").good
    return who


def may(who: Initiator) -> str:
    """What an initiator may do: "r", "w", both or none."""
    reads = who.read(0, 0, 1).status != CONFLICT
    writes = who.write(0, 0, 1, bytes(512)).status != CONFLICT
    return "r" * reads + "w" * writes


@pytest.mark.parametrize(
    ("kind", "rights"),
    [
        (WE, ["rw", "r", "r"]),
        (EA, ["rw", "", ""]),
        (WE_RO, ["rw", "rw", "r"]),
        (EA_RO, ["rw", "rw", ""]),
        (WE_AR, ["rw", "rw", "r"]),
        (EA_AR, ["rw", "rw", ""]),
    ],
)
def test_who_may_read_and_write(
    first: Initiator, second: Initiator, stranger: Initiator, kind: Kind, rights: list[str]
) -> None:
    """The holder always; a registrant and a stranger by the type (SPC-4 5.13.1)."""
    assert out(first, RESERVE, 0xA, 0, kind).good
    assert [may(who) for who in (first, second, stranger)] == rights


def test_register_wants_the_present_key(first: Initiator, stranger: Initiator) -> None:
    """0 from the unregistered, else the key itself; a new key replaces it."""
    assert out(stranger, REGISTER, 5, 6).status == CONFLICT
    assert out(first, REGISTER, 0, 6).status == CONFLICT
    assert out(first, REGISTER, 0xA, 6).good
    assert told(first, KEYS).hex() == "00000002000000080000000000000006"


def test_register_and_ignore_takes_any_key(first: Initiator) -> None:
    """A node that restarted may not know its key."""
    assert out(first, IGNORE, 0x77, 0xAA).good
    assert told(first, KEYS)[8:].hex() == "00000000000000aa"


def test_registering_nothing_does_nothing(stranger: Initiator) -> None:
    """Key 0 from the unregistered: GOOD, no generation."""
    assert out(stranger, REGISTER, 0, 0).good
    assert out(stranger, IGNORE, 9, 0).good
    assert told(stranger, KEYS).hex() == "0000000000000000"


def test_the_unregistered_may_do_nothing_but_register(stranger: Initiator) -> None:
    """RESERVATION CONFLICT, whatever the key."""
    for action in (RESERVE, RELEASE, CLEAR, PREEMPT, PREEMPT_AND_ABORT):
        assert out(stranger, action, 0, 0xA, WE).status == CONFLICT


def test_a_wrong_key_conflicts(first: Initiator) -> None:
    """Every service action but REGISTER AND IGNORE."""
    for action in (REGISTER, RESERVE, RELEASE, CLEAR, PREEMPT):
        assert out(first, action, 0xBAD, 0xA, WE).status == CONFLICT


def test_reserve_again_changes_nothing(first: Initiator, second: Initiator) -> None:
    """The same type from the holder is GOOD; another type, or another port, conflicts."""
    assert out(first, RESERVE, 0xA, 0, WE).good
    assert out(first, RESERVE, 0xA, 0, WE).good
    assert out(first, RESERVE, 0xA, 0, EA).status == CONFLICT
    assert out(second, RESERVE, 0xB, 0, WE).status == CONFLICT


def test_read_reservation(first: Initiator, second: Initiator) -> None:
    """None, the holder's key, and 0 for all registrants types."""
    assert told(first, RESERVATION).hex() == "0000000200000000"
    assert out(first, RESERVE, 0xA, 0, WE_RO).good
    assert told(second, RESERVATION).hex() == "0000000200000010000000000000000a0000000000050000"
    assert out(first, RELEASE, 0xA, 0, WE_RO).good
    assert out(first, RESERVE, 0xA, 0, EA_AR).good
    attentions(second)
    assert told(second, RESERVATION)[8:].hex() == "00000000000000000000000000080000"


def test_report_capabilities(stranger: Initiator) -> None:
    """CRH and TMV, all six types; nothing of power loss, other ports, other initiators."""
    assert told(stranger, CAPABILITIES).hex() == "00081080ea010000"


def test_read_full_status(first: Initiator, second: Initiator) -> None:
    """Who is registered, from where, and who holds."""
    assert out(first, RESERVE, 0xA, 0, WE_RO).good
    data = told(second, FULL_STATUS)
    assert data[:8].hex() == "0000000200000060"
    assert data[8:32].hex() == "000000000000000a00000000010500000000000100000018"
    assert data[32:56] == transport_id("A")
    assert data[56:80].hex() == "000000000000000b00000000000000000000000100000018"
    assert data[80:] == transport_id("B")


def test_transport_id_is_a_locally_assigned_sas_address() -> None:
    """Protocol 6h; NAA 3h; another for every name. sg_persist 1.46: "SAS address: 0x30908892c5c5ca67"."""
    assert transport_id("sgA").hex() == "0600000030908892c5c5ca67" + "00" * 12
    assert transport_id("a") != transport_id("b")


def test_a_short_allocation_cuts(first: Initiator) -> None:
    """ADDITIONAL LENGTH stays the full one."""
    assert first.command(0, "5e000000000000000800").data.hex() == "0000000100000008"


def test_release_by_others_does_nothing(first: Initiator, second: Initiator) -> None:
    """GOOD, and the reservation stays."""
    assert out(first, RESERVE, 0xA, 0, EA).good
    assert out(second, RELEASE, 0xB, 0, EA).good
    assert may(second) == ""


def test_release_of_another_type_is_invalid(first: Initiator) -> None:
    """26/04."""
    assert out(first, RESERVE, 0xA, 0, EA).good
    assert out(first, RELEASE, 0xA, 0, WE).fault == (5, 0x26, 4)


@pytest.mark.parametrize("kind", list(Kind))
def test_release_tells_registrants(
    first: Initiator, second: Initiator, stranger: Initiator, kind: Kind
) -> None:
    """2A/04 to those who could use the disk by it: not for types that only the holder used."""
    assert out(first, RESERVE, 0xA, 0, kind).good
    assert out(first, RELEASE, 0xA, 0, kind).good
    assert attentions(second) == ([] if kind in {WE, EA} else [(0x2A, 4)])
    assert attentions(first) == attentions(stranger) == []
    assert may(stranger) == "rw"


@pytest.mark.parametrize("kind", list(Kind))
def test_the_holder_unregisters(first: Initiator, second: Initiator, kind: Kind) -> None:
    """The reservation goes with it, unless other registrants hold it too."""
    assert out(first, RESERVE, 0xA, 0, kind).good
    assert out(first, REGISTER, 0xA, 0).good
    shared = kind in {WE_AR, EA_AR}
    assert attentions(second) == ([(0x2A, 4)] if kind in {WE_RO, EA_RO} else [])
    assert bool(told(second, RESERVATION)[8:]) == shared
    assert out(second, REGISTER, 0xB, 0).good
    assert told(second, RESERVATION)[8:] == b""


def test_clear(first: Initiator, second: Initiator, stranger: Initiator) -> None:
    """By any registrant: everything goes, the others are told 2A/03."""
    assert out(first, RESERVE, 0xA, 0, EA).good
    assert out(second, CLEAR, 0xB).good
    assert attentions(first) == [(0x2A, 3)]
    assert attentions(second) == attentions(stranger) == []
    assert told(first, KEYS).hex() == "0000000300000000"
    assert may(stranger) == "rw"


def test_preempt_takes_the_reservation_over(first: Initiator, second: Initiator) -> None:
    """The holder's key: its registration goes (2A/05), the new holder has the new type."""
    assert out(first, RESERVE, 0xA, 0, WE).good
    assert out(second, PREEMPT, 0xB, 0xA, EA_RO).good
    assert attentions(first) == [(0x2A, 5)]
    assert told(second, KEYS).hex() == "0000000300000008000000000000000b"
    assert told(second, RESERVATION)[8:].hex() == "000000000000000b0000000000060000"
    assert may(first) == ""


@pytest.mark.parametrize(("kind", "told_to_third"), [(WE_RO, []), (EA_RO, [(0x2A, 4)]), (WE, [(0x2A, 4)])])
def test_preempt_tells_remaining_registrants_of_another_type(
    reference: ReferenceTarget,
    first: Initiator,
    second: Initiator,
    kind: Kind,
    told_to_third: list[tuple[int, int]],
) -> None:
    """2A/04 if the type changed, nothing if it did not; the victim is told 2A/05 alone."""
    third = reference.initiator("C")
    assert out(third, REGISTER, 0, 0xC).good
    assert out(first, RESERVE, 0xA, 0, WE_RO).good
    assert out(second, PREEMPT, 0xB, 0xA, kind).good
    assert attentions(first) == [(0x2A, 5)]
    assert attentions(second) == []
    assert attentions(third) == told_to_third


def test_preempt_of_others_leaves_the_reservation(
    reference: ReferenceTarget, first: Initiator, second: Initiator
) -> None:
    """A key that is not the holder's only loses its registrations, all that have it."""
    third = reference.initiator("C")
    assert out(third, REGISTER, 0, 0xB).good
    assert out(first, RESERVE, 0xA, 0, WE).good
    assert out(first, PREEMPT, 0xA, 0xB, EA).good
    assert attentions(second) == attentions(third) == [(0x2A, 5)]
    assert told(first, RESERVATION)[8:].hex() == "000000000000000a0000000000010000"


def test_preempt_of_nobody(first: Initiator) -> None:
    """A key that nobody has conflicts; key 0 is no key, but with all registrants it means everybody."""
    assert out(first, PREEMPT, 0xA, 0xDEAD, WE).status == CONFLICT
    assert out(first, PREEMPT, 0xA, 0, WE).fault == (5, 0x26, 0)
    assert out(first, RESERVE, 0xA, 0, WE).good
    assert out(first, PREEMPT, 0xA, 0, WE).fault == (5, 0x26, 0)


def test_preempt_of_all_registrants(first: Initiator, second: Initiator) -> None:
    """Key 0 takes over and removes all others."""
    assert out(first, RESERVE, 0xA, 0, WE_AR).good
    assert out(second, PREEMPT, 0xB, 0, EA).good
    assert attentions(first) == [(0x2A, 5)]
    assert told(second, KEYS)[8:].hex() == "000000000000000b"
    assert may(first) == ""


def test_preempt_of_one_of_all_registrants(first: Initiator, second: Initiator) -> None:
    """A key other than 0 only loses its registration; the last to go takes the reservation along."""
    assert out(first, RESERVE, 0xA, 0, WE_AR).good
    assert out(second, PREEMPT, 0xB, 0xA, EA).good
    assert told(second, RESERVATION)[8:].hex() == "00000000000000000000000000070000"
    assert out(second, PREEMPT, 0xB, 0xB, EA).good
    assert told(second, KEYS)[8:] == told(second, RESERVATION)[8:] == b""


def test_generation_counts_changes_of_registrations(first: Initiator, second: Initiator) -> None:
    """REGISTER, CLEAR, PREEMPT; not RESERVE, RELEASE or what failed."""
    assert out(first, RESERVE, 0xA, 0, WE).good
    assert out(first, RELEASE, 0xA, 0, WE).good
    assert out(first, REGISTER, 9, 9).status == CONFLICT
    assert told(first, KEYS)[:4].hex() == "00000002"
    assert out(first, REGISTER, 0xA, 0xA).good
    assert told(first, KEYS)[:4].hex() == "00000003"


@pytest.mark.parametrize(("flags", "bit"), [(0x08, 3), (0x04, 2), (0x01, 0)])
def test_options_that_are_not_there_are_refused(stranger: Initiator, flags: int, bit: int) -> None:
    """SPEC_I_PT, ALL_TG_PT, APTPL: 26/00 at their bit, and nobody is registered."""
    answer = out(stranger, REGISTER, 0, 5, flags=flags)
    assert answer.fault == (5, 0x26, 0)
    assert answer.sense[15:18].hex() == f"{0x88 | bit:02x}0014"
    assert told(stranger, KEYS)[8:] == b""


@pytest.mark.parametrize("kind", [0, 2, 4, 9, 0xF, 0x11])
def test_types_and_scopes_that_are_not_there(first: Initiator, kind: int) -> None:
    """24/00 at byte 2."""
    assert out(first, RESERVE, 0xA, 0, kind).fault == (5, 0x24, 0)


@pytest.mark.parametrize("length", [0, 23, 25])
def test_the_parameter_list_has_24_bytes(stranger: Initiator, length: int) -> None:
    """1A/00."""
    cdb = bytes((0x5F, 0, 0, 0, 0, 0, 0, 0, length, 0))
    assert stranger.command(0, cdb, bytes(length)).fault == (5, 0x1A, 0)


def test_too_many_registrations() -> None:
    """55/04, and a registrant may still change its key."""
    state = Reservations()
    for port in range(REGISTRATIONS):
        assert state.register(port, 0, 1).answer is None
    refused = state.register("late", 0, 1).answer
    assert refused is not None
    assert (refused.asc, refused.ascq) == (0x55, 4)  # type: ignore[union-attr]
    assert state.register(3, 1, 2).answer is None


def test_a_reset_leaves_persistent_reservations(
    reference: ReferenceTarget, first: Initiator, stranger: Initiator
) -> None:
    """They end by command alone."""
    assert out(first, RESERVE, 0xA, 0, EA).good
    reference.target.reset_lun(0, lambda _: None)
    attentions(stranger)
    assert may(stranger) == ""


def test_a_guest_that_restarts_is_still_registered(reference: ReferenceTarget, stranger: Initiator) -> None:
    """The initiator port is the same, the nexus is not."""
    before = reference.initiator(LoginNexus("front", 0))  # type: ignore[arg-type]  # tests use names for short
    assert out(before, REGISTER, 0, 0xF).good
    assert out(before, RESERVE, 0xF, 0, EA).good
    reference.target.nexus_loss(LoginNexus("front", 0), lambda: None)
    after = reference.initiator(LoginNexus("front", 1))  # type: ignore[arg-type]
    assert may(after) == "rw"
    assert may(stranger) == ""
    assert out(after, RELEASE, 0xF, 0, EA).good


def test_all_targets_of_a_disk_share_its_reservations(reference: ReferenceTarget, first: Initiator) -> None:
    """Another export of the same disk; the attention arrives there too."""
    other = Target.on({7: reference.disks[0]}, reference.target.manager, InlineRunner())
    other.power_on_attention = False
    replies: list[Reply] = []

    def send(cdb: str, data: bytes = b"") -> Reply:
        other.submit(
            Task("X", 7, bytes.fromhex(cdb).ljust(16, b"\0"), [memoryview(data)], [], replies.append)
        )
        return replies[-1]

    assert send("5f0000000000000018", bytes(8) + (9).to_bytes(8, "big") + bytes(8)).status == 0
    assert out(first, RESERVE, 0xA, 0, WE).good
    assert send("2a000000000000000100", bytes(512)).status == CONFLICT
    assert out(first, PREEMPT, 0xA, 9, WE).good
    assert send("00").sense[12:14].hex() == "2a05"


def test_unit_attention_goes_before_a_conflict(
    reference: ReferenceTarget, first: Initiator, stranger: Initiator
) -> None:
    """The documented order: attention, reservation, handler (with an LBA that it would refuse)."""
    assert out(first, RESERVE, 0xA, 0, EA).good
    reference.target.units[0].attend("S", sense.CAPACITY_CHANGED)
    assert stranger.read(0, 99999, 1).fault == (6, 0x2A, 9)
    assert stranger.read(0, 99999, 1).status == CONFLICT


# Copies


def test_populate_token_is_a_read(first: Initiator, stranger: Initiator) -> None:
    """Write exclusive lets it pass, exclusive access does not."""
    assert out(first, RESERVE, 0xA, 0, WE).good
    assert stranger.populate(0, [Range(0, 4)]).good
    assert out(first, RELEASE, 0xA, 0, WE).good
    assert out(first, RESERVE, 0xA, 0, EA).good
    assert stranger.populate(0, [Range(0, 4)]).status == CONFLICT


def test_write_using_token_is_a_write(first: Initiator, stranger: Initiator) -> None:
    """Of the destination; the source's reservation does not matter to who has the token."""
    token = stranger.token(1, [Range(0, 4)])
    assert out(first, RESERVE, 0xA, 0, WE).good
    assert stranger.write_token(0, token, [Range(0, 4)]).status == CONFLICT
    mine = first.token(0, [Range(0, 4)])
    assert stranger.write_token(1, mine, [Range(0, 4)]).good


def xcopy(reference: ReferenceTarget, source: int, destination: int) -> bytes:
    """An EXTENDED COPY(LID1) parameter list of one block."""
    units = [reference.target.units[lun] for lun in (source, destination)]
    cscds = b"".join(
        bytes((0xE4, 0, 0, 0, 1, 3, 0, 16)) + unit.naa + bytes(5) + (512).to_bytes(3, "big") for unit in units
    )
    segment = bytes.fromhex("020000180000000100000001") + bytes(16)
    return (
        bytes((1, 0x10))
        + len(cscds).to_bytes(2, "big")
        + bytes(4)
        + len(segment).to_bytes(4, "big")
        + bytes(4)
        + cscds
        + segment
    )


@pytest.mark.parametrize(
    ("reserved", "kind", "answer"),
    [(0, WE, None), (0, EA, (0xA, 0x0D, 1)), (1, WE, (0xA, 0x0D, 1)), (1, EA, (0xA, 0x0D, 1))],
)
def test_extended_copy_reads_one_unit_and_writes_another(
    reference: ReferenceTarget, stranger: Initiator, reserved: int, kind: Kind, answer: object
) -> None:
    """Sent to a third unit: the reservations of both others count, each for what is done to it."""
    holder = reference.initiator("A")
    assert out(holder, REGISTER, 0, 0xA, lun=reserved).good
    assert out(holder, RESERVE, 0xA, 0, kind, lun=reserved).good
    data = xcopy(reference, 0, 1)
    cdb = bytes((0x83, 0)) + bytes(8) + len(data).to_bytes(4, "big")
    assert stranger.command(2, cdb, data).fault == answer
    assert reference.read(1, 0, 1).startswith(b"L0" if answer is None else b"L1")


def test_preempt_and_abort_ends_tasks_and_copies(
    reference: ReferenceTarget, first: Initiator, second: Initiator
) -> None:
    """A foreground task shows no status, a background copy ends 60h, and the answer comes last."""
    token = first.token(0, [Range(0, 64)])
    assert first.write_token(0, token, [Range(100, 64)], immediate=True, identifier=50).good
    reference.target.runner = HeldRunner()
    ended: list[Reply] = []
    flush = bytes((0x35,)).ljust(16, b"\0")
    reference.target.submit(Task("A", 0, flush, [], [], ended.append))
    cdb, data = (
        bytes((0x5F, 5, WE, 0, 0, 0, 0, 0, 24)).ljust(16, b"\0"),
        (0xB).to_bytes(8, "big") + (0xA).to_bytes(8, "big") + bytes(8),
    )
    answered: list[Reply] = []
    reference.target.submit(Task("B", 0, cdb, [memoryview(data)], [], answered.append))
    assert (ended, answered) == ([], [])
    reference.background.run_all()
    assert (ended, answered) == ([], [])
    reference.target.runner.run_all()
    assert [reply.aborted for reply in ended] == [True]
    assert [(reply.status, reply.aborted) for reply in answered] == [(0, False)]
    reference.target.runner = InlineRunner()
    assert attentions(first) == [(0x2A, 5)]
    status = TokenInformation.parse(first.information(0, 50).data).status
    assert (status.status, status.completion) == (0x60, 0x40)
    assert reference.read(0, 100, 1).startswith(b"L0B00000100")


def test_preempt_without_abort_leaves_tasks(
    reference: ReferenceTarget, first: Initiator, second: Initiator
) -> None:
    """They end as they would have."""
    reference.target.runner = HeldRunner()
    ended: list[Reply] = []
    reference.target.submit(Task("A", 0, bytes((0x35,)).ljust(16, b"\0"), [], [], ended.append))
    assert out(second, PREEMPT, 0xB, 0xA, WE).good
    reference.target.runner.run_all()
    assert [reply.aborted for reply in ended] == [False]


# RESERVE and RELEASE


@pytest.mark.parametrize(("reserve", "release"), [("16", "17"), ("56", "57")])
def test_reserve_keeps_everybody_else_out(
    reference: ReferenceTarget, stranger: Initiator, reserve: str, release: str
) -> None:
    """All but INQUIRY, REPORT LUNS, REQUEST SENSE and RELEASE, which does nothing."""
    owner = reference.initiator("O")
    assert owner.command(0, reserve).good
    assert owner.command(0, reserve).good
    assert may(owner) == "rw"
    assert stranger.command(0, "00").status == CONFLICT
    assert stranger.command(0, reserve).status == CONFLICT
    assert stranger.command(0, "120000002400").good
    assert stranger.command(0, "a0000000000000000400").good
    assert stranger.command(0, "0300000012").good
    assert stranger.command(0, release).good
    assert stranger.command(0, "00").status == CONFLICT
    assert owner.command(0, release).good
    assert may(stranger) == "rw"


def test_reserve_conflicts_with_persistent_reserve(reference: ReferenceTarget, stranger: Initiator) -> None:
    """Even of the initiator itself, in and out."""
    assert stranger.command(0, "16").good
    assert out(stranger, REGISTER, 0, 1).status == CONFLICT
    assert stranger.command(0, "5e000000000000010000").status == CONFLICT


def test_registrations_conflict_with_reserve(first: Initiator, stranger: Initiator) -> None:
    """Unless a persistent reservation gives the same already: compatible handling."""
    assert stranger.command(0, "16").status == CONFLICT
    assert stranger.command(0, "17").status == CONFLICT
    assert first.command(0, "16").status == CONFLICT
    assert out(first, RESERVE, 0xA, 0, EA).good
    assert first.command(0, "16").good
    assert first.command(0, "17").good
    assert stranger.command(0, "16").status == CONFLICT
    assert may(stranger) == ""


@pytest.mark.parametrize("event", ["reset", "loss"])
def test_reserve_ends_with_a_reset_or_its_nexus(
    reference: ReferenceTarget, stranger: Initiator, event: str
) -> None:
    """A guest that died does not lock the disk."""
    assert reference.initiator("O").command(0, "16").good
    if event == "reset":
        reference.target.reset_lun(0, lambda _: None)
        attentions(stranger)
    else:
        reference.target.nexus_loss("O", lambda: None)
    assert may(stranger) == "rw"


def test_nexus_loss_of_another_leaves_reserve(reference: ReferenceTarget, stranger: Initiator) -> None:
    """Only the one who reserved."""
    assert reference.initiator("O").command(0, "16").good
    reference.target.nexus_loss("S", lambda: None)
    assert stranger.command(0, "00").status == CONFLICT


@pytest.mark.parametrize("cdb", ["1601", "1610", "5601", "1711"])
def test_extents_and_third_parties_are_refused(
    reference: ReferenceTarget, stranger: Initiator, cdb: str
) -> None:
    """24/00, and nothing is reserved."""
    assert stranger.command(0, cdb).fault == (5, 0x24, 0)
    assert may(reference.initiator("O")) == "rw"


# The conflict tables

_WRITES = {
    "WRITE(10)",
    "UNMAP",
    "COMPARE AND WRITE",
    "WRITE USING TOKEN",
    "EXTENDED COPY(LID4)",
    "MODE SELECT(6)",
}
_READS = {"READ(6)", "VERIFY(16)", "PRE-FETCH(10)", "GET LBA STATUS", "POPULATE TOKEN", "MODE SENSE(10)"}


def test_every_command_is_in_the_conflict_tables() -> None:
    """A new row of the opcode table has to say what it wants."""
    names = {row.name for row in opcodes.OPERATIONS}
    assert names == (set(conflicts.BY_NAME) | conflicts.DEPENDS_ON_FIELDS) & names
    assert {conflicts.BY_NAME[name] for name in _WRITES} == {Access.WRITE}
    assert {conflicts.BY_NAME[name] for name in _READS} == {Access.READ}


@pytest.mark.parametrize(
    ("cdb", "conflict"),
    [
        ("1b0000000100", False),
        ("1b0000000000", True),
        ("1b0000001100", True),
        ("1e0000000000", False),
        ("1e0000000100", True),
        ("000000000000", False),
        ("25", False),
        ("9e10000000000000000000000020", False),
        ("1a003f00ff00", True),
        ("35", True),
        ("831c", True),
        ("8407", False),
        ("a30c000000000000ffff", False),
    ],
)
def test_exclusive_access_for_the_unregistered(
    first: Initiator, stranger: Initiator, cdb: str, conflict: bool
) -> None:
    """Starting the unit and allowing removal is free; stopping and preventing is not."""
    assert out(first, RESERVE, 0xA, 0, EA).good
    assert (stranger.command(0, cdb).status == CONFLICT) == conflict
