"""What a trace comes to: how many requests of which operation, how long they took, how tokens lived.

Imports `schema` and the readers beside it.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from qemu_odx.trace.schema import DROPPED, is_error
from qemu_odx.trace.timeline import Tokens

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from qemu_odx.trace.schema import Record

PERCENTS: Final = (50, 90, 99, 100)


def percentile(ordered: Sequence[float], percent: float) -> float:
    """The smallest of some ascending values that at least so many percent of them do not exceed."""
    place = -(-len(ordered) * percent // 100) - 1
    return ordered[max(0, int(place))]


@dataclass(slots=True)
class OperationStats:
    """The requests of one operation at one export; times in seconds."""

    count: int = 0
    errors: int = 0
    bytes: int = 0
    queued: list[float] = field(default_factory=list)
    served: list[float] = field(default_factory=list)

    def add(self, record: Record) -> None:
        """One more."""
        self.count += 1
        self.errors += is_error(record)
        self.bytes += record.get("bytes_in", 0) + min(
            record.get("bytes_out", 0), sum(record.get("out", (0,)))
        )
        if "started" in record and record["status"] != "open":
            self.queued.append(record["started"] - record["taken"])
            self.served.append(record["mono"] - record["started"])

    def summary(self) -> dict[str, Any]:
        """For JSON: counts, and percentiles in microseconds."""
        return {
            "count": self.count,
            "errors": self.errors,
            "bytes": self.bytes,
            "queued_us": _percentiles(self.queued),
            "served_us": _percentiles(self.served),
        }


def _percentiles(seconds: list[float]) -> dict[str, float]:
    ordered = sorted(seconds)
    return {f"p{p}": round(percentile(ordered, p) * 1e6, 1) for p in PERCENTS} if ordered else {}


def statistics(records: Iterable[Record]) -> dict[str, Any]:
    """Counts by event, requests by export and operation, tokens, errors by their sense, what is missing."""
    events: Counter[str] = Counter()
    faults: Counter[str] = Counter()
    senses: Counter[str] = Counter()
    operations: dict[tuple[str, str], OperationStats] = {}
    tokens = Tokens()
    missing, first, last = 0, None, 0.0
    for record in records:
        events[record["event"]] += 1
        first = record.get("mono", 0.0) if first is None else first
        last = max(last, record.get("mono", 0.0))
        tokens.add(record)
        if record["event"] == "request":
            operations.setdefault((record["export"], record["name"]), OperationStats()).add(record)
            if record.get("sense"):
                senses[
                    f"{record['sense']['key']} {record['sense']['code']} {record['sense']['text']}".rstrip()
                ] += 1
        elif record["event"] == "fault":
            faults[record["rule"]] += 1
        elif record["event"] == DROPPED:
            missing += record["count"]
    return {
        "seconds": round(last - (first or 0.0), 6),
        "missing": missing,
        "events": dict(events),
        "operations": [
            {"export": export, "name": name, **found.summary()}
            for (export, name), found in sorted(operations.items())
        ],
        "sense": dict(senses.most_common()),
        "faults": dict(faults.most_common()),
        "tokens": tokens.lives(first or 0.0),
    }
