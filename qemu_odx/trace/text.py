"""Records as lines for people.

Imports `schema` and the readers beside it. One line a record; times are seconds since the head of the trace.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from qemu_odx.trace.schema import DROPPED, HEAD, TAIL

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from qemu_odx.trace.schema import Record

_HIDDEN: Final = frozenset({"event", "mono", "wall", "direction", "name", "number", "size", "fds", "export"})
_SPANS: Final = 4
"""Ranges of a command that are shown."""


def lines(records: Iterable[Record]) -> Iterator[str]:
    """Each record as a line."""
    start = 0.0
    for record in records:
        if record["event"] == HEAD:
            start = record.get("mono", 0.0)
        yield f"{record.get('mono', start) - start:12.6f}  {line(record)}"


def line(record: Record) -> str:
    """A record without its time."""
    return _WRITERS.get(record["event"], _other)(record)


def _head(record: Record) -> str:
    began = datetime.fromtimestamp(record.get("wall", 0), UTC).isoformat(sep=" ", timespec="milliseconds")
    exports = ", ".join(f"{item['id']} ({item['type']})" for item in record.get("exports", ()))
    return f"trace of {began}, data={record.get('data', 'off')}: {exports}".rstrip(": ")


def _tail(record: Record) -> str:
    return f"end: {record.get('records', 0)} records, {record.get('dropped', 0)} dropped"


def _dropped(record: Record) -> str:
    return f"*** {record['count']} records are missing here: they came faster than they could be written"


def _message(record: Record) -> str:
    arrow = "<-" if record["direction"] == "out" else "->"
    fds = f" +{record['fds']} fd" if record.get("fds") else ""
    rest = " ".join(f"{key}={_value(value)}" for key, value in record.items() if key not in _HIDDEN)
    return f"{record.get('export', '')} {arrow} {record['name']}{fds} {rest}".rstrip()


def _request(record: Record) -> str:
    where = f"{record['export']}"
    if "queue" in record:
        where += f" q{record['queue']}"
    if "lun" in record:
        where += f" lun{record['lun']}"
    parts = [where, record["name"], *_blocks(record), *_fields(record), "->", _result(record)]
    if "decision" in record:
        parts.append(f"[decided: {_value(record['decision'])}]")
    if "started" in record:
        parts.append(
            f"({_micros(record, 'taken', 'started')} queued, {_micros(record, 'started', 'mono')} served)"
        )
    return " ".join(parts)


def _blocks(record: Record) -> list[str]:
    spans = record.get("spans", ())
    shown = [f"{lba}+{blocks}" for lba, blocks in spans[:_SPANS]]
    return [*shown, f"and {len(spans) - _SPANS} more"] if len(spans) > _SPANS else shown


def _fields(record: Record) -> list[str]:
    hidden = {"lba", "blocks"} if record.get("spans") else set()
    return [f"{key}={_value(value)}" for key, value in record.get("fields", {}).items() if key not in hidden]


def _result(record: Record) -> str:
    text = str(record["status"])
    if record.get("aborted"):
        text = "aborted"
    if record.get("executed") is False:
        text += ", not executed"
    if record.get("sense"):
        text += f": {_sense(record['sense'])}"
    told = record.get("told")
    if told:
        text += f", told: copy {told['status']}, count {told['count']}"
        text += f", token {told['token']}" if "token" in told else ""
        text += f", {_sense(told['sense'])}" if told.get("sense") else ""
    return text


def _sense(sense: dict[str, Any]) -> str:
    text = f"{sense['key']} {sense['code']} {sense['text']}".rstrip()
    text += f", information {sense['information']}" if "information" in sense else ""
    return text + (f", {sense['field']}" if "field" in sense else "")


def _micros(record: Record, first: str, last: str) -> str:
    return f"{(record[last] - record[first]) * 1e6:.0f} µs"


def _fault(record: Record) -> str:
    number = f" #{record['n']}" if "n" in record else ""
    where = " ".join(str(record[key]) for key in ("export", "disk") if key in record)
    hit = f" on {where}{number} {record['name']}" if "name" in record else ""
    return f"*** fault {record['rule']}: {record['action']}{hit}"


def _token(record: Record) -> str:
    if record["what"] == "minted":
        return f"token {record['token']} minted from {record['disk']}: {record['bytes']} bytes, {record['rod_type']}"
    reason = f" ({record['reason']})" if "reason" in record else ""
    return f"token {record['token']} of {record['disk']} {record.get('cause', 'ended')}{reason}"


def _copy(record: Record) -> str:
    state = f"{record['status']}, count {record['count']}"
    name = f"{record['name']} list {record['list_identifier']} on lun{record['lun']}"
    return f"copy {record['what']}: {name}: {state}"


def _ioctl(record: Record) -> str:
    rest = " ".join(f"{key}={_value(value)}" for key, value in record.get("fields", {}).items())
    return f"windows {record['name']} {rest} -> {record['status']}"


def _other(record: Record) -> str:
    rest = " ".join(
        f"{key}={_value(value)}" for key, value in record.items() if key not in {"event", "mono", "wall"}
    )
    return f"{record['event']} {rest}"


def _value(value: object) -> str:
    if isinstance(value, dict) and "sha256" in value:
        return f"{value['length']} bytes, sha256 {value['sha256'][:12]}…"
    if isinstance(value, dict):
        return "{" + " ".join(f"{key}={_value(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(_value, value)) + "]"
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)


_WRITERS: Final[dict[str, Callable[[Record], str]]] = {
    HEAD: _head,
    TAIL: _tail,
    DROPPED: _dropped,
    "message": _message,
    "request": _request,
    "fault": _fault,
    "token": _token,
    "copy": _copy,
    "ioctl": _ioctl,
}
