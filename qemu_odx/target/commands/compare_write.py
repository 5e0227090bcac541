"""COMPARE AND WRITE, ORWRITE (SBC-3 5.3, 5.11): read, decide and write with no other write in between.

Next: `disk/port.Disk.update`, which no write passes by: not one of another unit, of virtio-blk, or of a token copy.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from qemu_odx.target.commands.blocks import medium_fault
from qemu_odx.target.plan import GOOD, OnDisk
from qemu_odx.target.request import gather
from qemu_odx.wire.scsi import sense
from qemu_odx.wire.scsi.cdb import BlockCdb, block_cdb
from qemu_odx.wire.scsi.fields import u64

if TYPE_CHECKING:
    from qemu_odx.disk.port import Disk
    from qemu_odx.target.plan import Answer, Plan
    from qemu_odx.target.request import Handler, Request

_STEP = 1 << 20
"""Bytes of ORWRITE that other writes have to wait for at once; atomic in each block, which is enough."""
_CHUNK = 512


def compare_and_write(request: Request) -> Plan:
    """COMPARE AND WRITE: NUMBER OF LOGICAL BLOCKS is one byte; twice as much data comes out."""
    cdb, unit = request.cdb, request.unit
    fields = BlockCdb(u64(cdb, 2), cdb[13], cdb[1], 2, 13)
    fault = medium_fault(unit, fields) or unit.write_protection()
    if fault is not None:
        return fault
    place, length = fields.lba * unit.block_size, fields.count * unit.block_size
    if not length or not request.take(2 * length):
        return GOOD
    swaps, stable = request.manager.swaps, fields.fua or not unit.mode.write_cache
    noted = swaps.expect(request.task)

    def work(disk: Disk) -> Answer:
        data = gather(request.task.data_out, 2 * length)
        wanted, new = data[:length], data[length:]
        found = b""
        if noted is not None:
            noted.about(disk.name, place, wanted, new, stable=stable)

        def change(old: bytes) -> bytes | None:
            nonlocal found
            found = old
            return new if old == wanted else None

        written = disk.update(place, length, change, partial(swaps.writing, noted))
        return GOOD if written else sense.MISCOMPARE.told(first_difference(found, wanted))

    return OnDisk(work, writes=True, stable=stable)


def first_difference(one: bytes, other: bytes) -> int:
    """Offset of the first byte that differs; both are as long, and differ."""
    start = next(at for at in range(0, len(one), _CHUNK) if one[at : at + _CHUNK] != other[at : at + _CHUNK])
    return next(at for at in range(start, len(one)) if one[at] != other[at])


def orwrite(request: Request) -> Plan:
    """ORWRITE(16): each block becomes itself or the data."""
    cdb, unit = block_cdb(request.cdb), request.unit
    fault = medium_fault(unit, cdb) or unit.write_protection()
    if fault is not None:
        return fault
    place, length = cdb.lba * unit.block_size, cdb.count * unit.block_size
    if not request.take(length):
        return GOOD

    def work(disk: Disk) -> Answer:
        for at in range(0, length, _STEP):
            data = gather(request.task.data_out, min(_STEP, length - at), at)
            disk.update(place + at, len(data), lambda old, data=data: _either(old, data))  # type: ignore[misc]
        return GOOD

    return OnDisk(work, writes=True, stable=cdb.fua)


def _either(one: bytes, other: bytes) -> bytes:
    both = int.from_bytes(one, "big") | int.from_bytes(other, "big")
    return both.to_bytes(len(one), "big")


HANDLERS: dict[str, Handler] = {"COMPARE AND WRITE": compare_and_write, "ORWRITE(16)": orwrite}
