"""READ and WRITE in all lengths, SYNCHRONIZE CACHE (SBC-3). Next: `target/execute`, straight to guest memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qemu_odx.target.plan import GOOD, OnDisk, ReadBlocks, WriteBlocks
from qemu_odx.wire.scsi import sense
from qemu_odx.wire.scsi.cdb import block_cdb

if TYPE_CHECKING:
    from qemu_odx.disk.port import Disk
    from qemu_odx.target.lun import LogicalUnit
    from qemu_odx.target.plan import Answer, Plan
    from qemu_odx.target.request import Handler, Request
    from qemu_odx.wire.scsi.cdb import BlockCdb
    from qemu_odx.wire.scsi.sense import Sense


def medium_fault(unit: LogicalUnit, cdb: BlockCdb) -> Sense | None:
    """What stops any medium access command: no protection information here, stopped unit, range."""
    if cdb.protect:
        return sense.INVALID_FIELD_IN_CDB.at(1, in_cdb=True, bit=7)
    stopped = unit.not_ready()
    if stopped is not None:
        return stopped
    if unit.out_of_range(cdb.lba, cdb.count):
        return sense.LBA_OUT_OF_RANGE.at(cdb.lba_at, in_cdb=True)
    return None


def read(request: Request) -> Plan:
    """READ(6), (10), (12), (16)."""
    cdb, unit = block_cdb(request.cdb), request.unit
    fault = medium_fault(unit, cdb)
    if fault is not None:
        return fault
    return ReadBlocks(cdb.lba * unit.block_size, cdb.count * unit.block_size)


def write(request: Request) -> Plan:
    """WRITE(6), (10), (12), (16)."""
    cdb, unit = block_cdb(request.cdb), request.unit
    fault = medium_fault(unit, cdb) or unit.write_protection()
    if fault is not None:
        return fault
    return WriteBlocks(cdb.lba * unit.block_size, cdb.count * unit.block_size, cdb.fua)


def synchronize_cache(request: Request) -> Plan:
    """SYNCHRONIZE CACHE(10), (16): the whole cache is flushed whatever the range, which is allowed."""
    cdb, unit = block_cdb(request.cdb), request.unit
    if unit.out_of_range(cdb.lba, cdb.count):
        return sense.LBA_OUT_OF_RANGE.at(cdb.lba_at, in_cdb=True)

    def flush(disk: Disk) -> Answer:
        disk.flush()
        return GOOD

    return OnDisk(flush, writes=True)


HANDLERS: dict[str, Handler] = {
    **{f"READ({length})": read for length in (6, 10, 12, 16)},
    **{f"WRITE({length})": write for length in (6, 10, 12, 16)},
    **{f"SYNCHRONIZE CACHE({length})": synchronize_cache for length in (10, 16)},
}
