"""POPULATE TOKEN (SBC-5 5.12): freeze some ranges and make a token for them.

Next: `disk/port.Disk.snapshot` on a worker, then `tokens/registry.mint`.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from qemu_odx.target.commands.token_checks import (
    first_extents,
    list_identifier_fault,
    range_fault,
    total,
    underrun,
)
from qemu_odx.target.plan import GOOD, StartCopy
from qemu_odx.tokens.operations import Event, Operation, OperationStatus
from qemu_odx.tokens.registry import real_type
from qemu_odx.wire.scsi import sense
from qemu_odx.wire.scsi.fields import u32
from qemu_odx.wire.scsi.inquiry import naa_designator
from qemu_odx.wire.scsi.rod_token import RodType, TokenHeader, identification_cscd
from qemu_odx.wire.scsi.sense import Status
from qemu_odx.wire.scsi.token_lists import POPULATE_HEADER, RANGE_SIZE, PopulateToken

if TYPE_CHECKING:
    from qemu_odx.disk.port import Snapshot
    from qemu_odx.target.lun import LogicalUnit
    from qemu_odx.target.plan import Answer, Plan
    from qemu_odx.target.request import Handler, Request
    from qemu_odx.wire.scsi.sense import Sense

SERVICE_ACTION = 0x10
_MIN_DATA_LENGTH = 0x1E
"""Header and one descriptor, less 2 (SBC-5 5.12)."""
_LBPME_LBPRZ = 0xC0
"""Token byte 102; its other bits and byte 103 are the lowest aligned LBA, 0 (SBC-5 4.28.3)."""


def populate_token(request: Request) -> Plan:
    """Check in the standard's order, then freeze and mint."""
    length = u32(request.cdb, 10)
    if length == 0:
        return GOOD
    data = request.parameter_list(length)
    if len(data) < POPULATE_HEADER:
        return sense.PARAMETER_LIST_LENGTH_ERROR
    identifier = u32(request.cdb, 6)
    parsed = PopulateToken.parse(data)
    fault = (
        list_identifier_fault(request, identifier)
        or _field_fault(parsed, request.unit)
        or range_fault(parsed.ranges, POPULATE_HEADER, request.unit)
        or request.unit.not_ready()
    )
    if fault is not None:
        return fault
    return _plan(request, parsed, identifier)


def _field_fault(parsed: PopulateToken, unit: LogicalUnit) -> Sense | None:
    if parsed.data_length < _MIN_DATA_LENGTH:
        # A list without descriptors has two wrong length fields: point at neither.
        fault = sense.INVALID_FIELD_IN_LIST
        return fault.at(0) if parsed.descriptor_length >= RANGE_SIZE else fault
    if parsed.inactivity_timeout > unit.limits.max_inactivity_timeout:
        return sense.INVALID_FIELD_IN_LIST.at(4)
    if real_type(parsed.rod_type) is None:
        return sense.INVALID_FIELD_IN_LIST.at(8)
    if parsed.descriptor_length < RANGE_SIZE:
        return sense.INVALID_FIELD_IN_LIST.at(14)
    return None


def _plan(request: Request, parsed: PopulateToken, identifier: int) -> Plan:
    unit, manager = request.unit, request.manager
    if not manager.tokens.room(request.nexus, total(parsed.ranges) * unit.block_size):
        return manager.no_token_resources()
    if manager.too_busy(request.nexus):
        return sense.INSUFFICIENT_RESOURCES
    size = unit.block_size
    extents = first_extents(parsed.ranges, request.task.limit, size)
    status = OperationStatus.BACKGROUND if parsed.immediate else OperationStatus.FOREGROUND
    operation = Operation(request.nexus, identifier, unit.number, SERVICE_ACTION, status)
    operation.disks = frozenset({unit.disk.name})

    def settle(result: object) -> Answer:
        return _settle(request, parsed, operation, result)

    def work() -> Snapshot:
        snapshot = unit.disk.snapshot(extents)
        snapshot.outlive()  # here, where it may take its time, and before there is a token for it
        return snapshot

    return StartCopy(operation, work, settle, parsed.immediate)


def _settle(request: Request, parsed: PopulateToken, operation: Operation, result: object) -> Answer:
    """On the event loop: the snapshot is there, or could not be made."""
    if isinstance(result, BaseException):
        fault = _snapshot_fault(request, result)
        operation.end(Event.FAIL, fault, Status.CHECK_CONDITION)
        return fault
    snapshot: Snapshot = result  # type: ignore[assignment]  # what Disk.snapshot returned
    if operation.abort:
        snapshot.release()
        operation.end(Event.ABORT, completion=Status.TASK_ABORTED)
        return sense.COPY_CLEARED
    operation.count = snapshot.length // request.unit.block_size
    if operation.count == total(parsed.ranges):
        operation.token = _mint(request, parsed, snapshot)
        operation.end(Event.COMPLETE)
        return GOOD
    return _cut_short(request, parsed, operation, snapshot)


def _cut_short(request: Request, parsed: PopulateToken, operation: Operation, snapshot: Snapshot) -> Sense:
    """The token stands for the first blocks alone; without any there is none (SBC-5 4.28.2)."""
    fault = underrun(operation.count)
    if operation.count:
        operation.token = _mint(request, parsed, snapshot)
        operation.end(Event.CUT_SHORT, fault, Status.CHECK_CONDITION)
    else:
        snapshot.release()
        operation.end(Event.FAIL, fault, Status.CHECK_CONDITION)
    return fault


def _snapshot_fault(request: Request, error: BaseException) -> Sense:
    if isinstance(error, OSError) and error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EMFILE}:
        return request.manager.no_token_resources()
    return sense.READ_ERROR if isinstance(error, OSError) else sense.INTERNAL_FAILURE


def _mint(request: Request, parsed: PopulateToken, snapshot: Snapshot) -> bytes:
    unit, tokens, limits = request.unit, request.manager.tokens, request.unit.limits
    header = TokenHeader(
        rod_type=real_type(parsed.rod_type) or RodType.POINT_IN_TIME_DEFAULT,
        identifier=tokens.next_identifier(),
        creator=identification_cscd(unit.naa, unit.block_size),
        length=snapshot.length,
        block_size=unit.block_size,
        provisioning=bytes((unit.physical_exponent, _LBPME_LBPRZ, 0)),
        target=naa_designator(unit.naa, association=2),
    )
    token = tokens.mint(
        header,
        snapshot,
        creator=unit.disk.name,
        owner=request.nexus,
        inactivity_timeout=parsed.inactivity_timeout or limits.default_inactivity_timeout,
        lifetime=limits.max_lifetime,
        group=request.target.group,
    )
    return token.data


HANDLERS: dict[str, Handler] = {"POPULATE TOKEN": populate_token}
