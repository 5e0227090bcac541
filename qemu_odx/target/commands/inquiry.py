"""INQUIRY: standard data and vital product data pages (SPC-4 6.6). Next: `wire/scsi/inquiry`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qemu_odx.target.request import cut
from qemu_odx.wire.scsi import inquiry as data
from qemu_odx.wire.scsi import opcodes, sense
from qemu_odx.wire.scsi.fields import u16
from qemu_odx.wire.scsi.third_party_page import ThirdPartyCopy, copy_operations

if TYPE_CHECKING:
    from collections.abc import Callable

    from qemu_odx.target.plan import Plan
    from qemu_odx.target.request import Handler, Request

TARGET_PORT = 1
COMPARE_AND_WRITE_BLOCKS = 255
UNMAP_DESCRIPTORS = 256
_PAGE = 4096
"""Bytes: pages of the host's cache; smaller writes may cost a read."""
_UNMAP_GRANULE = 64 * 1024
"""Bytes: what file systems free cheaply and the snapshot layer saves at once."""


def inquiry(request: Request) -> Plan:
    """Answer INQUIRY."""
    cdb = request.cdb
    allocation, code = u16(cdb, 3), cdb[2]
    if not cdb[1] & 1:
        if code:
            return sense.INVALID_FIELD_IN_CDB.at(2, in_cdb=True)
        return cut(data.standard(), allocation)
    build = _PAGES.get(code)
    if build is None:
        return sense.INVALID_FIELD_IN_CDB.at(2, in_cdb=True)
    return cut(build(request), allocation)


def absent_unit(cdb: bytes) -> Plan:
    """INQUIRY to a logical unit that is not there: peripheral qualifier 3."""
    if cdb[1] & 1 or cdb[2]:
        return sense.LUN_NOT_SUPPORTED
    return cut(data.standard(present=False), u16(cdb, 3))


def _supported(_: Request) -> bytes:
    return data.supported_pages(tuple(_PAGES))


def _serial(request: Request) -> bytes:
    return data.unit_serial_number(request.unit.disk.serial)


def _identification(request: Request) -> bytes:
    return data.device_identification(request.unit.naa, request.unit.disk.serial, TARGET_PORT)


def third_party(request: Request) -> ThirdPartyCopy:
    """The values of page 8Fh for a logical unit."""
    limits, target = request.unit.limits, request.target
    return ThirdPartyCopy(
        max_ranges=limits.max_ranges,
        max_inactivity=limits.max_inactivity_timeout,
        default_inactivity=limits.default_inactivity_timeout,
        max_token_blocks=limits.max_token_blocks,
        optimal_blocks=limits.optimal_blocks,
        block_size=request.unit.block_size,
        max_lifetime=limits.max_lifetime,
        max_cscd=limits.max_cscd,
        max_segments=limits.max_segments,
        max_copies=limits.max_copies,
        operations=copy_operations(row for row in opcodes.OPERATIONS if target.supports(row)),
    )


def _block_limits(request: Request) -> bytes:
    size, physical = request.unit.block_size, request.unit.disk.physical_block_size or _PAGE
    limits = data.BlockLimits(
        compare_and_write=COMPARE_AND_WRITE_BLOCKS,
        granularity=max(1, physical // size),
        unmap_blocks=0xFFFFFFFF,
        unmap_descriptors=UNMAP_DESCRIPTORS,
        unmap_granularity=max(_UNMAP_GRANULE, physical) // size,
        write_same=0,
    )
    return limits.packed()


_PAGES: dict[int, Callable[[Request], bytes]] = {
    0x00: _supported,
    0x80: _serial,
    0x83: _identification,
    0x8F: lambda request: third_party(request).packed(),
    0xB0: _block_limits,
    0xB1: lambda _: data.block_device_characteristics(),
    0xB2: lambda _: data.logical_block_provisioning(),
}

HANDLERS: dict[str, Handler] = {"INQUIRY": inquiry}
