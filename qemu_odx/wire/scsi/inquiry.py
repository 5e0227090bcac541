"""INQUIRY data: the standard page and the vital product data pages of a disk.

Imports `wire/scsi/fields`. The third-party copy page 8Fh is in `wire/scsi/third_party_page.py`. Layouts: SPC-4 6.6
and 7.8, SBC-3 6.6. What Windows demands is said where it shapes a value.
"""

from __future__ import annotations

from dataclasses import dataclass

from qemu_odx.wire.scsi.fields import padded, put16, put32, put64, with_length

VENDOR = "QEMU_ODX"
PRODUCT = "ODX DISK"
REVISION = "0100"
ABSENT = 0x7F
"""Peripheral qualifier 3, type 1Fh: no such logical unit (SPC-4 6.6.2)."""
_VERSION_DESCRIPTORS = (0x00A0, 0x0460, 0x04C0)
"""SAM-5, SPC-4, SBC-3 (SPC-4 6.6.2)."""


def standard(*, present: bool = True) -> bytes:
    """Standard INQUIRY data, 96 bytes (SPC-4 6.6.2)."""
    data = bytearray(96)
    data[0] = 0 if present else ABSENT
    data[2] = 0x06  # SPC-4
    data[3] = 0x12  # HISUP, response data format 2
    data[4] = len(data) - 5
    data[5] = 0x08  # 3PC: third-party copy commands
    data[7] = 0x02  # CMDQUE
    data[8:16], data[16:32], data[32:36] = padded(VENDOR, 8), padded(PRODUCT, 16), padded(REVISION, 4)
    for number, code in enumerate(_VERSION_DESCRIPTORS):
        put16(data, 58 + 2 * number, code)
    return bytes(data)


def page(code: int, body: bytes) -> bytes:
    """A vital product data page: header, then `body`."""
    return with_length(body, bytes((0, code)))


def supported_pages(codes: tuple[int, ...]) -> bytes:
    """Page 00h. Windows ignores every page unless the list ascends strictly from 00h."""
    return page(0x00, bytes(sorted(codes)))


def unit_serial_number(serial: str) -> bytes:
    """Page 80h."""
    return page(0x80, serial.encode("ascii", "replace"))


def naa_designator(naa: bytes, association: int = 0) -> bytes:
    """A designation descriptor with a NAA designator; association 0 unit, 1 port, 2 target (SPC-4 7.8.6)."""
    return bytes((0x01, association << 4 | 0x03, 0x00, len(naa))) + naa


def device_identification(naa: bytes, serial: str, target_port: int) -> bytes:
    """Page 83h: NAA, T10 vendor ID and relative target port.

    Kept well under 252 bytes with short designators: vioscsi loops for ever on a designator of 252 bytes.
    """
    vendor = padded(VENDOR, 8) + serial.encode("ascii", "replace")[:32]
    t10 = bytes((0x02, 0x01, 0x00, len(vendor))) + vendor
    port = bytes((0x01, 0x14, 0x00, 0x04, 0x00, 0x00)) + target_port.to_bytes(2, "big")
    return page(0x83, naa_designator(naa) + t10 + port)


@dataclass(frozen=True, slots=True)
class BlockLimits:
    """Page B0h (SBC-3 6.6.3), lengths in logical blocks.

    Attributes:
        compare_and_write: MAXIMUM COMPARE AND WRITE LENGTH.
        granularity: OPTIMAL TRANSFER LENGTH GRANULARITY.
        transfer: MAXIMUM TRANSFER LENGTH; 0 on purpose: Windows sends larger token ranges whatever it says.
        unmap_blocks: MAXIMUM UNMAP LBA COUNT.
        unmap_descriptors: MAXIMUM UNMAP BLOCK DESCRIPTOR COUNT.
        unmap_granularity: OPTIMAL UNMAP GRANULARITY.
        write_same: MAXIMUM WRITE SAME LENGTH.
    """

    compare_and_write: int
    granularity: int
    unmap_blocks: int
    unmap_descriptors: int
    unmap_granularity: int
    write_same: int
    transfer: int = 0

    def packed(self) -> bytes:
        """The page."""
        data = bytearray(64)
        data[4] = 0x01  # WSNZ: WRITE SAME with a count of 0, up to the last block, is refused
        data[5] = self.compare_and_write
        put16(data, 6, self.granularity)
        put32(data, 8, self.transfer)
        put32(data, 20, self.unmap_blocks)
        put32(data, 24, self.unmap_descriptors)
        put32(data, 28, self.unmap_granularity)
        put32(data, 32, 1 << 31)  # UGAVALID, alignment 0
        put64(data, 36, self.write_same)
        return page(0xB0, bytes(data[4:]))


def block_device_characteristics() -> bytes:
    """Page B1h: MEDIUM ROTATION RATE 1, a non-rotating medium (SBC-3 6.6.2)."""
    return page(0xB1, bytes((0x00, 0x01)) + bytes(58))


def logical_block_provisioning() -> bytes:
    """Page B2h: thin; UNMAP and WRITE SAME unmap; unmapped blocks read as zeros (SBC-3 6.6.4)."""
    flags = 0x80 | 0x40 | 0x20 | 0x04  # LBPU, LBPWS, LBPWS10, LBPRZ
    return page(0xB2, bytes((0x00, flags, 0x02, 0x00)))
