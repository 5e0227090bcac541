"""POPULATE TOKEN and the commands that tell of it: what a token looks like, and how often it may be fetched."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qemu_odx.testing.conformance import pages
from qemu_odx.testing.conformance.bench import HELD, CheckSkippedError, ranges
from qemu_odx.testing.conformance.checks.family import Family
from qemu_odx.testing.conformance.checks.faults import INVALID_CDB
from qemu_odx.wire.scsi.fields import u16, u32, u64
from qemu_odx.wire.scsi.token_lists import BLOCKS_UNITS, DELAY_WHEN_DONE, TokenInformation

if TYPE_CHECKING:
    from qemu_odx.testing.conformance.bench import Bench

FAMILY = Family("populate")
SBC, RRTI = "SBC-5 5.12", "SPC-4 6.26, SBC-5 5.25"


def _populated(
    b: Bench, *places: tuple[int, int], **options: int | bool | None
) -> tuple[int, TokenInformation]:
    """POPULATE TOKEN that must work; its list identifier and what is told of it at its end."""
    identifier = next(b.near.identifiers)
    b.good(b.near.populate(b.first.lun, ranges(places), identifier=identifier, **options))  # type: ignore[arg-type]
    return identifier, b.finished(b.first, identifier)


@FAMILY.add(SBC)
def one_range(b: Bench) -> None:
    """One range: status 01h, the count in blocks (F1h), no sense data."""
    _, told = _populated(b, (16, 8))
    b.equal("RESPONSE TO SERVICE ACTION", told.status.service_action, 0x10)
    b.equal("COPY OPERATION STATUS", told.status.status, 0x01)
    b.equal("TRANSFER COUNT UNITS", told.status.units, BLOCKS_UNITS)
    b.equal("TRANSFER COUNT", told.status.count, 8)
    b.equal("SEGMENTS PROCESSED", told.status.segments, 0)
    b.equal("SENSE DATA LENGTH", len(told.status.sense), 0)


@FAMILY.add(SBC)
def several_ranges(b: Bench) -> None:
    """Ranges in any order count together, empty ones for nothing."""
    _, told = _populated(b, (100, 4), (16, 8), (50, 0))
    b.equal("TRANSFER COUNT", told.status.count, 12)


@FAMILY.add(SBC)
def touching_ranges(b: Bench) -> None:
    """Ranges that touch do not overlap."""
    _, told = _populated(b, (24, 8), (16, 8))
    b.equal("TRANSFER COUNT", told.status.count, 16)


@FAMILY.add(SBC)
def only_an_empty_range(b: Bench) -> None:
    """A range of no blocks is no error."""
    _, told = _populated(b, (16, 0))
    b.equal("TRANSFER COUNT", told.status.count, 0)


@FAMILY.add(SBC)
def type_is_ignored_without_rtv(b: Bench) -> None:
    """With RTV=0 it does not matter what stands in ROD TYPE; the token is a point in time."""
    identifier = next(b.near.identifiers)
    data = bytes.fromhex("001e0000 00000000 deadbeef 0000 0010 0000000000000010 00000004 00000000")
    b.good(b.near.command(b.first.lun, _cdb(identifier, len(data)), data))
    told = b.finished(b.first, identifier)
    b.expect("a point in time token", ok=_kind(told) & 0xFFFF0000 == 0x00800000, found=f"{_kind(told):08X}h")


def _cdb(identifier: int, length: int) -> bytes:
    return bytes((0x83, 0x10)) + bytes(4) + identifier.to_bytes(4, "big") + length.to_bytes(4, "big")


def _kind(told: TokenInformation) -> int:
    return u32(told.token, 0) if told.token else 0


@FAMILY.add(SBC)
def asked_types(b: Bench) -> None:
    """A type asked for is the type of the token; "any" becomes a real point in time type."""
    page = b.near.command(b.first.lun, "12018f040000")
    descriptor = pages.find(page.data, 0x0108)
    if descriptor is None:
        raise CheckSkippedError("the device lists no ROD types")
    for kind, flags in pages.rod_types(descriptor):
        if not flags & 1:
            continue
        _, told = _populated(b, (16, 4), rod_type=kind)
        if kind == 0x0080FFFF:
            real = _kind(told)
            b.expect("a real point in time type", ok=0x00800000 <= real < 0x0080FFFF, found=f"{real:08X}h")
        else:
            b.equal("ROD TOKEN TYPE", f"{_kind(told):08X}h", f"{kind:08X}h")


@FAMILY.add(SBC)
def empty_list(b: Bench) -> None:
    """PARAMETER LIST LENGTH 0: GOOD, and no list identifier is left behind."""
    identifier = next(b.near.identifiers)
    b.good(b.near.command(b.first.lun, _cdb(identifier, 0)))
    b.refused(b.near.information(b.first.lun, identifier), INVALID_CDB)


@FAMILY.add(SBC)
def incomplete_descriptor(b: Bench) -> None:
    """A last descriptor that is not complete is ignored."""
    identifier = next(b.near.identifiers)
    data = bytes.fromhex("00260000 00000000 00000000 0000 0018 0000000000000010 00000004 00000000") + bytes(8)
    b.good(b.near.command(b.first.lun, _cdb(identifier, len(data)), data))
    b.equal("TRANSFER COUNT", b.finished(b.first, identifier).status.count, 4)


@FAMILY.add("SPC-4 5.17.6.4, SBC-5 4.28.3")
def token_layout(b: Bench) -> None:
    """The token: length 01F8h, bytes represented, creator as E4h descriptor, block length, target device."""
    _, told = _populated(b, (16, 8))
    token, unit = told.token or bytes(512), b.first
    b.equal("ROD TOKEN LENGTH", u16(token, 6), 0x01F8)
    b.equal("CREATOR LOGICAL UNIT DESCRIPTOR type", token[16], 0xE4)
    represented = int.from_bytes(token[48:64], "big")
    b.expect(
        "NUMBER OF BYTES REPRESENTED of the ranges, or all FFh",
        ok=represented in {8 * unit.block_size, (1 << 128) - 1},
    )
    b.equal("LOGICAL BLOCK LENGTH", u32(token, 96), unit.block_size)
    b.equal("association of the TARGET DEVICE DESCRIPTOR", token[129] >> 4 & 3, 2)


@FAMILY.add("SPC-4 5.17.6.4")
def tokens_differ(b: Bench) -> None:
    """Two tokens of the same blocks share neither identifier nor the random part."""
    first, second = b.token(b.first, (16, 8)), b.token(b.first, (16, 8))
    b.expect("another COPY MANAGER ROD TOKEN IDENTIFIER", ok=u64(first, 8) != u64(second, 8))
    same = sum(x == y for x, y in zip(first[256:], second[256:], strict=True))
    b.expect("another EXTENDED ROD TOKEN DATA", ok=same < 224, found=f"{same} of 256 bytes the same")


@FAMILY.add(RRTI)
def information_layout(b: Bench) -> None:
    """RECEIVE ROD TOKEN INFORMATION after a token: 550 bytes, one descriptor of 514, AVAILABLE DATA to match."""
    identifier, _ = _populated(b, (16, 8))
    data = b.near.information(b.first.lun, identifier).data
    at = 32 + data[13]
    b.equal("bytes of data-in", len(data), at + 4 + 514)
    b.equal("AVAILABLE DATA", u32(data, 0), len(data) - 4)
    b.equal("ROD TOKEN DESCRIPTORS LENGTH", u32(data, at), 514)
    b.equal("bytes before the token", data[at + 4 : at + 6], bytes(2))


@FAMILY.add(RRTI)
def update_delay_when_done(b: Bench) -> None:
    """ESTIMATED STATUS UPDATE DELAY of a finished copy is FFFFFFFEh."""
    _, told = _populated(b, (16, 8))
    b.equal("ESTIMATED STATUS UPDATE DELAY", f"{told.status.delay:08X}h", f"{DELAY_WHEN_DONE:08X}h")


@FAMILY.add(RRTI)
def information_twice(b: Bench) -> None:
    """A token may be fetched again: the first answer may have got lost."""
    identifier, told = _populated(b, (16, 8))
    b.equal("the token", b.information(b.first, identifier).token, told.token)


@FAMILY.add("SPC-4 6.24")
def status_keeps_the_token(b: Bench) -> None:
    """RECEIVE COPY STATUS(LID4) tells 32 bytes and does not use the token up."""
    identifier = next(b.near.identifiers)
    b.good(b.near.populate(b.first.lun, ranges([(16, 8)]), identifier=identifier))
    cdb = bytes((0x84, 0x05)) + identifier.to_bytes(4, "big") + bytes(4) + (1024).to_bytes(4, "big")
    answer = b.near.command(b.first.lun, cdb)
    b.good(answer)
    b.equal("bytes of data-in", len(answer.data), 32)
    b.equal("AVAILABLE DATA", u32(answer.data, 0), 28)
    b.equal("TRANSFER COUNT", u64(answer.data, 16), 8)
    b.expect("a token", ok=b.information(b.first, identifier).token is not None)


@FAMILY.add("SPC-4 4.2.5.6")
def allocation_length_cuts(b: Bench) -> None:
    """ALLOCATION LENGTH cuts the data and alters no field in it."""
    identifier, _ = _populated(b, (16, 8))
    answer = b.near.information(b.first.lun, identifier, 40)
    b.good(answer)
    b.equal("bytes of data-in", len(answer.data), 40)
    b.equal("AVAILABLE DATA", u32(answer.data, 0), 546)
    b.expect("a token afterwards", ok=b.information(b.first, identifier).token is not None)


@FAMILY.add("SPC-4 5.17.4.2")
def list_identifier_is_free_afterwards(b: Bench) -> None:
    """The list identifier of a finished copy may be used again; then only the new result is told."""
    identifier, _ = _populated(b, (16, 8))
    b.good(b.near.populate(b.first.lun, ranges([(16, 6)]), identifier=identifier))
    b.equal("TRANSFER COUNT", b.finished(b.first, identifier).status.count, 6)


@FAMILY.add("SPC-4 6.43")
def all_tokens(b: Bench) -> None:
    """REPORT ALL ROD TOKENS shows the management token of a new token, and of none a secret."""
    token = b.token(b.first, (16, 8))
    answer = b.near.command(b.first.lun, bytes((0x84, 0x08)) + bytes(8) + (65535).to_bytes(4, "big"))
    if answer.fault in {INVALID_CDB, (5, 0x20, 0x00)}:
        raise CheckSkippedError("the device has no REPORT ALL ROD TOKENS")
    b.good(answer)
    listed = [answer.data[at : at + 96] for at in range(8, len(answer.data), 96)]
    b.equal("AVAILABLE DATA", u32(answer.data, 0), len(answer.data) - 4)
    b.expect("whole tokens of 96 bytes", ok=len(listed[-1]) == 96)
    b.expect("bytes 0 to 95 of the new token", ok=token[:96] in listed)
    b.expect("no part of its secret", ok=token[256:288] not in answer.data)


@FAMILY.add("SBC-5 5.12, SPC-4 6.26")
def in_the_background(b: Bench) -> None:
    """IMMED=1 answers GOOD at once; the token comes when the copy is done."""
    _, told = _populated(b, (16, 8), immediate=True)
    b.equal("COPY OPERATION STATUS", told.status.status, 0x01)
    b.expect("a token", ok=told.token is not None)


@FAMILY.add("SPC-4 6.26", HELD)
def progress_is_told(b: Bench) -> None:
    """While a copy runs in the background its status is 10h or 12h, without a token."""
    identifier = next(b.near.identifiers)
    b.good(b.near.populate(b.first.lun, ranges([(16, 8)]), identifier=identifier, immediate=True))
    answer = b.near.information(b.first.lun, identifier)
    b.good(answer)
    b.expect(
        "COPY OPERATION STATUS 10h or 12h", ok=answer.data[5] & 0x7F in {0x10, 0x12}, found=answer.data[5]
    )
    b.equal("bytes of data-in", len(answer.data), 36)
    b.equal("ROD TOKEN DESCRIPTORS LENGTH", u32(answer.data, 32), 0)
