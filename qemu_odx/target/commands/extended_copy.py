"""EXTENDED COPY with 8-bit and 32-bit list identifiers, block to block, and its RECEIVE commands (SPC-4).

A CSCD descriptor may only name a logical unit of the same target: whatever this nexus cannot see, it cannot copy.
Next: `target/copying.copy_rod`, from a snapshot of each segment's source, so overlapping segments copy old data.
"""

from __future__ import annotations

import contextlib
import errno
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from qemu_odx.disk.port import Extent
from qemu_odx.target.commands.inquiry import third_party
from qemu_odx.target.commands.token_checks import list_identifier_fault
from qemu_odx.target.copying import CopyResult, copy_rod, make_stable
from qemu_odx.target.plan import GOOD, StartCopy
from qemu_odx.target.port import initiator_port
from qemu_odx.target.request import cut
from qemu_odx.target.reservations import Access
from qemu_odx.tokens.operations import Event, Operation, OperationStatus
from qemu_odx.wire.scsi import copy_lists, sense
from qemu_odx.wire.scsi.copy_lists import CSCD_SIZE, SEGMENT_SIZE, CopyList, ListShape, Segment
from qemu_odx.wire.scsi.fields import u32
from qemu_odx.wire.scsi.sense import Sense, Status

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from qemu_odx.disk.port import Snapshot
    from qemu_odx.target.lun import LogicalUnit
    from qemu_odx.target.plan import Answer, Plan
    from qemu_odx.target.request import Handler, Request
    from qemu_odx.tokens.operations import OperationTable

_BYTES, _KIB = 0x00, 0x01
_HOLD, _RESERVED, _DISCARD, _NONE = 0, 1, 2, 3
"""LIST ID USAGE (SPC-4 6.4)."""
_NAA_DESIGNATOR = 0x03
_UNKNOWN = sense.INVALID_FIELD_IN_CDB.at(2, in_cdb=True)


@dataclass(frozen=True, slots=True)
class _Move:
    """A segment with its disks found: bytes from a source to a destination."""

    source: LogicalUnit
    source_extent: Extent
    destination: LogicalUnit
    destination_extent: Extent


def extended_copy(request: Request) -> Plan:
    """Check the list, find the units, then copy segment by segment."""
    length = u32(request.cdb, 10)
    if length == 0:
        return GOOD
    shape = copy_lists.LID4 if request.operation.service_action == 1 else copy_lists.LID1
    data = request.parameter_list(length)
    if len(data) < shape.header:
        return sense.PARAMETER_LIST_LENGTH_ERROR
    parsed = CopyList.parse(data, shape)
    fault = _list_fault(request, parsed, shape) or list_identifier_fault(request, parsed.list_identifier)
    if fault is not None:
        return fault
    moves = _moves(request, parsed)
    return moves if isinstance(moves, Sense) else _plan(request, parsed, moves)


def _list_fault(request: Request, parsed: CopyList, shape: ListShape) -> Sense | None:
    limits = request.unit.limits
    if parsed.usage == _RESERVED or (parsed.usage == _NONE and parsed.list_identifier):
        return sense.INVALID_FIELD_IN_LIST.at(1)
    if parsed.cscd_length % CSCD_SIZE:
        return sense.INVALID_FIELD_IN_LIST.at(shape.cscd_length)
    too_many_cscds = parsed.cscd_length > limits.max_cscd * CSCD_SIZE
    too_many_segments = parsed.segment_length > limits.max_segments * SEGMENT_SIZE
    if too_many_cscds and too_many_segments:  # above MAXIMUM DESCRIPTOR LIST LENGTH, which is the sum
        return sense.PARAMETER_LIST_LENGTH_ERROR
    if too_many_cscds:
        return sense.TOO_MANY_CSCD_DESCRIPTORS
    if too_many_segments:
        return sense.TOO_MANY_DESCRIPTORS
    if parsed.inline_length:
        return sense.INVALID_FIELD_IN_LIST.at(shape.inline_length)
    if parsed.described > len(parsed.body):
        return sense.PARAMETER_LIST_LENGTH_ERROR
    if any(item[0] != copy_lists.IDENTIFICATION_CSCD for item in parsed.cscds()):
        return sense.UNSUPPORTED_CSCD_TYPE
    segments = parsed.segments()
    if segments is None:
        return sense.UNSUPPORTED_SEGMENT_TYPE
    if any(item.length != SEGMENT_SIZE - 4 for item in segments):
        return sense.INVALID_FIELD_IN_LIST.at(shape.header + parsed.cscd_length + 2)
    return None


def _moves(request: Request, parsed: CopyList) -> list[_Move] | Sense:
    cscds = parsed.cscds()
    moves = []
    for number, segment in enumerate(parsed.segments() or ()):
        move = _move(request, cscds, segment)
        if isinstance(move, Sense):
            # The segment in error stands in bytes 10-11 of fixed sense data.
            return replace(move, command_specific=number)
        moves.append(move)
    return moves


def _move(request: Request, cscds: Sequence[bytes], segment: Segment) -> _Move | Sense:
    source, destination = (_unit(request, cscds, item) for item in (segment.source, segment.destination))
    if source is None or destination is None:
        return sense.UNREACHABLE_COPY_TARGET
    counted = destination if segment.destination_counts else source
    length = segment.blocks * counted.block_size
    first = Extent(segment.source_lba * source.block_size, length)
    second = Extent(segment.destination_lba * destination.block_size, length)
    if first.end > source.disk.size or second.end > destination.disk.size:
        return sense.COPY_TARGET_NOT_REACHABLE
    if length % source.block_size or length % destination.block_size:
        return sense.UNEXPECTED_INEXACT_SEGMENT
    port = initiator_port(request.nexus)
    barred = source.reservations.conflicts(port, Access.READ) or destination.reservations.conflicts(
        port, Access.WRITE
    )
    if barred or source.not_ready() or destination.not_ready() or destination.write_protection():
        return sense.THIRD_PARTY_FAILURE
    return _Move(source, first, destination, second)


def _unit(request: Request, cscds: Sequence[bytes], identifier: int) -> LogicalUnit | None:
    """The logical unit of this target that a CSCD descriptor ID means."""
    if identifier == copy_lists.THIS_UNIT:
        return request.unit
    if identifier >= len(cscds):
        return None
    descriptor = cscds[identifier]
    designator = descriptor[8 : 8 + descriptor[7]]
    if descriptor[5] & 0x0F != _NAA_DESIGNATOR:
        return None
    return next((unit for unit in request.target.units.values() if unit.naa == designator), None)


def _plan(request: Request, parsed: CopyList, moves: list[_Move]) -> StartCopy:
    recovery = request.manager.recovery
    before = recovery.broken_off(request.task)
    operation = Operation(
        request.nexus,
        parsed.list_identifier,
        request.unit.number,
        request.operation.service_action or 0,
        OperationStatus.BACKGROUND if parsed.immediate else OperationStatus.FOREGROUND,
        units=_BYTES,
        keep=parsed.usage != _NONE,
        lid1=request.operation.service_action == 0,
        total=sum(move.destination_extent.length for move in moves),
        disks=frozenset(
            unit.disk.name for move in moves for unit in (request.unit, move.source, move.destination)
        ),
    )

    if before:
        operation.segments, operation.source = before.segments, before.source
    course = _Course(moves, operation, request.manager.operations, recovery.snapshot(request.task))

    def settle(result: object) -> Answer:
        return _settle(operation, len(moves), result)

    return StartCopy(operation, course.run, settle, parsed.immediate)


@dataclass(slots=True)
class _Course:
    """The segments of a copy, one after the other.

    Where one writes what another reads, each is noted with the snapshot that it reads from: if the process is killed,
    the copy goes on from there in another.

    Attributes:
        source: the snapshot that the first segment to come was reading from when it was broken off.
    """

    moves: Sequence[_Move]
    operation: Operation
    operations: OperationTable
    source: Snapshot | None

    def run(self) -> CopyResult:
        """On a worker: every segment in order, stopping at the first that fails. Raises OSError."""
        operation, tangled = self.operation, _tangled(self.moves)
        done = self.moves[: operation.segments]
        whole = CopyResult(sum(move.source_extent.length for move in done))
        for move in self.moves[len(done) :]:
            with self._snapshot(move, noted=tangled) as snapshot:
                part = copy_rod(snapshot, 0, move.destination.disk, [move.destination_extent], operation)
                if not move.destination.mode.write_cache:
                    make_stable(move.destination.disk, part)
                whole.copied += part.copied
                operation.count = whole.copied
                if part.copied < move.destination_extent.length:
                    return replace(part, copied=whole.copied)
                operation.segments += 1
                operation.source = None
                if tangled:
                    self.operations.told(operation)
        return whole

    @contextlib.contextmanager
    def _snapshot(self, move: _Move, *, noted: bool) -> Iterator[Snapshot]:
        """What a segment is to read."""
        snapshot, self.source = self.source, None
        if snapshot is None:
            if self.operation.source:
                raise OSError(errno.EIO, "what the segment was reading from is gone")
            snapshot = move.source.disk.snapshot([move.source_extent])
        try:
            if noted and (number := snapshot.outlive()) is not None:
                self.operation.source = move.source.disk.name, number
                self.operations.told(self.operation)
            yield snapshot
        finally:
            snapshot.release()


def _tangled(moves: Sequence[_Move]) -> bool:
    """Whether a segment writes what one of them reads."""
    return any(
        one.destination.disk is other.source.disk
        and one.destination_extent.offset < other.source_extent.end
        and other.source_extent.offset < one.destination_extent.end
        for one in moves
        for other in moves
    )


def _settle(operation: Operation, segments: int, result: object) -> Answer:
    if isinstance(result, CopyResult) and result.aborted:
        operation.end(Event.ABORT, completion=Status.TASK_ABORTED)
        return sense.COPY_CLEARED
    if isinstance(result, CopyResult) and operation.segments == segments:
        operation.end(Event.COMPLETE)
        return GOOD
    fault = replace(sense.THIRD_PARTY_FAILURE, command_specific=operation.segments)
    operation.end(Event.FAIL, fault, Status.CHECK_CONDITION)
    return fault


def operating_parameters(request: Request) -> Plan:
    """RECEIVE COPY OPERATING PARAMETERS."""
    page = third_party(request)
    data = copy_lists.operating_parameters(
        page.max_cscd, page.max_segments, page.max_list_length, page.max_copies
    )
    return cut(data, u32(request.cdb, 10))


def _lid1_operation(request: Request) -> Operation | None:
    found = request.manager.operations.find(request.nexus, request.cdb[2])
    return found if found is not None and found.lid1 else None


def status_lid1(request: Request) -> Plan:
    """RECEIVE COPY STATUS(LID1): a finished copy is forgotten once told."""
    operation = _lid1_operation(request)
    if operation is None:
        return _UNKNOWN
    status = 0 if operation.running else 1 if operation.status == OperationStatus.DONE else 2
    units, count = _BYTES, operation.count
    if count > 0xFFFFFFFF:
        units, count = _KIB, count >> 10
    data = copy_lists.status_lid1(status, operation.segments, units, count)
    if operation.status == OperationStatus.DONE:
        request.manager.operations.drop(operation)
    return cut(data, u32(request.cdb, 10))


def failure_details(request: Request) -> Plan:
    """RECEIVE COPY FAILURE DETAILS(LID1): only of a copy that failed; forgotten once told."""
    operation = _lid1_operation(request)
    if operation is None or operation.status != OperationStatus.ERROR or operation.sense is None:
        return _UNKNOWN
    request.manager.operations.drop(operation)
    data = copy_lists.failure_details(operation.completion, operation.sense.fixed())
    return cut(data, u32(request.cdb, 10))


HANDLERS: dict[str, Handler] = {
    "EXTENDED COPY(LID1)": extended_copy,
    "EXTENDED COPY(LID4)": extended_copy,
    "RECEIVE COPY OPERATING PARAMETERS": operating_parameters,
    "RECEIVE COPY STATUS(LID1)": status_lid1,
    "RECEIVE COPY FAILURE DETAILS(LID1)": failure_details,
}
