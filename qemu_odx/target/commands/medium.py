"""What is where on the medium: GET LBA STATUS, PRE-FETCH, READ DEFECT DATA (SBC-3 5.5, 5.12, 5.17)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qemu_odx.target.commands.blocks import medium_fault
from qemu_odx.target.plan import GOOD, OnDisk
from qemu_odx.target.request import cut
from qemu_odx.wire.scsi import sense
from qemu_odx.wire.scsi.cdb import block_cdb
from qemu_odx.wire.scsi.fields import u16, u32, u64

if TYPE_CHECKING:
    from qemu_odx.disk.port import Disk
    from qemu_odx.target.plan import Answer, Plan
    from qemu_odx.target.request import Handler, Request

_MAPPED, _DEALLOCATED = 0x0, 0x1
"""PROVISIONING STATUS (SBC-3 5.5.3)."""
_HEADER, _DESCRIPTOR = 8, 16
_MOST_DESCRIPTORS = 1024
_WINDOW = 64 << 20
"""Bytes looked at in one go, so that no list of extents grows out of bounds."""
_HORIZON = 64 << 30
"""Bytes looked at for one command at most: the standard lets an answer end early."""
_CACHE = 64 << 20
"""Bytes that one command reads ahead at most."""
_STEP = 1 << 20


def get_lba_status(request: Request) -> Plan:
    """Runs of blocks that are mapped or deallocated, from a block on, as many as the allocation length holds."""
    unit, first, allocation = request.unit, u64(request.cdb, 2), u32(request.cdb, 10)
    if first >= unit.blocks:
        return sense.LBA_OUT_OF_RANGE.at(2, in_cdb=True)
    most = min(max(1, (allocation - _HEADER) // _DESCRIPTOR), _MOST_DESCRIPTORS)

    def work(disk: Disk) -> Answer:
        runs = _runs(disk, first * unit.block_size, most)
        body = b"".join(
            _descriptor(start // unit.block_size, length // unit.block_size, status)
            for start, length, status in runs
        )
        return cut((len(body) + 4).to_bytes(4, "big") + bytes(4) + body, allocation)

    return OnDisk(work)


def _descriptor(lba: int, blocks: int, status: int) -> bytes:
    return lba.to_bytes(8, "big") + blocks.to_bytes(4, "big") + bytes((status, 0, 0, 0))


def _runs(disk: Disk, start: int, most: int) -> list[tuple[int, int, int]]:
    """(offset, length, provisioning status) of at most so many runs, all of whole blocks.

    A block is deallocated only if all of it is a hole: the file system's blocks may be smaller than ours.
    """
    runs: list[tuple[int, int, int]] = []
    size, end = disk.block_size, min(disk.size, start + _HORIZON)
    for window in range(start, end, _WINDOW):
        last = min(end, window + _WINDOW)
        at = window
        for extent, mapped in disk.allocated(window, last - window):
            edge = extent.end + -extent.end % size if mapped else extent.end - extent.end % size
            if edge > at:
                _append(runs, at, edge - at, _MAPPED if mapped else _DEALLOCATED)
                at = edge
            if len(runs) > most:
                return runs[:most]
    return runs


def _append(runs: list[tuple[int, int, int]], start: int, length: int, status: int) -> None:
    if runs and runs[-1][2] == status:
        start, length = runs[-1][0], runs[-1][1] + length
        runs.pop()
    runs.append((start, length, status))


def prefetch(request: Request) -> Plan:
    """PRE-FETCH(10), (16): read into the host's cache. GOOD, not CONDITION MET: nobody knows what stays there."""
    cdb, unit = block_cdb(request.cdb), request.unit
    fault = medium_fault(unit, cdb)
    if fault is not None:
        return fault
    place = cdb.lba * unit.block_size
    count = cdb.count or unit.blocks - cdb.lba  # 0: up to the last block
    length = min(count * unit.block_size, _CACHE)

    def work(disk: Disk) -> Answer:
        for at in range(0, length, _STEP):
            disk.read(place + at, [memoryview(bytearray(min(_STEP, length - at)))])
        return GOOD

    return OnDisk(work)


def read_defect_data(request: Request) -> Plan:
    """READ DEFECT DATA(10), (12): both lists are empty, in whatever format was asked for."""
    cdb = request.cdb
    if request.operation.length == 10:
        return cut(bytes((0, cdb[2] & 0x1F, 0, 0)), u16(cdb, 7))
    return cut(bytes((0, cdb[1] & 0x1F, 0, 0, 0, 0, 0, 0)), u32(cdb, 6))


HANDLERS: dict[str, Handler] = {
    "GET LBA STATUS": get_lba_status,
    **{f"PRE-FETCH({length})": prefetch for length in (10, 16)},
    **{f"READ DEFECT DATA({length})": read_defect_data for length in (10, 12)},
}
