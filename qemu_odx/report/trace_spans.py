"""The records of a trace as stretches of a timeline: which token lived when, and which commands came.

Imports nothing of ours but the model: a record is a dictionary as `qemu_odx.trace.schema` describes it. Whoever may
import that package reads the file.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qemu_odx.report.model import Span

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    Record = dict[str, Any]

WELL = frozenset({"GOOD", "OK", "CONDITION MET", "FUNCTION SUCCEEDED", "FUNCTION COMPLETE"})
TOKEN_COMMANDS = ("POPULATE TOKEN", "WRITE USING TOKEN", "RECEIVE ROD TOKEN", "COPY OPERATION ABORT")
WRITES = ("WRITE", "OUT", "FLUSH", "DISCARD", "UNMAP", "COMPARE", "ORWRITE", "SYNCHRONIZE")
READS = ("READ(", "PRE-FETCH", "VERIFY")
BLK_READ = "IN"  # virtio 1.2, 5.2.6: VIRTIO_BLK_T_IN


def trace_spans(records: Iterable[Record], started: float) -> tuple[Span, ...]:
    """The spans of a trace.

    Args:
        records: the whole trace, the head first.
        started: when the run began, by the clock on the wall (seconds since 1970).
    """
    every = iter(records)
    head = next(every, None)
    if head is None:
        return ()
    zero = head["mono"] - head["wall"] + started
    return tuple(_spans(every, zero))


def _spans(records: Iterable[Record], zero: float) -> Iterator[Span]:
    born: dict[str, Record] = {}
    last = zero
    for record in records:
        last = max(last, record.get("mono", last))
        event = record["event"]
        if event == "request" and "taken" in record and record["kind"] != "refused":
            yield _request(record, zero)
        elif event == "fault":
            yield Span(
                "faults", f"{record['action']}", record["mono"] - zero, 0.0, "fault", str(record["rule"])
            )
        elif event == "token" and record["what"] == "minted":
            born[record["token"]] = record
        elif event == "token" and record["token"] in born:
            yield _token(born.pop(record["token"]), record["mono"], record.get("cause", ""), zero)
    for record in born.values():
        yield _token(record, last, "alive at the end", zero)


def _request(record: Record, zero: float) -> Span:
    start = record["taken"] - zero
    unit = f" lun {record['lun']}" if "lun" in record else ""
    lane = f"{record['export']}{unit}: {_sort(record['name'])}"
    status = str(record["status"])
    failed = status not in WELL
    detail = status if failed else f"{record.get('bytes_in', 0) + record.get('bytes_out', 0):,} bytes"
    return Span(
        lane, record["name"], start, record["mono"] - record["taken"], "command", detail, failed=failed
    )


def _sort(name: str) -> str:
    if name.startswith(TOKEN_COMMANDS):
        return name
    if name.startswith(WRITES):
        return "writes"
    return "reads" if name == BLK_READ or name.startswith(READS) else "other commands"


def _token(record: Record, ended: float, cause: str, zero: float) -> Span:
    size = f"{record['bytes'] / (1 << 20):g} MiB of {record['disk']}"
    name = f"token {record['token'][:8]}"
    return Span(name, name, record["mono"] - zero, ended - record["mono"], "token", f"{size}, {cause}")
