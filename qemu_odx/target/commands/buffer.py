"""WRITE BUFFER and READ BUFFER in vendor-specific mode (SPC-4 6.49, 6.20): the guest steers the server's faults.

Only where the server was started with `--guest-control`; elsewhere neither command exists. What the bytes mean is
`server/faulting/guest.py`'s.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from qemu_odx.target.plan import GOOD
from qemu_odx.target.request import cut
from qemu_odx.wire.scsi import sense
from qemu_odx.wire.scsi.buffers import VENDOR_SPECIFIC, buffer_cdb

if TYPE_CHECKING:
    from qemu_odx.target.plan import Plan
    from qemu_odx.target.request import Handler, Request
    from qemu_odx.wire.scsi.buffers import BufferCdb
    from qemu_odx.wire.scsi.sense import Sense

MOST = 64 << 10
"""Bytes of one WRITE BUFFER."""


def write_buffer(request: Request) -> Plan:
    """Do what the lines of the buffer say; the first that cannot be done refuses the rest."""
    fields, control = buffer_cdb(request.cdb), request.manager.guest_control
    fault = _field_fault(fields)
    if fault is not None or control is None:
        return fault or sense.INVALID_OPCODE.at(0, in_cdb=True)
    if fields.offset or fields.length > MOST:
        return sense.INVALID_FIELD_IN_CDB.at(3 if fields.offset else 6, in_cdb=True)
    if not request.take(fields.length):
        return GOOD  # the front door says that data are missing
    return GOOD if control.command(request.parameter_list(fields.length)) else sense.INVALID_FIELD_IN_LIST


def read_buffer(request: Request) -> Plan:
    """The rules, and why the last line was refused, as JSON text from BUFFER OFFSET on."""
    fields, control = buffer_cdb(request.cdb), request.manager.guest_control
    fault = _field_fault(fields)
    if fault is not None or control is None:
        return fault or sense.INVALID_OPCODE.at(0, in_cdb=True)
    return cut(control.report()[fields.offset :], fields.length)


def _field_fault(fields: BufferCdb) -> Sense | None:
    if fields.mode != VENDOR_SPECIFIC:
        return sense.INVALID_FIELD_IN_CDB.at(1, in_cdb=True, bit=4)
    return sense.INVALID_FIELD_IN_CDB.at(2, in_cdb=True) if fields.buffer else None


NAMES = frozenset({"WRITE BUFFER", "READ BUFFER"})
"""Commands that exist only where guests may steer faults."""
HANDLERS: dict[str, Handler] = {"WRITE BUFFER": write_buffer, "READ BUFFER": read_buffer}
