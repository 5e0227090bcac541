"""What the class driver asks a disk at device start, and whether ODX is on afterwards.

Imports `packets`, `limits`, `wire`. VPD pages 00h, B2h, B0h, 8Fh, then the control mode page (class.c, utils.c). It
is done once: a page that changes later is not seen until the device starts again. Next: `driver.py` keeps the
result, `explain/` puts it into words. Every reason against ODX names page and byte.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from qemu_odx.windows.limits import BlockLimits, TokenLimits
from qemu_odx.wire.scsi.fields import u16, u32, u64

if TYPE_CHECKING:
    from qemu_odx.windows.packets import Packets
    from qemu_odx.wire.dsm.ntstatus import NtStatus

THIRD_PARTY, LIMITS, CHARACTERISTICS, PROVISIONING = 0x8F, 0xB0, 0xB1, 0xB2
_LOOKED_FOR = (PROVISIONING, LIMITS, THIRD_PARTY)
"""Pages asked for here, in this order, if page 00h lists them."""
ASKED = 255
"""VPD_MAX_BUFFER_SIZE: what Windows allocates for a page."""
DESCRIPTOR_SIZE = 0x24
"""The block device ROD token limits descriptor with its head; PAGE LENGTH may not be less."""
_LIMITS_PAGE_NEEDED = 36
"""Bytes without which page B0h counts as unusable."""
_RETRIES = 4
"""MAXIMUM_RETRIES of a synchronous command (classpnp.h)."""
CONTROL_PAGE = 0x0A
_MODE_SENSE_ROOM = 192
_MODE_HEADER = 4
_QERR = 0x06
"""Bits 2-1 of byte 3 of the control mode page (SPC-4 7.5.10)."""


@dataclass(frozen=True, slots=True)
class Finding:
    """Something in an answer that matters.

    Attributes:
        page: "VPD 8Fh", "control mode page".
        byte: offset in the page; None if the whole answer is meant.
        found: what is there.
        wanted: what should be there.
        effect: what Windows does because of it.
    """

    page: str
    byte: int | None
    found: str
    wanted: str
    effect: str


@dataclass(slots=True)
class Discovery:
    """What Windows knows of a disk after device start.

    Attributes:
        pages: codes that page 00h lists, as far as Windows takes them.
        raw: the answers by page code; the control mode page under `CONTROL_PAGE`.
        limits: of page 8Fh; None if ODX is off.
        block_limits: of page B0h; None if it was not usable.
        against: why ODX is off, one finding at most.
        qerr: QERR of the control mode page, None if it was not asked for or not told.
        qerr_cleared: MODE SELECT wrote it to 0.
    """

    pages: frozenset[int] = frozenset()
    raw: dict[int, bytes] = field(default_factory=dict)
    limits: TokenLimits | None = None
    block_limits: BlockLimits | None = None
    against: Finding | None = None
    qerr: int | None = None
    qerr_cleared: bool = False

    @property
    def on(self) -> bool:
        """ODX is on."""
        return self.limits is not None


_OFF = "ODX is off until the device is started again"


def discover(packets: Packets) -> Discovery:
    """Ask as Windows does at device start."""
    known = Discovery()
    _supported_pages(packets, known)
    for code in _LOOKED_FOR:
        if code in known.pages:
            known.raw[code], status = _page(packets, code)
            if code == LIMITS:
                known.block_limits = _block_limits(known.raw[code], status)
            if code == THIRD_PARTY:
                _third_party(known, status)
    if known.on:
        _clear_qerr(packets, known)
    return known


def _page(packets: Packets, code: int) -> tuple[bytes, NtStatus]:
    done = packets.send(bytes((0x12, 0x01, code, 0, ASKED, 0)), retries=_RETRIES)
    return done.data[:ASKED], done.status


def _supported_pages(packets: Packets, known: Discovery) -> None:
    data, status = _page(packets, 0x00)
    known.raw[0x00] = data
    if not status.ok:
        known.against = Finding("VPD 00h", None, status.label, "the page", _OFF)
        return
    codes = data.ljust(4 + ASKED, b"\0")[4:]
    codes = codes[: data[3] if len(data) > 3 else 0]
    known.against = _list_fault(codes)
    if known.against is None:
        known.pages = frozenset(codes)
        if THIRD_PARTY not in known.pages:
            found = " ".join(f"{code:02X}h" for code in codes) or "an empty list"
            known.against = Finding("VPD 00h", 4, found, "8Fh in the list", f"8Fh is never read: {_OFF}")


def _list_fault(codes: bytes) -> Finding | None:
    """Page codes begin with 00h and ascend strictly; the first that does not turns 8Fh, B0h, B1h and B2h off."""
    if codes and codes[0]:
        return Finding("VPD 00h", 4, f"{codes[0]:02X}h", "00h, the first page of every list", _OFF)
    for number in range(1, len(codes)):
        if codes[number] <= codes[number - 1]:
            effect = f"the limits of UNMAP are ignored as well, and {_OFF}"
            wanted = f"more than {codes[number - 1]:02X}h, which stands before it"
            return Finding("VPD 00h", 4 + number, f"{codes[number]:02X}h", wanted, effect)
    return None


def _block_limits(data: bytes, status: NtStatus) -> BlockLimits | None:
    if not status.ok or len(data) < _LIMITS_PAGE_NEEDED or u16(data, 2) < _LIMITS_PAGE_NEEDED - 4:
        return None
    return BlockLimits(u32(data, 8), u32(data, 12), u16(data, 6))


def _third_party(known: Discovery, status: NtStatus) -> None:
    data = known.raw[THIRD_PARTY].ljust(4 + DESCRIPTOR_SIZE, b"\0")
    if not status.ok:
        known.against = Finding("VPD 8Fh", None, status.label, "the page", _OFF)
        return
    known.against = _descriptor_fault(data)
    if known.against is None:
        known.limits = TokenLimits(u16(data, 14), u32(data, 16), u32(data, 20), u64(data, 24), u64(data, 32))


def _descriptor_fault(data: bytes) -> Finding | None:
    """Only these three fields are looked at; of each the first byte that is wrong is named."""
    length = u16(data, 2)
    if length < DESCRIPTOR_SIZE:
        byte = 2 if data[2] else 3
        wanted = f"{DESCRIPTOR_SIZE:04X}h or more (PAGE LENGTH)"
        return Finding("VPD 8Fh", byte, f"{length:04X}h", wanted, _OFF)
    for place, value, what in (
        (4, 0x0000, "type of the first descriptor"),
        (6, 0x0020, "length of the first descriptor"),
    ):
        found = u16(data, place)
        if found != value:
            byte = place if found >> 8 != value >> 8 else place + 1
            return Finding("VPD 8Fh", byte, f"{found:04X}h", f"{value:04X}h ({what})", _OFF)
    return None


def _clear_qerr(packets: Packets, known: Discovery) -> None:
    """QERR other than 0 is written to 0; that it fails is only logged."""
    cdb = bytes((0x1A, 0x00, CONTROL_PAGE, 0x00, _MODE_SENSE_ROOM, 0x00))
    data = packets.send(cdb, retries=_RETRIES).data
    at = _MODE_HEADER + (data[3] if len(data) >= _MODE_HEADER else 0)
    page = data[at : at + 2 + (data[at + 1] if len(data) > at + 1 else 0)]
    if len(page) < 4 or page[0] & 0x3F != CONTROL_PAGE:
        return
    known.raw[CONTROL_PAGE] = page
    known.qerr = (page[3] & _QERR) >> 1
    if known.qerr:
        savable = page[0] >> 7
        body = bytes(_MODE_HEADER) + bytes((CONTROL_PAGE, page[1], page[2], page[3] & ~_QERR)) + page[4:]
        select = bytes((0x15, 0x10 | savable, 0x00, 0x00, len(body), 0x00))
        known.qerr_cleared = packets.send(select, body, retries=_RETRIES).status.ok
