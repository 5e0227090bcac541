"""UNMAP and WRITE SAME: give blocks back, or fill them with one block (SBC-3)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qemu_odx.target.commands.blocks import medium_fault
from qemu_odx.target.commands.inquiry import UNMAP_DESCRIPTORS
from qemu_odx.target.plan import GOOD, OnDisk
from qemu_odx.wire.scsi import sense
from qemu_odx.wire.scsi.cdb import block_cdb
from qemu_odx.wire.scsi.fields import u16
from qemu_odx.wire.scsi.token_lists import RANGE_SIZE, ranges

if TYPE_CHECKING:
    from qemu_odx.disk.port import Disk
    from qemu_odx.target.plan import Answer, Plan
    from qemu_odx.target.request import Handler, Request

_UNMAP_HEADER = 8
_FILL = 1 << 20
"""Bytes written at once by WRITE SAME with a pattern."""


def unmap(request: Request) -> Plan:
    """UNMAP: its descriptors have the layout of token ranges."""
    unit = request.unit
    if request.cdb[1] & 1:  # ANCHOR: not supported
        return sense.INVALID_FIELD_IN_CDB.at(1, in_cdb=True, bit=0)
    length = u16(request.cdb, 7)
    data = request.parameter_list(length)
    if not length:
        return GOOD
    if len(data) < _UNMAP_HEADER:
        return sense.PARAMETER_LIST_LENGTH_ERROR
    described = u16(data, 2) // RANGE_SIZE * RANGE_SIZE
    wanted = ranges(data, _UNMAP_HEADER, described)
    fault = unit.not_ready() or unit.write_protection()
    if fault is not None:
        return fault
    if len(wanted) > UNMAP_DESCRIPTORS:
        return sense.INVALID_FIELD_IN_LIST.at(2)
    for number, item in enumerate(wanted):
        if unit.out_of_range(item.lba, item.blocks):
            return sense.LBA_OUT_OF_RANGE.at(_UNMAP_HEADER + number * RANGE_SIZE)
    size = unit.block_size

    def give_back(disk: Disk) -> Answer:
        for item in wanted:
            if item.blocks:
                disk.discard(item.lba * size, item.blocks * size)
        return GOOD

    return OnDisk(give_back, writes=True)


def write_same(request: Request) -> Plan:
    """WRITE SAME(10), (16) with UNMAP, ANCHOR refused, and NDOB in the 16-byte form."""
    cdb, unit = block_cdb(request.cdb), request.unit
    no_data = bool(len(request.cdb) >= 16 and request.cdb[0] == 0x93 and cdb.flags & 0x01)
    if cdb.flags & 0x10:
        return sense.INVALID_FIELD_IN_CDB.at(1, in_cdb=True, bit=4)
    fault = medium_fault(unit, cdb) or unit.write_protection()
    if fault is not None:
        return fault
    if cdb.count == 0:  # WSNZ of page B0h: one small command shall not fill a whole disk
        return sense.INVALID_FIELD_IN_CDB.at(cdb.count_at, in_cdb=True)
    size = unit.block_size
    pattern = bytes(size) if no_data else request.parameter_list(size + 1)
    if len(pattern) != size:  # an initiator that takes the blocks for larger ones shall not write, too
        return sense.INVALID_FIELD_IN_CDB.at(cdb.count_at, in_cdb=True)
    place, length, may_unmap = cdb.lba * size, cdb.count * size, bool(cdb.flags & 0x08)

    def fill(disk: Disk) -> Answer:
        if not any(pattern):
            disk.write_zeroes(place, length, unmap=may_unmap)
        else:
            _repeat(disk, pattern, place, length)
        return GOOD

    return OnDisk(fill, writes=True)


def _repeat(disk: Disk, pattern: bytes, place: int, length: int) -> None:
    block = memoryview(pattern * (_FILL // len(pattern)))
    for done in range(0, length, len(block)):
        disk.write(place + done, [block[: length - done]])


HANDLERS: dict[str, Handler] = {
    "UNMAP": unmap,
    "WRITE SAME(10)": write_same,
    "WRITE SAME(16)": write_same,
}
