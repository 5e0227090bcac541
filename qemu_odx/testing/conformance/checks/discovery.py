"""Discovery: what a device says of itself before any token is made. Windows reads it once, at device start."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

from qemu_odx.testing.conformance import pages
from qemu_odx.testing.conformance.bench import CheckSkippedError
from qemu_odx.testing.conformance.checks.family import Family
from qemu_odx.testing.conformance.checks.faults import INVALID_CDB, INVALID_OPCODE
from qemu_odx.wire.scsi.fields import u16, u32, u64

if TYPE_CHECKING:
    from qemu_odx.testing.conformance.bench import Bench

FAMILY = Family("discovery")

_LONGEST_DESIGNATOR = 251
"""vioscsi loops for ever over a designation descriptor with a designator of 252 bytes or more."""
_ALLOCATION = 255
"""What Windows asks for: one byte of ALLOCATION LENGTH."""
_MUST = {0x83: {0x10, 0x11}, 0x84: {0x05, 0x07}}


def _page(b: Bench, code: int, allocation: int = 1024) -> bytes:
    answer = b.near.command(b.first.lun, bytes((0x12, 1, code)) + allocation.to_bytes(2, "big"))
    b.good(answer)
    b.equal("PAGE CODE", answer.data[1:2], bytes((code,)))
    return answer.data


@FAMILY.add("SPC-4 6.6.2")
def third_party_copy_bit(b: Bench) -> None:
    """Standard INQUIRY data has 3PC set."""
    answer = b.near.command(b.first.lun, "120000006000")
    b.good(answer)
    b.expect("3PC = 1 in byte 5", ok=bool(answer.data[5] & 0x08), found=f"{answer.data[5]:02X}h")


@FAMILY.add("SPC-4 7.8.1")
def pages_ascend(b: Bench) -> None:
    """Page 00h lists its codes strictly ascending from 00h, with 83h, 8Fh and B0h, and no more than there are."""
    data = _page(b, 0x00, _ALLOCATION)
    codes = data[4:]
    b.equal("PAGE LENGTH", u16(data, 2), len(codes))
    b.expect("first code 00h", ok=codes[:1] == b"\0", found=codes.hex())
    b.expect("codes strictly ascending", ok=all(x < y for x, y in pairwise(codes)), found=codes.hex())
    b.expect("83h, 8Fh and B0h among them", ok={0x83, 0x8F, 0xB0} <= set(codes), found=codes.hex())


@FAMILY.add("SBC-5 6.6.9")
def limits_come_first(b: Bench) -> None:
    """VPD 8Fh starts with the block device ROD limits: type 0000h, length exactly 0020h."""
    data = _page(b, 0x8F)
    b.equal("first descriptor's type and length", data[4:8], bytes.fromhex("00000020"))


@FAMILY.add("SPC-4 7.8.17")
def descriptors_ascend(b: Bench) -> None:
    """VPD 8Fh: types ascend, lengths are multiples of 4, and PAGE LENGTH is what they add up to."""
    data = _page(b, 0x8F)
    found = pages.descriptors(data)
    kinds = [kind for kind, _ in found]
    b.expect("types ascending", ok=all(x < y for x, y in pairwise(kinds)), found=[f"{k:04X}h" for k in kinds])
    b.expect("lengths multiples of 4", ok=all(len(item) % 4 == 0 for _, item in found))
    b.equal("PAGE LENGTH", u16(data, 2), sum(len(item) for _, item in found))
    b.expect("descriptors 0001h and 8001h", ok={0x0001, 0x8001} <= set(kinds), found=kinds)


@FAMILY.add("SPC-4 7.8.17.4")
def commands_are_listed(b: Bench) -> None:
    """VPD 8Fh lists 83h/10h, 83h/11h, 84h/05h and 84h/07h, service actions ascending."""
    descriptor = pages.find(_page(b, 0x8F), 0x0001)
    b.expect("a supported commands descriptor", ok=descriptor is not None)
    listed = pages.commands(descriptor or b"")
    words = {f"{code:02X}h": actions.hex(" ") for code, actions in listed}
    for code, needed in _MUST.items():
        b.expect(
            f"{code:02X}h with {bytes(sorted(needed)).hex(' ')}",
            ok=needed <= set(dict(listed).get(code, b"")),
            found=words,
        )
    for _, actions in listed:
        b.expect("service actions ascending", ok=all(x < y for x, y in pairwise(actions)), found=words)


@FAMILY.add("SPC-4 7.8.17.4")
def listed_commands_are_there(b: Bench) -> None:
    """Each command that VPD 8Fh lists is taken: an empty one is not refused as unknown."""
    descriptor = pages.find(_page(b, 0x8F), 0x0001)
    for code, actions in pages.commands(descriptor or b""):
        for action in actions:
            if action == 0x1C:
                continue  # has no length field to make it empty
            answer = b.near.command(b.first.lun, bytes((code, action)))
            pointer = answer.sense[15:18]
            unknown = answer.fault == INVALID_OPCODE or (
                answer.fault == INVALID_CDB and pointer[1:] == b"\0\1" and bool(pointer[0] & 0x80)
            )
            b.expect(f"command {code:02X}h/{action:02X}h known", ok=not unknown, found=answer.sense.hex())


@FAMILY.add("SBC-5 6.6.9, SPC-4 7.8.17.9")
def limits_agree(b: Bench) -> None:
    """MAXIMUM TOKEN TRANSFER SIZE times block length is MAXIMUM BYTES IN BLOCK ROD, where both are told."""
    features = pages.find(_page(b, 0x8F), 0x0106)
    most = b.first.max_token_blocks * b.first.block_size
    if features is None or not most:
        raise CheckSkippedError("the device does not tell both limits")
    told = u64(features, 48 + 8)
    b.expect(f"MAXIMUM BYTES IN BLOCK ROD {most} or 0", ok=told in {0, most}, found=told)


@FAMILY.add("SBC-5 6.6.9")
def timeouts_agree(b: Bench) -> None:
    """The default inactivity timeout is not above the maximum, and the optimal transfer not above the largest."""
    _page(b, 0x8F)
    unit = b.first
    if unit.max_inactivity:
        b.expect(
            f"DEFAULT INACTIVITY TIMER up to {unit.max_inactivity}",
            ok=unit.default_inactivity <= unit.max_inactivity,
            found=unit.default_inactivity,
        )
    if unit.max_token_blocks:
        b.expect(
            f"OPTIMAL TRANSFER COUNT up to {unit.max_token_blocks}",
            ok=unit.optimal_blocks <= unit.max_token_blocks,
            found=unit.optimal_blocks,
        )


@FAMILY.add("SPC-4 7.8.17.10, SBC-5 4.28")
def rod_types_make_sense(b: Bench) -> None:
    """ROD types ascend; the zero type and access upon reference cannot be populated, "any" cannot be in a token."""
    descriptor = pages.find(_page(b, 0x8F), 0x0108)
    if descriptor is None:
        raise CheckSkippedError("the device lists no ROD types")
    listed = pages.rod_types(descriptor)
    kinds = [kind for kind, _ in listed]
    b.expect("types ascending", ok=all(x < y for x, y in pairwise(kinds)), found=[f"{k:08X}h" for k in kinds])
    flags = dict(listed)
    b.expect("no TOKEN_OUT for the zero type", ok=not flags.get(0xFFFF0001, 0) & 1)
    b.expect("no TOKEN_IN for POINT IN TIME COPY - ANY", ok=not flags.get(0x0080FFFF, 0) & 2)


@FAMILY.add("SPC-4 4.2.5.6")
def page_length_is_the_full_one(b: Bench) -> None:
    """VPD 8Fh cut by ALLOCATION LENGTH still tells its full PAGE LENGTH."""
    whole, cut = _page(b, 0x8F, 4096), _page(b, 0x8F, 32)
    b.equal("bytes of data-in", len(cut), min(32, len(whole)))
    b.equal("PAGE LENGTH", u16(cut, 2), len(whole) - 4)


@FAMILY.add("SPC-4 7.8.6")
def identification(b: Bench) -> None:
    """VPD 83h: descriptors fill the page exactly, one is a NAA or EUI-64 of the unit, none is overlong."""
    data = _page(b, 0x83)
    found = pages.designators(data)
    b.equal("PAGE LENGTH", u16(data, 2), len(data) - 4)
    b.equal("bytes of designation descriptors", sum(map(len, found)), len(data) - 4)
    b.expect("a NAA or EUI-64 designator of the unit", ok=any(item[1] & 0x3F in {2, 3} for item in found))
    longest = max(item[3] for item in found)
    b.expect(
        f"designators up to {_LONGEST_DESIGNATOR} bytes", ok=longest <= _LONGEST_DESIGNATOR, found=longest
    )
    b.expect("a page that fits 255 bytes", ok=len(data) <= _ALLOCATION, found=len(data))


@FAMILY.add("SPC-4 6.35")
def operation_codes(b: Bench) -> None:
    """REPORT SUPPORTED OPERATION CODES knows the token commands, with the list identifier where it stands."""
    places = {(0x83, 0x10): 6, (0x83, 0x11): 6, (0x84, 0x07): 2, (0x84, 0x05): 2}
    for (code, action), at in places.items():
        cdb = bytes((0xA3, 0x0C, 0x02, code, 0, action)) + (64).to_bytes(4, "big")
        answer = b.near.command(b.first.lun, cdb)
        if answer.fault in {INVALID_OPCODE, INVALID_CDB}:
            raise CheckSkippedError("the device has no REPORT SUPPORTED OPERATION CODES of one command")
        b.good(answer)
        b.equal("SUPPORT", answer.data[1] & 7, 3)
        usage = answer.data[4 : 4 + u16(answer.data, 2)]
        b.equal("CDB size", len(usage), 16)
        b.equal("operation code of the usage data", usage[0], code)
        b.equal(f"CDB usage of bytes {at} to {at + 3}", usage[at : at + 4], b"\xff" * 4)
        b.equal("CDB usage of bytes 10 to 13", usage[10:14], b"\xff" * 4)


@FAMILY.add("SPC-4 6.6.1")
def page_code_needs_evpd(b: Bench) -> None:
    """INQUIRY with a page code but without EVPD is refused."""
    b.refused(b.near.command(b.first.lun, "12008f00ff00"), INVALID_CDB)


@FAMILY.add("SBC-5 5.20")
def capacity_agrees(b: Bench) -> None:
    """READ CAPACITY(10) and (16) tell the same disk."""
    unit = b.first
    answer = b.near.command(unit.lun, "25000000000000000000")
    b.good(answer)
    b.equal("RETURNED LOGICAL BLOCK ADDRESS", u32(answer.data, 0), min(unit.blocks - 1, 0xFFFFFFFF))
    b.equal("LOGICAL BLOCK LENGTH", u32(answer.data, 4), unit.block_size)
