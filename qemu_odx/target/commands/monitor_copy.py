"""Commands that look after copies: their status, their tokens, their end (SPC-4 6.3, 6.24, 6.26)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qemu_odx.target.plan import GOOD, WaitFor
from qemu_odx.target.request import cut
from qemu_odx.tokens.operations import OperationStatus
from qemu_odx.wire.scsi import sense
from qemu_odx.wire.scsi.fields import u32

if TYPE_CHECKING:
    from qemu_odx.target.plan import Plan
    from qemu_odx.target.request import Handler, Request

_UNKNOWN = sense.INVALID_FIELD_IN_CDB.at(2, in_cdb=True)
"""No such list identifier: it stands at byte 2 of these CDBs."""
_RETURNS_TOKEN = {OperationStatus.DONE, OperationStatus.PARTIAL}


def receive_token_information(request: Request) -> Plan:
    """RECEIVE ROD TOKEN INFORMATION. Kept for another try after it was sent: a lost answer loses no token."""
    identifier, allocation = u32(request.cdb, 2), u32(request.cdb, 10)
    operation = request.manager.operations.find(request.nexus, identifier)
    if operation is None:
        return _UNKNOWN
    if allocation == 0:
        request.manager.operations.drop(operation)
        return GOOD
    request.manager.operations.told(operation)
    token = operation.token if operation.status in _RETURNS_TOKEN else None
    return cut(operation.report().with_token(token), allocation)


def receive_status(request: Request) -> Plan:
    """RECEIVE COPY STATUS(LID4): never uses up the token."""
    operation = request.manager.operations.find(request.nexus, u32(request.cdb, 2))
    if operation is None:
        return _UNKNOWN
    request.manager.operations.told(operation)
    return cut(operation.report().packed(), u32(request.cdb, 10))


def abort(request: Request) -> Plan:
    """COPY OPERATION ABORT: answers once the copy has stopped."""
    operation = request.manager.operations.active(request.nexus, u32(request.cdb, 2))
    if operation is None:
        return _UNKNOWN
    request.manager.operations.stop(operation, request.task.stamp)
    return WaitFor(operation)


def report_all_tokens(request: Request) -> Plan:
    """REPORT ALL ROD TOKENS: bytes 0-95 of each of the group's, no secret."""
    tokens = b"".join(request.manager.tokens.management_tokens(request.target.group))
    data = (len(tokens) + 4).to_bytes(4, "big") + bytes(4) + tokens
    return cut(data, u32(request.cdb, 10))


HANDLERS: dict[str, Handler] = {
    "RECEIVE ROD TOKEN INFORMATION": receive_token_information,
    "RECEIVE COPY STATUS(LID4)": receive_status,
    "COPY OPERATION ABORT": abort,
    "REPORT ALL ROD TOKENS": report_all_tokens,
}
