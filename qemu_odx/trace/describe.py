"""An exchange and its outcome as a record of a trace, with names instead of numbers.

Imports `tap/exchange`, `wire/` and `payload`. Next: `recorder.py`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from qemu_odx.tap.decision import Delay
from qemu_odx.tap.exchange import Kind
from qemu_odx.trace import payload
from qemu_odx.wire.names import name_of
from qemu_odx.wire.scsi import opcodes
from qemu_odx.wire.scsi.describe import COPY_STATUS, cdb_fields, sense_fields, status_name, token_fields
from qemu_odx.wire.scsi.opcodes import Data
from qemu_odx.wire.scsi.token_lists import TokenInformation
from qemu_odx.wire.virtio.blk import RequestType
from qemu_odx.wire.virtio.blk import Status as BlkStatus
from qemu_odx.wire.virtio.scsi import Response

if TYPE_CHECKING:
    from collections.abc import Hashable

    from qemu_odx.tap.decision import Decision, Hold
    from qemu_odx.tap.exchange import Exchange, Outcome
    from qemu_odx.trace.schema import Record

LIST: Final = 64 << 10
"""Bytes of a parameter list or of parameter data that are looked at."""
_TOKEN_COMMANDS: Final = frozenset({"POPULATE TOKEN", "WRITE USING TOKEN"})


def request(exchange: Exchange, outcome: Outcome, *, data: bool, full: bool) -> Record:
    """A request that has ended, without its time.

    Args:
        exchange: the request.
        outcome: its end.
        data: with data: what went out, and what came in but for blocks, of which there is the hash.
        full: with the blocks that came in too.
    """
    record = _head(exchange)
    if exchange.kind is Kind.REFUSED:
        return record | {"status": "refused"}
    record |= _CONTENT[exchange.kind](exchange)
    if exchange.spans:
        record["spans"] = [list(span) for span in exchange.spans]
    record |= _end(exchange, outcome)
    if outcome.sense:
        record["sense"] = sense_fields(outcome.sense)
    if exchange.decision is not None:
        record["decision"] = decision(exchange.decision)
    if exchange.operation == "RECEIVE ROD TOKEN INFORMATION":
        record |= _copy_told(exchange, outcome)
    if data:
        record |= _data(exchange, outcome, full=full)
    return record


def decision(made: Decision) -> dict[str, Any]:
    """What a tap decided, without what is as usual."""
    record: dict[str, Any] = {"note": made.note} if made.note else {}
    if made.before is not None:
        record["before"] = _hold(made.before)
    if not made.execute:
        record["execute"] = False
    if made.blocks is not None:
        record["blocks"] = made.blocks
    if made.answer is not None:
        record["answer"] = {"status": made.answer.status, "sense": made.answer.sense.hex()}
    if made.after is not None:
        record["after"] = _hold(made.after)
    return record


def _hold(hold: Hold) -> str:
    if isinstance(hold, Delay):
        return f"delay {hold.seconds} s"
    return "never" if hold.outlasts_stop else "stall"


def nexus_name(nexus: Hashable) -> str:
    """How a trace calls an I_T nexus: initiator port and life, if it has these."""
    port, life = getattr(nexus, "port", None), getattr(nexus, "life", None)
    return str(nexus) if port is None else f"{port}#{life}"


def _head(exchange: Exchange) -> Record:
    record: Record = {
        "event": "request",
        "n": exchange.number,
        "turn": exchange.turn,
        "export": exchange.export,
        "kind": exchange.kind.value,
        "name": exchange.operation,
        "taken": exchange.taken,
    }
    if exchange.disk:
        record["disk"] = exchange.disk
    if exchange.started is not None:
        record["started"] = exchange.started
    if exchange.origin is not None:
        queue, head, out, into = exchange.origin
        record |= {"queue": queue, "head": head, "out": list(out), "in": list(into)}
    return record


def _scsi(exchange: Exchange) -> dict[str, Any]:
    in_list = exchange.operation in _TOKEN_COMMANDS
    parameters = payload.join(exchange.data_out, LIST) if in_list else b""
    return {
        "lun": exchange.lun,
        "tag": exchange.tag,
        "nexus": nexus_name(exchange.nexus),
        "cdb": exchange.cdb.hex(),
        "fields": cdb_fields(exchange.cdb, parameters),
        "block_size": exchange.block_size,
    }


def _blk(exchange: Exchange) -> dict[str, Any]:
    return {"code": exchange.code}


def _control(exchange: Exchange) -> dict[str, Any]:
    return {
        "lun": exchange.lun,
        "tag": exchange.tag,
        "nexus": nexus_name(exchange.nexus),
        "code": exchange.code,
    }


_CONTENT: Final = {Kind.SCSI: _scsi, Kind.BLK: _blk, Kind.CONTROL: _control}


def _end(exchange: Exchange, outcome: Outcome) -> dict[str, Any]:
    if exchange.kind is Kind.SCSI:
        name = status_name(outcome.status)
    else:
        name = name_of(BlkStatus if exchange.kind is Kind.BLK else Response, outcome.status)
    record: dict[str, Any] = {
        "status": name,
        "bytes_in": outcome.data_in,
        "bytes_out": outcome.data_out,
    }
    if outcome.aborted:
        record["aborted"] = True
    if not outcome.executed:
        record["executed"] = False
    return record


def _copy_told(exchange: Exchange, outcome: Outcome) -> dict[str, Any]:
    """What RECEIVE ROD TOKEN INFORMATION said."""
    try:
        found = TokenInformation.parse(payload.join(exchange.data_in, min(outcome.data_in, LIST)))
    except ValueError:
        return {}
    status = found.status
    told: dict[str, Any] = {
        "status": COPY_STATUS.get(status.status, f"{status.status:02X}h"),
        "service_action": status.service_action,
        "count": status.count,
    }
    if status.sense:
        told["sense"] = sense_fields(status.sense)
    return {"told": told | (token_fields(found.token) if found.token else {})}


def _data(exchange: Exchange, outcome: Outcome, *, full: bool) -> dict[str, Any]:
    record: dict[str, Any] = {}
    if exchange.data_out:
        record["data_out"] = payload.member(payload.join(exchange.data_out), content=True)
    if outcome.data_in:
        came = payload.join(exchange.data_in, outcome.data_in)
        record["data_in"] = payload.member(came, content=full or not brings_blocks(exchange))
    return record


def brings_blocks(exchange: Exchange) -> bool:
    """True if its data-in are blocks of the disk."""
    if exchange.kind is Kind.BLK:
        return exchange.code == RequestType.IN
    row = opcodes.find(exchange.cdb)
    return row is not None and row.data is Data.IN and row.name.startswith("READ(")
