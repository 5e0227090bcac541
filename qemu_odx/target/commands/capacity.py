"""READ CAPACITY (SBC-3): how many blocks of which size, and that the disk is thin."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qemu_odx.target.request import cut
from qemu_odx.wire.scsi.fields import put32, put64, u32

if TYPE_CHECKING:
    from qemu_odx.target.plan import Plan
    from qemu_odx.target.request import Handler, Request

_LBPME_LBPRZ = 0xC0


def read_capacity_10(request: Request) -> Plan:
    """Last LBA, FFFFFFFFh if it does not fit in 32 bits, and the block length."""
    data = bytearray(8)
    put32(data, 0, min(request.unit.blocks - 1, 0xFFFFFFFF))
    put32(data, 4, request.unit.block_size)
    return cut(bytes(data), len(data))


def read_capacity_16(request: Request) -> Plan:
    """32 bytes: last LBA, block length, physical exponent, provisioning."""
    data = bytearray(32)
    put64(data, 0, request.unit.blocks - 1)
    put32(data, 8, request.unit.block_size)
    data[13] = request.unit.physical_exponent
    data[14] = _LBPME_LBPRZ
    return cut(bytes(data), u32(request.cdb, 10))


HANDLERS: dict[str, Handler] = {
    "READ CAPACITY(10)": read_capacity_10,
    "READ CAPACITY(16)": read_capacity_16,
}
