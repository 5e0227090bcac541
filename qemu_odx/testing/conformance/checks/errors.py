"""Errors: what is malformed, unknown, forged or forbidden gets its own sense code, and no block moves."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qemu_odx.testing.conformance.bench import HELD, PROTECT, SECOND, SECOND_NEXUS, ranges
from qemu_odx.testing.conformance.checks.family import Family
from qemu_odx.testing.conformance.checks.faults import (
    INVALID_CDB,
    INVALID_LIST,
    INVALID_OPCODE,
    LIST_LENGTH,
    OPERATION_IN_PROGRESS,
    TOKEN_CORRUPT,
    TOKEN_LENGTH,
    TOKEN_TYPE,
    TOKEN_UNKNOWN,
    WRITE_PROTECTED,
)
from qemu_odx.wire.scsi.rod_token import zero_token
from qemu_odx.wire.scsi.token_lists import PopulateToken, Range, WriteUsingToken

if TYPE_CHECKING:
    from qemu_odx.testing.conformance.bench import Bench, Fault
    from qemu_odx.testing.initiator import Answer

FAMILY = Family("errors")
PT, WUT, LID = "SBC-5 5.12", "SBC-5 5.59", "SPC-4 5.17.4.2"
TO = 400
_NOBODYS = 0xFEDCBA98
"""A list identifier that no check uses."""


def _populate(b: Bench, data: bytes) -> Answer:
    identifier = next(b.near.identifiers)
    cdb = bytes((0x83, 0x10)) + bytes(4) + identifier.to_bytes(4, "big") + len(data).to_bytes(4, "big")
    return b.near.command(b.first.lun, cdb, data)


def _list(*places: tuple[int, int], data_length: int | None = None, kind: int | None = None) -> bytes:
    length = 16 * len(places)
    whole = 14 + length if data_length is None else data_length
    return PopulateToken(
        whole,
        immediate=False,
        rod_type=kind,
        inactivity_timeout=0,
        descriptor_length=length,
        ranges=tuple(ranges(places)),
    ).packed()


@FAMILY.add(PT)
def overlapping_ranges(b: Bench) -> None:
    """POPULATE TOKEN refuses a block that is in two ranges."""
    b.refused(b.near.populate(b.first.lun, ranges([(16, 8), (23, 2)])), INVALID_LIST)
    b.refused(b.near.populate(b.first.lun, ranges([(16, 1), (40, 1), (16, 1)])), INVALID_LIST)


@FAMILY.add(PT)
def list_shorter_than_its_header(b: Bench) -> None:
    """A parameter list of 15 bytes is too short."""
    b.refused(_populate(b, _list((16, 4))[:15]), LIST_LENGTH)


@FAMILY.add(PT)
def data_length_too_small(b: Bench) -> None:
    """POPULATE TOKEN DATA LENGTH below 001Eh is refused."""
    b.refused(_populate(b, _list((16, 4), data_length=0x1D)), INVALID_LIST)


@FAMILY.add(PT)
def no_ranges(b: Bench) -> None:
    """RANGE DESCRIPTOR LENGTH 0 is refused."""
    data = bytearray(_list((16, 4)))
    data[14:16] = bytes(2)
    b.refused(_populate(b, bytes(data)), INVALID_LIST)


@FAMILY.add("SBC-5 5.12, 4.28")
def types_that_are_no_point_in_time(b: Bench) -> None:
    """With RTV=1, access upon reference, the zero type and types that do not exist are refused."""
    for kind in (0x00010000, 0xFFFF0001, 0x00000000, 0x0080FFF0):
        b.refused(b.near.populate(b.first.lun, ranges([(16, 4)]), rod_type=kind), INVALID_LIST)


@FAMILY.add("SPC-4 6.24, 6.26, 6.3")
def unknown_list_identifier(b: Bench) -> None:
    """RECEIVE ROD TOKEN INFORMATION, RECEIVE COPY STATUS(LID4) and COPY OPERATION ABORT refuse it."""
    number = _NOBODYS.to_bytes(4, "big")
    b.refused(b.near.information(b.first.lun, _NOBODYS), INVALID_CDB)
    b.refused(b.near.command(b.first.lun, bytes((0x84, 0x05)) + number + bytes(4) + b"\0\0\4\0"), INVALID_CDB)
    b.refused(b.near.abort_copy(b.first.lun, _NOBODYS), INVALID_CDB)


@FAMILY.add(LID)
def refused_populate_leaves_nothing(b: Bench) -> None:
    """A POPULATE TOKEN that is refused leaves no list identifier behind."""
    identifier = next(b.near.identifiers)
    b.refused(b.near.populate(b.first.lun, ranges([(16, 8), (16, 8)]), identifier=identifier), INVALID_LIST)
    b.refused(b.near.information(b.first.lun, identifier), INVALID_CDB)


@FAMILY.add(LID, HELD)
def list_identifier_in_use(b: Bench) -> None:
    """While a copy runs, its list identifier is refused to another; the running one is not hurt."""
    identifier = next(b.near.identifiers)
    b.good(b.near.populate(b.first.lun, ranges([(16, 8)]), identifier=identifier, immediate=True))
    b.refused(b.near.populate(b.first.lun, ranges([(16, 4)]), identifier=identifier), OPERATION_IN_PROGRESS)
    b.equal("TRANSFER COUNT of the first", b.finished(b.first, identifier).status.count, 8)


@FAMILY.add(LID, HELD, SECOND)
def list_identifier_in_use_on_another_unit(b: Bench) -> None:
    """List identifiers belong to the I_T nexus: in use on one logical unit, refused on another."""
    identifier = next(b.near.identifiers)
    b.good(b.near.populate(b.first.lun, ranges([(16, 8)]), identifier=identifier, immediate=True))
    answer = b.near.populate(b.second.lun, ranges([(16, 4)]), identifier=identifier)
    b.refused(answer, OPERATION_IN_PROGRESS)
    b.finished(b.first, identifier)


@FAMILY.add(LID, SECOND_NEXUS)
def results_belong_to_their_nexus(b: Bench) -> None:
    """What one I_T nexus copied is not told to another."""
    identifier = next(b.near.identifiers)
    b.good(b.near.populate(b.first.lun, ranges([(16, 8)]), identifier=identifier))
    b.refused(b.far.information(b.first.lun, identifier), INVALID_CDB)


def _refused_write(b: Bench, token: bytes, *faults: Fault) -> None:
    """WRITE USING TOKEN is refused and moves no block."""
    old = b.fill(b.first, TO, 4, "old")
    b.refused(b.write(b.first, token, (TO, 4)), *faults)
    b.holds(b.first, TO, old, "what was there")


def _changed(token: bytes, at: int, new: bytes) -> bytes:
    return token[:at] + new + token[at + len(new) :]


@FAMILY.add("SBC-5 5.59, SPC-4 5.17.6.5", destructive=True)
def token_length(b: Bench) -> None:
    """A ROD TOKEN LENGTH other than 01F8h is refused."""
    _refused_write(b, _changed(b.token(b.first, (16, 4)), 6, b"\x01\xf0"), TOKEN_LENGTH)


@FAMILY.add("SBC-5 5.59, SPC-4 5.17.6.5", destructive=True)
def token_type(b: Bench) -> None:
    """A token of a type that is not supported is refused, well-known or not."""
    _refused_write(b, _changed(b.token(b.first, (16, 4)), 0, b"\x00\x55\x00\x00"), TOKEN_TYPE)
    _refused_write(b, _changed(zero_token(), 0, b"\xff\xff\x00\x02"), TOKEN_TYPE)


@FAMILY.add("SPC-4 5.17.6.5", destructive=True)
def token_of_nobody(b: Bench) -> None:
    """A token with an identifier that was never given out is unknown."""
    _refused_write(b, _changed(b.token(b.first, (16, 4)), 8, b"\x77" * 8), TOKEN_UNKNOWN)


@FAMILY.add("SPC-4 5.17.6.5", destructive=True)
def forged_token(b: Bench) -> None:
    """The right identifier with another secret is no token: all of it is compared."""
    token = b.token(b.first, (16, 4))
    flipped = bytes((token[256] ^ 1,))
    _refused_write(b, _changed(token, 256, flipped), TOKEN_UNKNOWN, TOKEN_CORRUPT)
    _refused_write(b, _changed(token, 256, bytes(256)), TOKEN_UNKNOWN, TOKEN_CORRUPT)


@FAMILY.add("SPC-4 5.17.6.5", destructive=True)
def edited_token(b: Bench) -> None:
    """A token whose readable part was changed is corrupt."""
    token = b.token(b.first, (16, 4))
    edited = bytes((token[63] ^ 1,))
    _refused_write(b, _changed(token, 63, edited), TOKEN_CORRUPT, TOKEN_UNKNOWN)


@FAMILY.add(WUT, destructive=True)
def overlapping_destinations(b: Bench) -> None:
    """WRITE USING TOKEN refuses a block that is in two ranges, and writes none."""
    old = b.fill(b.first, TO, 4, "old")
    token = b.token(b.first, (16, 4))
    b.refused(b.write(b.first, token, (TO, 2), (TO + 1, 2)), INVALID_LIST)
    b.holds(b.first, TO, old, "what was there")


@FAMILY.add(WUT, destructive=True)
def offset_past_the_end(b: Bench) -> None:
    """OFFSET INTO ROD at or past the end of the ROD is refused."""
    old = b.fill(b.first, TO, 1, "old")
    token = b.token(b.first, (16, 4))
    for offset in (4, 5, (1 << 64) - 1):
        b.refused(b.write(b.first, token, (TO, 1), offset=offset), INVALID_LIST)
    b.holds(b.first, TO, old, "what was there")


@FAMILY.add(WUT, destructive=True)
def write_list_lengths(b: Bench) -> None:
    """WRITE USING TOKEN: a cut header, and a DATA LENGTH too small, are refused."""
    old = b.fill(b.first, TO, 1, "old")
    whole = WriteUsingToken(
        0x226,
        delete_token=False,
        immediate=False,
        offset=0,
        token=zero_token(),
        descriptor_length=16,
        ranges=(Range(TO, 1),),
    ).packed()
    for data, fault in ((whole[:535], LIST_LENGTH), (b"\x02\x25" + whole[2:], INVALID_LIST)):
        identifier = next(b.near.identifiers)
        cdb = bytes((0x83, 0x11)) + bytes(4) + identifier.to_bytes(4, "big") + len(data).to_bytes(4, "big")
        b.refused(b.near.command(b.first.lun, cdb, data), fault)
    b.holds(b.first, TO, old, "what was there")


@FAMILY.add("SPC-4 4.2.5.2")
def service_actions_that_do_not_exist(b: Bench) -> None:
    """83h/1Fh and 84h/1Fh are refused."""
    for code in (0x83, 0x84):
        b.refused(b.near.command(b.first.lun, bytes((code, 0x1F))), INVALID_CDB, INVALID_OPCODE)


@FAMILY.add("SBC-5 4.12", PROTECT, destructive=True)
def write_protected(b: Bench) -> None:
    """A write-protected destination is told as such, and stays as it is."""
    old = b.fill(b.first, TO, 4, "old")
    token = b.token(b.first, (16, 4))
    b.device.protect(b.first.lun, on=True)
    b.refused(b.write(b.first, token, (TO, 4)), WRITE_PROTECTED)
    b.device.protect(b.first.lun, on=False)
    b.holds(b.first, TO, old, "what was there")
