"""VERIFY and WRITE AND VERIFY in all lengths (SBC-3 5.33 to 5.37, 5.42 to 5.45).

What was written is read back through the host's page cache: that finds errors of ours and of the file system, and
those of the medium only where the host reads again. Next: `disk/port.Disk`, on a worker.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from qemu_odx.target.commands.blocks import medium_fault
from qemu_odx.target.execute import trim
from qemu_odx.target.plan import GOOD, OnDisk
from qemu_odx.target.request import gather
from qemu_odx.wire.scsi import sense
from qemu_odx.wire.scsi.cdb import block_cdb

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from qemu_odx.disk.port import Disk
    from qemu_odx.target.plan import Answer, Plan
    from qemu_odx.target.request import Handler, Request

    Expected = Callable[[int, int], bytes]
    """The bytes that should be there: offset from the first one, and how many."""

STEP = 1 << 20
"""Bytes read and compared at once."""
_WINDOW = 64 << 20
"""Bytes that are asked for holes at once."""
_NOTHING, _BYTE_BY_BYTE, _RESERVED, _ONE_BLOCK = 0, 1, 2, 3
"""BYTCHK (SBC-3 5.33, table 112)."""


def verify(request: Request) -> Plan:
    """VERIFY: against nothing, the same number of blocks, or one block over and over."""
    cdb, unit = block_cdb(request.cdb), request.unit
    size = unit.block_size
    fault = medium_fault(unit, cdb)
    if fault is not None:
        return fault
    if cdb.bytchk == _RESERVED:
        return sense.INVALID_FIELD_IN_CDB.at(1, in_cdb=True, bit=2)
    place, length = cdb.lba * size, cdb.count * size
    if cdb.bytchk == _NOTHING or not length:
        return OnDisk(lambda disk: _read_all(disk, place, length))
    if not request.take(length if cdb.bytchk == _BYTE_BY_BYTE else size):
        return GOOD
    expected = _data_out(request) if cdb.bytchk == _BYTE_BY_BYTE else _repeated(request.parameter_list(size))
    return OnDisk(lambda disk: _compare(disk, place, length, expected))


def write_and_verify(request: Request) -> Plan:
    """WRITE AND VERIFY: written, made stable, read back; with BYTCHK compared too."""
    cdb, unit = block_cdb(request.cdb), request.unit
    fault = medium_fault(unit, cdb) or unit.write_protection()
    if fault is not None:
        return fault
    if cdb.bytchk not in {_NOTHING, _BYTE_BY_BYTE}:
        return sense.INVALID_FIELD_IN_CDB.at(1, in_cdb=True, bit=2)
    place, length = cdb.lba * unit.block_size, cdb.count * unit.block_size
    if not request.take(length):
        return GOOD
    views, expected = trim(request.task.data_out, length), _data_out(request)

    def work(disk: Disk) -> Answer:
        disk.write(place, views)
        disk.flush()
        if cdb.bytchk == _NOTHING:
            return _read_all(disk, place, length)
        return _compare(disk, place, length, expected)

    return OnDisk(work, writes=True)


def _data_out(request: Request) -> Expected:
    views = request.task.data_out
    return lambda offset, length: gather(views, length, offset)


def _repeated(block: bytes) -> Expected:
    return lambda _, length: block * (length // len(block))  # a step is a multiple of every block size


def _steps(place: int, length: int, step: int) -> Iterator[tuple[int, int]]:
    for done in range(0, length, step):
        yield place + done, min(step, length - done)


def _read_all(disk: Disk, place: int, length: int) -> Answer:
    """Read what is mapped, for the errors this may meet."""
    for window, size in _steps(place, length, _WINDOW):
        for extent, mapped in disk.allocated(window, size):
            for at, part in _steps(extent.offset, extent.length if mapped else 0, STEP):
                disk.read(at, [memoryview(bytearray(part))])
    return GOOD


def _compare(disk: Disk, place: int, length: int, expected: Expected) -> Answer:
    for at, part in _steps(place, length, STEP):
        found = bytearray(part)
        disk.read(at, [memoryview(found)])
        if found != expected(at - place, part):
            return sense.MISCOMPARE
    return GOOD


HANDLERS: dict[str, Handler] = {
    **{f"VERIFY({length})": verify for length in (10, 12, 16)},
    **{f"WRITE AND VERIFY({length})": write_and_verify for length in (10, 12, 16)},
}
