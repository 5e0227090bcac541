"""Commands about the unit itself: TEST UNIT READY, REQUEST SENSE, START STOP UNIT, medium removal (SPC-4, SBC-3)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qemu_odx.target.plan import GOOD, Data, OnDisk
from qemu_odx.wire.scsi import sense
from qemu_odx.wire.scsi.sense import Key, Sense

if TYPE_CHECKING:
    from qemu_odx.disk.port import Disk
    from qemu_odx.target.plan import Answer, Plan
    from qemu_odx.target.request import Handler, Request


def test_unit_ready(request: Request) -> Plan:
    """Ready unless stopped."""
    return request.unit.not_ready() or GOOD


def request_sense(request: Request) -> Plan:
    """A pending unit attention, else NO SENSE, as data. Descriptor format (DESC) is refused."""
    if request.cdb[1] & 1:
        return sense.INVALID_FIELD_IN_CDB.at(1, in_cdb=True, bit=0)
    pending = request.unit.attention(request.nexus) or Sense(Key.NO_SENSE, 0, 0)
    return Data(pending.fixed()[: request.cdb[4]])


def start_stop(request: Request) -> Plan:
    """START STOP UNIT: START or stop; power conditions and ejection are refused. Stopping flushes the cache."""
    flags = request.cdb[4]
    if flags >> 4:
        return sense.INVALID_FIELD_IN_CDB.at(4, in_cdb=True, bit=7)
    if flags & 0x02:  # LOEJ: the medium is not removable
        return sense.INVALID_FIELD_IN_CDB.at(4, in_cdb=True, bit=1)
    request.unit.stopped = not flags & 0x01
    if not request.unit.stopped or flags & 0x04:  # NO_FLUSH
        return GOOD

    def flush(disk: Disk) -> Answer:
        disk.flush()
        return GOOD

    return OnDisk(flush, writes=True)


def prevent_allow(request: Request) -> Plan:
    """PREVENT ALLOW MEDIUM REMOVAL: remembered; the medium is fixed anyway."""
    prevent = request.cdb[4] & 0x03
    if prevent > 1:
        return sense.INVALID_FIELD_IN_CDB.at(4, in_cdb=True, bit=1)
    if prevent:
        request.unit.prevented.add(request.nexus)
    else:
        request.unit.prevented.discard(request.nexus)
    return GOOD


HANDLERS: dict[str, Handler] = {
    "TEST UNIT READY": test_unit_ready,
    "REQUEST SENSE": request_sense,
    "START STOP UNIT": start_stop,
    "PREVENT ALLOW MEDIUM REMOVAL": prevent_allow,
}
