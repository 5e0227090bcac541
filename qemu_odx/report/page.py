"""The HTML page of a report.

May import: model, charts, text, and jinja2. Next: `write.py`. The page loads nothing: its content security policy
forbids it, and there is no script in it.
"""

from __future__ import annotations

from dataclasses import dataclass

from jinja2 import Environment, PackageLoader, StrictUndefined

import qemu_odx
from qemu_odx.report import charts
from qemu_odx.report.model import Log, Outcome, Report, Way
from qemu_odx.report.text import printable

OUTCOMES: tuple[Outcome, Outcome] = ("passed", "skipped")
LONGEST_LOG = 200_000
"""Characters of a log on the page: its end, where the reasons are."""


@dataclass(frozen=True, slots=True)
class Fact:
    """A number worth a large print: value, what it is, and what it is compared with."""

    value: str
    name: str
    note: str = ""


def html_page(report: Report) -> str:
    """The whole page, text of guests escaped."""
    environment = Environment(
        loader=PackageLoader("qemu_odx.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["duration"] = charts.duration
    environment.filters["rate"] = charts.rate
    lanes, seconds_axis = charts.timeline(report)
    strips, latency_axis = charts.latency(report.ways)
    page = environment.get_template("report.html.j2").render(
        report=report,
        version=qemu_odx.__version__,
        facts=_facts(report),
        lanes=lanes,
        seconds_axis=seconds_axis,
        bars=charts.throughput(report.ways),
        strips=strips,
        latency_axis=latency_axis,
        groups=_groups(report),
        logs=[_shortened(log) for log in report.logs],
        kinds=list(dict.fromkeys(bar.kind for lane in lanes for bar in lane.bars)),
    )
    return printable(page)


def _facts(report: Report) -> list[Fact]:
    passed, skipped = (sum(suite.count(one) for suite in report.suites) for one in OUTCOMES)
    failed = sum(suite.count("failed", "error") for suite in report.suites)
    facts = [Fact(f"{passed} of {passed + failed}", "checks passed", f"{skipped} skipped" if skipped else "")]
    if len(report.ways) > 1:
        facts += _compared(report.ways[0], report.ways[1])
    return [*facts, Fact(charts.duration(report.seconds), "in all")]


def _compared(first: Way, second: Way) -> list[Fact]:
    facts = [Fact(charts.rate(first.rate), first.name, f"{second.name}: {charts.rate(second.rate)}")]
    if first.ring_bytes is not None and second.ring_bytes is not None:
        note = f"{second.name}: {second.ring_bytes:,}"
        facts.append(Fact(f"{first.ring_bytes:,}", f"bytes across the ring {first.name}", note))
    return facts


def _groups(report: Report) -> dict[str, int]:
    """A number for each hash that occurs twice or more: equal data is seen to be equal."""
    seen = [digest.sha256 for digest in report.digests]
    repeated = [sha256 for sha256 in dict.fromkeys(seen) if seen.count(sha256) > 1]
    return {sha256: number for number, sha256 in enumerate(repeated)}


def _shortened(log: Log) -> Log:
    left_out = len(log.text) - LONGEST_LOG
    if left_out <= 0:
        return log
    return Log(log.name, f"({left_out:,} characters left out)\n{log.text[-LONGEST_LOG:]}")
