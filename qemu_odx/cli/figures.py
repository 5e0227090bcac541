"""Numbers of the monitor for people: bytes, rates, durations, and what a histogram says.

Imports `rich` for tables only. Used by the thin clients of the monitor.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.table import Table
from rich.text import Text

from qemu_odx.cli.console import stdout_console

if TYPE_CHECKING:
    from collections.abc import Iterable

_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")
_MICRO = ((1_000_000, "s"), (1_000, "ms"), (1, "µs"))
_PERIODS = ((86400, "d"), (3600, "h"), (60, "min"))


def size(count: float) -> str:
    """Bytes with a unit: 65536 is "64 KiB"."""
    unit = 0
    while abs(count) >= 1024 and unit < len(_UNITS) - 1:
        count /= 1024
        unit += 1
    return f"{count:.0f} {_UNITS[unit]}" if count == int(count) else f"{count:.1f} {_UNITS[unit]}"


def microseconds(value: float) -> str:
    """A latency: 1500 is "1.5 ms"."""
    for least, unit in _MICRO:
        if value >= least:
            return f"{value / least:.3g} {unit}"
    return f"{value:.2g} µs"


def period(seconds: float) -> str:
    """An age: 90 is "1.5 min"."""
    for length, unit in _PERIODS:
        if seconds >= length:
            return f"{seconds / length:.3g} {unit}"
    return f"{seconds:.3g} s"


def mean(histogram: dict[str, Any]) -> float | None:
    """Microseconds on the average, None of nothing."""
    return histogram["microseconds"] / histogram["count"] if histogram["count"] else None


def percentile(histogram: dict[str, Any], share: float) -> int | None:
    """Microseconds below which that share of the durations lies, at the precision of the buckets; None of nothing."""
    wanted, seen = share * histogram["count"], 0
    for bucket in histogram["buckets"]:
        seen += bucket["count"]
        if seen >= wanted:
            below: int = bucket["below"]
            return below
    return None


def latency(value: float | None) -> str:
    """Microseconds that may not be there."""
    return "-" if value is None else microseconds(value)


def merged(histograms: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """Several histograms as one."""
    counts: dict[int, int] = {}
    total = spent = 0
    for histogram in histograms:
        total += histogram["count"]
        spent += histogram["microseconds"]
        for bucket in histogram["buckets"]:
            counts[bucket["below"]] = counts.get(bucket["below"], 0) + bucket["count"]
    buckets = [{"below": below, "count": count} for below, count in sorted(counts.items())]
    return {"count": total, "microseconds": spent, "buckets": buckets}


def since(now: dict[str, Any], before: dict[str, Any] | None) -> dict[str, Any]:
    """What came into a histogram meanwhile."""
    if before is None or before["count"] > now["count"]:  # it was reset
        return now
    old = {bucket["below"]: bucket["count"] for bucket in before["buckets"]}
    buckets = [
        {"below": bucket["below"], "count": bucket["count"] - old.get(bucket["below"], 0)}
        for bucket in now["buckets"]
    ]
    return {
        "count": now["count"] - before["count"],
        "microseconds": now["microseconds"] - before["microseconds"],
        "buckets": [bucket for bucket in buckets if bucket["count"]],
    }


def table(columns: Iterable[str], rows: Iterable[Iterable[object]], title: str | None = None) -> Table:
    """A table; columns whose name begins with ">" are numbers."""
    made = Table(title=title, title_justify="left", header_style="bold")
    for column in columns:
        made.add_column(column.lstrip(">"), justify="right" if column.startswith(">") else "left")
    for row in rows:
        made.add_row(*(Text(str(cell)) for cell in row))
    return made


def show(columns: Iterable[str], rows: Iterable[Iterable[object]], *, nothing: str) -> None:
    """A table on stdout, or a word if it has no rows."""
    there = list(rows)
    stdout_console().print(table(columns, there) if there else nothing)
