"""Windows: what its class driver needs beyond, or against, the letter of the standards.

Facts from the class driver's published source (storage/class/classpnp) and the ODX hardware requirement.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from qemu_odx.testing.conformance.bench import CheckSkippedError, ranges
from qemu_odx.testing.conformance.checks.family import Family
from qemu_odx.testing.conformance.checks.faults import (
    INVALID_CDB,
    TOKEN_UNKNOWN,
    UNDERRUN,
    UNDERRUN_NOTHING,
)
from qemu_odx.wire.scsi.fields import u16, u32, u64
from qemu_odx.wire.scsi.rod_token import zero_token
from qemu_odx.wire.scsi.token_lists import TokenInformation

if TYPE_CHECKING:
    from qemu_odx.testing.conformance.bench import Bench, Unit

FAMILY = Family("windows")
TO = 400
_READ_ALLOCATION = 805
"""32 + 255 + 4 + 514: what the class driver allocates after POPULATE TOKEN."""
_SENSE_KEPT = 18
"""Bytes of sense data the class driver keeps."""
_COMPLETE = frozenset({0x01, 0x02, 0x03, 0x60})
"""All that it knows; it never polls."""
_IN_TIME = 4.0
"""Seconds for a synchronous command (hardware requirement CopyOffload)."""
_ATTEMPTS = 3
_MOST_RANGES = 64


@FAMILY.add("classpnp ClasspReceivePopulateTokenInformation")
def offload_read(b: Bench) -> None:
    """List identifier 0, an empty ROD TYPE, allocation 805: a token at 38 + f, in a descriptor of exactly 514."""
    b.good(b.near.populate(b.first.lun, ranges([(16, 8)]), identifier=0))
    answer = b.near.information(b.first.lun, 0, _READ_ALLOCATION)
    b.good(answer)
    data = answer.data
    b.expect("short data, no padding", ok=len(data) == 4 + u32(data, 0), found=f"{len(data)} bytes")
    b.equal("RESPONSE TO SERVICE ACTION", data[4] & 0x1F, 0x10)
    b.expect("COPY OPERATION STATUS 01h or 03h", ok=data[5] & 0x7F in {1, 3}, found=f"{data[5]:02X}h")
    at = 32 + data[13]
    b.equal("ROD TOKEN DESCRIPTORS LENGTH", u32(data, at), 514)
    b.equal("id before the token", u16(data, at + 4), 0)
    b.expect("TRANSFER COUNT from 1 to 8", ok=1 <= u64(data, 16) <= 8, found=u64(data, 16))


@FAMILY.add("classpnp ClasspServiceWriteUsingTokenTransferRequest", destructive=True)
def offload_write(b: Bench) -> None:
    """GOOD means all blocks; RECEIVE ROD TOKEN INFORMATION with allocation 65535 brings 36 bytes."""
    token = b.token(b.first, (16, 8))
    identifier = next(b.near.identifiers)
    b.good(b.write(b.first, token, (TO, 8), identifier=identifier))
    answer = b.near.information(b.first.lun, identifier, 65535)
    b.good(answer)
    b.equal("bytes of data-in", len(answer.data), 36)


@FAMILY.add("classpnp ClasspIsTokenOperationComplete", destructive=True)
def done_when_answered(b: Bench) -> None:
    """With IMMED=0 the copy is over when GOOD comes: nobody polls for 11h or 12h."""
    identifier = next(b.near.identifiers)
    b.good(b.near.populate(b.first.lun, ranges([(16, 8)]), identifier=identifier))
    told = b.information(b.first, identifier)
    b.expect(
        "a complete COPY OPERATION STATUS",
        ok=told.status.status in _COMPLETE,
        found=f"{told.status.status:02X}h",
    )
    token = b.token(b.first, (16, 8))
    b.good(b.write(b.first, token, (TO, 8), identifier=identifier))
    status = b.information(b.first, identifier).status.status
    b.expect("a complete COPY OPERATION STATUS", ok=status in _COMPLETE, found=f"{status:02X}h")


@FAMILY.add("classpnp InterpretTransferPacketError", destructive=True)
def truncation(b: Bench) -> None:
    """A write that asks for too much ends in fixed-format sense, status 03h and never 04h, count within bounds."""
    token, identifier = b.token(b.first, (16, 4)), next(b.near.identifiers)
    answer = b.write(b.first, token, (TO, 8), identifier=identifier)
    b.refused(answer, UNDERRUN, UNDERRUN_NOTHING)
    b.expect("fixed-format sense data", ok=answer.sense[0] & 0x7F == 0x70, found=answer.sense.hex())
    count = u32(answer.sense, 3)
    b.expect(
        "INFORMATION of what was written", ok=count == (4 if answer.fault == UNDERRUN else 0), found=count
    )
    told = b.near.information(b.first.lun, identifier)
    if told.fault == INVALID_CDB and answer.fault == UNDERRUN_NOTHING:
        return
    b.good(told)
    status = TokenInformation.parse(told.data).status
    b.expect("COPY OPERATION STATUS 02h or 03h", ok=status.status in {2, 3}, found=f"{status.status:02X}h")
    b.expect("02h only with count 0", ok=status.status == 3 or not status.count, found=status.count)
    b.expect("sense data of up to 18 bytes", ok=len(status.sense) <= _SENSE_KEPT, found=len(status.sense))


@FAMILY.add(
    "classpnp ClasspModeSense",
)
def error_recovery_page(b: Bench) -> None:
    """The control mode page has QERR 0 and D_SENSE 0, asked for with MODE SENSE(6) and 192 bytes."""
    answer = b.near.command(b.first.lun, "1a000a00c000")
    b.good(answer)
    page = answer.data[4 + answer.data[3] :]
    b.equal("page code", page[0] & 0x3F, 0x0A)
    b.equal("QERR", page[3] >> 1 & 3, 0)
    b.equal("D_SENSE", page[2] >> 2 & 1, 0)


@FAMILY.add("SPC-4 4.5.3, classpnp SENSE_DATA_EX")
def fixed_format_sense(b: Bench) -> None:
    """Sense data comes in fixed format: of the other, the count does not fit the 18 bytes that are kept."""
    answer = b.near.information(b.first.lun, 0xFEDCBA98)
    b.refused(answer, INVALID_CDB)
    b.expect("response code 70h", ok=answer.sense[:1] in {b"\x70", b"\xf0"}, found=answer.sense.hex())
    b.expect("at least 14 bytes", ok=len(answer.sense) >= 14, found=len(answer.sense))


@FAMILY.add("classpnp ClasspGetBlockLimitsInfo, requirement CopyOffload")
def block_limits(b: Bench) -> None:
    """VPD B0h has 64 bytes; MAXIMUM TRANSFER LENGTH is 0 or does not cut what one token command may move."""
    answer = b.near.command(b.first.lun, "1201b000ff00")
    b.good(answer)
    b.equal("PAGE LENGTH", u16(answer.data, 2), 0x3C)
    most, unit = u32(answer.data, 8), b.first
    b.expect(
        "MAXIMUM TRANSFER LENGTH 0 or at least OPTIMAL TRANSFER COUNT",
        ok=not most or 0 < unit.optimal_blocks <= most,
        found=most,
    )


@FAMILY.add("classpnp ClasspGetBlockDeviceTokenLimitsInfo")
def third_party_page_as_asked(b: Bench) -> None:
    """VPD 8Fh asked with 255 bytes: PAGE LENGTH at least 24h, first descriptor 0000h of 20h."""
    answer = b.near.command(b.first.lun, "12018f00ff00")
    b.good(answer)
    b.expect("PAGE LENGTH of 24h or more", ok=u16(answer.data, 2) >= 0x24, found=u16(answer.data, 2))
    b.equal("first descriptor's type and length", answer.data[4:8], bytes.fromhex("00000020"))


@FAMILY.add("classpnp ClasspServicePopulateTokenTransferRequest")
def as_many_ranges_as_windows_sends(b: Bench) -> None:
    """64 ranges, or MAXIMUM RANGE DESCRIPTORS if less, cluster by cluster and not ascending."""
    count = min(_MOST_RANGES, b.first.max_ranges or _MOST_RANGES)
    places = [(16 + 16 * number, 8) for number in reversed(range(count))]
    identifier = next(b.near.identifiers)
    b.good(b.near.populate(b.first.lun, ranges(places), identifier=identifier))
    b.equal("TRANSFER COUNT", b.information(b.first, identifier).status.count, 8 * count)


@FAMILY.add("MS-FSCC 2.1.11", destructive=True)
def zero_token_of_ntfs(b: Bench) -> None:
    """The zero token that NTFS makes by itself is taken: FFFF0001h, length 01F8h."""
    b.fill(b.first, TO, 4, "old")
    b.good(b.write(b.first, zero_token(), (TO, 4)))
    b.holds(b.first, TO, bytes(4 * b.first.block_size), "zeros")


@FAMILY.add("classpnp ClassInterpretSenseInfo", destructive=True)
def dead_token_is_told_as_such(b: Bench) -> None:
    """A token that is no good is refused with ASC 23h: Windows then tells its caller so."""
    answer = b.write(b.first, bytes.fromhex("00800000000001f8") + bytes(504), (TO, 1))
    b.refused(answer, TOKEN_UNKNOWN, (5, 0x23, 0x00), (5, 0x23, 0x02), (5, 0x23, 0x05))


@FAMILY.add("requirement CopyOffload", destructive=True)
def in_time(b: Bench) -> None:
    """POPULATE TOKEN and WRITE USING TOKEN of OPTIMAL TRANSFER COUNT end within 4 s each."""
    unit = b.first
    blocks = unit.optimal_blocks or (64 << 20) // unit.block_size
    if unit.blocks < 2 * blocks + TO:
        blocks = (unit.blocks - TO) // 2
    if not blocks:
        raise CheckSkippedError("the disk is too small")
    for _ in range(_ATTEMPTS):  # a host that stood still meanwhile is not the device's fault
        populated, written = _durations(b, unit, blocks)
        if max(populated, written) < _IN_TIME:
            break
    b.expect("POPULATE TOKEN within 4 s", ok=populated < _IN_TIME, found=f"{populated:.1f} s")
    b.expect("WRITE USING TOKEN within 4 s", ok=written < _IN_TIME, found=f"{written:.1f} s")


def _durations(b: Bench, unit: Unit, blocks: int) -> tuple[float, float]:
    """Seconds of a POPULATE TOKEN and of a WRITE USING TOKEN."""
    identifier = next(b.near.identifiers)
    start = time.monotonic()
    b.good(b.near.populate(unit.lun, ranges([(TO, blocks)]), identifier=identifier))
    populated = time.monotonic() - start
    token = b.information(unit, identifier).token or bytes(512)
    start = time.monotonic()
    b.good(b.write(unit, token, (TO + blocks, blocks)))
    return populated, time.monotonic() - start
