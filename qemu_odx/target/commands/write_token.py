"""WRITE USING TOKEN (SBC-5 5.59): write what a token stands for into some ranges.

Next: `target/copying.copy_rod` on a worker. No block moves before the token has passed.
"""

from __future__ import annotations

import errno
from dataclasses import dataclass
from typing import TYPE_CHECKING

from qemu_odx.target.commands.token_checks import (
    first_extents,
    list_identifier_fault,
    range_fault,
    total,
    underrun,
)
from qemu_odx.target.copying import CopyResult, copy_rod, make_stable
from qemu_odx.target.plan import GOOD, StartCopy
from qemu_odx.target.policy import OverAsk, RefusedWrite
from qemu_odx.tokens.operations import Event, Operation, OperationStatus
from qemu_odx.tokens.token import Fault, Token
from qemu_odx.wire.scsi import rod_token, sense
from qemu_odx.wire.scsi.fields import u32
from qemu_odx.wire.scsi.sense import Key, Sense, Status
from qemu_odx.wire.scsi.token_lists import RANGE_SIZE, WRITE_HEADER, WriteUsingToken

if TYPE_CHECKING:
    from qemu_odx.disk.port import Snapshot
    from qemu_odx.target.plan import Answer, Plan
    from qemu_odx.target.request import Handler, Request

SERVICE_ACTION = 0x11
_MIN_DATA_LENGTH = 0x226
"""Header and one descriptor, less 2 (SBC-5 5.59)."""
_BEFORE_DESCRIPTORS = 534
"""DATA LENGTH is the length of the descriptors plus this (SBC-5 5.59)."""


@dataclass(frozen=True, slots=True)
class _Write:
    """A WRITE USING TOKEN that has passed every check."""

    request: Request
    parsed: WriteUsingToken
    operation: Operation
    token: Token[Snapshot] | None  # None: the zero token
    asked: int  # blocks
    granted: int  # blocks, less than asked when the ROD is too short


def write_using_token(request: Request) -> Plan:
    """Check in the standard's order, then copy."""
    length = u32(request.cdb, 10)
    if length == 0:
        return GOOD
    data = request.parameter_list(length)
    if len(data) < WRITE_HEADER:
        return sense.PARAMETER_LIST_LENGTH_ERROR
    identifier = u32(request.cdb, 6)
    duplicate = list_identifier_fault(request, identifier)
    if duplicate is not None:
        return duplicate
    parsed = WriteUsingToken.parse(data)
    planned = _checked(request, parsed, identifier)
    if isinstance(planned, Sense):
        return _refuse(request, identifier, planned)
    return _plan(planned)


def _checked(request: Request, parsed: WriteUsingToken, identifier: int) -> _Write | Sense:
    """Fields, ranges, access, token, offset: in this order, so that least is given away."""
    unit = request.unit
    fault = _field_fault(parsed) or range_fault(parsed.ranges, WRITE_HEADER, unit)
    fault = fault or unit.not_ready() or unit.write_protection()
    if fault is not None:
        return fault
    token = _resolve(request, parsed.token)
    if isinstance(token, Fault):
        return Sense(Key.ILLEGAL_REQUEST, 0x23, token.value)
    asked = total(parsed.ranges)
    granted = asked if token is None else min(asked, _available(token, parsed.offset, unit.block_size))
    if granted < 0:
        return sense.INVALID_FIELD_IN_LIST.at(8)
    if granted < asked and not parsed.immediate and request.manager.policy.over_ask is OverAsk.REFUSE:
        return underrun(0)
    if request.task.limit is not None:
        granted = min(granted, request.task.limit)
    if request.manager.too_busy(request.nexus):
        return sense.INSUFFICIENT_RESOURCES
    status = OperationStatus.BACKGROUND if parsed.immediate else OperationStatus.FOREGROUND
    operation = Operation(request.nexus, identifier, unit.number, SERVICE_ACTION, status)
    operation.total = granted * unit.block_size
    operation.disks = frozenset({unit.disk.name} if token is None else {unit.disk.name, token.creator})
    operation.uses = None if token is None else token.identifier
    before = request.manager.recovery.broken_off(request.task)
    operation.count = before.count if before else 0
    return _Write(request, parsed, operation, token, asked, granted)


def _field_fault(parsed: WriteUsingToken) -> Sense | None:
    if parsed.data_length < _MIN_DATA_LENGTH:
        return sense.INVALID_FIELD_IN_LIST.at(0)
    if parsed.descriptor_length < RANGE_SIZE:
        return sense.INVALID_FIELD_IN_LIST.at(534)
    if parsed.data_length != parsed.descriptor_length + _BEFORE_DESCRIPTORS:
        return sense.INVALID_FIELD_IN_LIST.at(0)
    return None


def _resolve(request: Request, data: bytes) -> Token[Snapshot] | Fault | None:
    """The token, why there is none, or None for the well-known zero token."""
    if rod_token.is_zero_token(data):
        return None
    begun = request.manager.recovery.broken_off(request.task) is not None
    found = request.manager.tokens.resolve(data, request.target.group, begun=begun)
    if isinstance(found, Token) and found.payload.lost:
        request.manager.tokens.kill(found, Fault.CANCELLED)
        return Fault.CANCELLED
    return found


def _available(token: Token[Snapshot], offset: int, block_size: int) -> int:
    """Destination blocks from OFFSET INTO ROD to the end of the ROD, the last perhaps partial; -1 past it."""
    start = offset * block_size
    if start >= token.length and (offset or token.length):
        return -1
    return -((start - token.length) // block_size)


def _refuse(request: Request, identifier: int, fault: Sense) -> Sense:
    """A refused write moves nothing; by policy its list identifier still tells why (see `RefusedWrite`)."""
    if request.manager.policy.refused_write is RefusedWrite.KEEP:
        status = OperationStatus.FOREGROUND
        operation = Operation(request.nexus, identifier, request.unit.number, SERVICE_ACTION, status)
        operation.end(Event.FAIL, fault, Status.CHECK_CONDITION)
        request.manager.operations.begin(operation)
        request.manager.operations.finished(operation)
    return fault


def _plan(write: _Write) -> StartCopy:
    size = write.request.unit.block_size
    tokens = write.request.manager.tokens
    source = write.token.payload if write.token else None
    if write.token is not None:
        tokens.hold(write.token)
    extents = first_extents(write.parsed.ranges, write.granted, size)
    unit, start = write.request.unit, write.operation.count * size

    def work() -> CopyResult:
        offset = write.parsed.offset * size
        result = copy_rod(source, offset, unit.disk, extents, write.operation, start=start)
        if not unit.mode.write_cache:
            make_stable(unit.disk, result)
        return result

    return StartCopy(write.operation, work, lambda result: _settle(write, result), write.parsed.immediate)


def _settle(write: _Write, result: object) -> Answer:
    """On the event loop: the copy has ended, one way or another."""
    tokens, operation = write.request.manager.tokens, write.operation
    if write.token is not None:
        if isinstance(result, CopyResult) and result.lost:
            tokens.kill(write.token, Fault.CANCELLED)
        elif write.parsed.delete_token:
            tokens.kill(write.token, Fault.DELETED)
        tokens.let_go(write.token)
    if not isinstance(result, CopyResult):
        operation.end(Event.FAIL, sense.INTERNAL_FAILURE, Status.CHECK_CONDITION)
        return sense.INTERNAL_FAILURE
    operation.count = result.copied // write.request.unit.block_size
    return _outcome(write, result)


def _outcome(write: _Write, result: CopyResult) -> Answer:
    """Status of the operation and answer of the command (SBC-5 4.28.2)."""
    operation = write.operation
    if result.aborted:
        operation.end(Event.ABORT, completion=Status.TASK_ABORTED)
        return sense.COPY_CLEARED
    if result.lost:
        fault = Sense(Key.ILLEGAL_REQUEST, 0x23, Fault.CANCELLED.value)
        operation.end(Event.FAIL, fault, Status.CHECK_CONDITION)
        return fault
    if result.error:
        return _host_failed(operation, result.error)
    if operation.count < write.asked:
        fault = underrun(operation.count)
        operation.end(Event.CUT_SHORT, fault, Status.CHECK_CONDITION)
        return fault
    operation.end(Event.COMPLETE)
    return GOOD


def _host_failed(operation: Operation, error: int) -> Sense:
    """The host could not write all: what was written is a prefix, so tell how long it is."""
    if operation.count:
        fault = underrun(operation.count)
        operation.end(Event.CUT_SHORT, fault, Status.CHECK_CONDITION)
        return fault
    # 27/07 would make Windows take the disk offline; 55/03 makes it copy the ordinary way.
    full = error in {errno.ENOSPC, errno.EDQUOT}
    fault = sense.INSUFFICIENT_RESOURCES if full else sense.WRITE_ERROR
    operation.end(Event.FAIL, fault, Status.CHECK_CONDITION)
    return fault


HANDLERS: dict[str, Handler] = {"WRITE USING TOKEN": write_using_token}
