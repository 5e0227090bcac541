"""The three files of a report: what is in them, and that nothing a guest wrote can break them."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest
from junitparser import JUnitXml
from sample_report import MIB, sample_report

from qemu_odx.report import charts
from qemu_odx.report.junit import junit_xml
from qemu_odx.report.model import Case, Report, Span, Suite, Way
from qemu_odx.report.page import html_page
from qemu_odx.report.write import write_report

if TYPE_CHECKING:
    from pathlib import Path

HOSTILE = "<script>alert(1)</script>&\x00\x1b[31m\x07\ud800 'quoted\"</pre>"
EMPTY = Report(title="t", verdict="v", started=datetime(2026, 1, 1, tzinfo=UTC), seconds=0.0, suites=())


def test_three_files(tmp_path: Path) -> None:
    """Page, JUnit and JSON, into a folder made for them; the JSON is the report."""
    page = write_report(sample_report(), tmp_path / "a" / "b")
    assert page.name == "index.html"
    assert {path.name for path in page.parent.iterdir()} == {"index.html", "junit.xml", "report.json"}
    found = json.loads((page.parent / "report.json").read_text())
    assert found["ok"] is True
    assert found["started"] == "2026-03-01T12:30:05+00:00"
    assert found["ways"][0]["ring_bytes"] == 1134
    assert len(found["spans"]) == 907


def test_junit_read_by_another_program(tmp_path: Path) -> None:
    """Suites by guest, with properties, counts, reasons."""
    path = tmp_path / "junit.xml"
    path.write_bytes(junit_xml(sample_report(failed=True)))
    document = JUnitXml.fromfile(str(path))
    (suite,) = document
    assert suite.name == "debian bookworm, kernel 6.1.0"
    assert (suite.tests, suite.failures, suite.errors, suite.skipped) == (4, 1, 0, 1)
    assert [(one.name, one.value) for one in suite.properties()] == [("accelerator", "tcg")]
    wrong = next(case for case in suite if case.name == "virtio-blk shows the same")
    assert {case.name: type(result).__name__ for case in suite for result in case.result} == {
        "virtio-blk shows the same": "Failure",
        "a snapshot by reflink": "Skipped",
    }
    assert wrong.result[0].message == "it shows other data"
    assert "A != B" in wrong.result[0].text
    assert wrong.time == pytest.approx(0.2)


def test_text_of_a_guest_cannot_break_out(tmp_path: Path) -> None:
    """Markup is shown, characters that XML does not have are replaced, in every place that takes text."""
    case = Case(HOSTILE, "failed", 0.1, HOSTILE, HOSTILE)
    report = replace(
        sample_report(log=HOSTILE),
        title=HOSTILE,
        verdict=HOSTILE,
        suites=(Suite(HOSTILE, (case,), {HOSTILE: HOSTILE}),),
        spans=(Span(HOSTILE, HOSTILE, 0, 1, detail=HOSTILE),),
        environment={HOSTILE: HOSTILE},
    )
    page = write_report(report, tmp_path).read_text("utf-8")
    assert "<script" not in page
    assert page.count("&lt;script&gt;") >= 11
    (suite,) = JUnitXml.fromfile(str(tmp_path / "junit.xml"))
    assert suite.name == "<script>alert(1)</script>&\ufffd\ufffd[31m\ufffd\ufffd 'quoted\"</pre>"
    assert json.loads((tmp_path / "report.json").read_text())["title"].startswith("<script>")


def test_nothing_is_loaded() -> None:
    """No address in the page but those of its two neighbours, and a policy that forbids the rest."""
    page = html_page(sample_report())
    assert "default-src 'none'" in page
    assert "url(" not in page
    assert "http" not in page.replace("http-equiv", "")
    assert [part.partition('"')[0] for part in page.split('href="')[1:]] == [
        "data:,",
        "junit.xml",
        "report.json",
    ]


def test_the_verdict_needs_a_check() -> None:
    """Nothing checked, or only skipped, is not passed."""
    assert not EMPTY.ok
    assert not replace(EMPTY, suites=(Suite("s", (Case("c", "skipped"),)),)).ok
    assert replace(EMPTY, suites=(Suite("s", (Case("c", "skipped"), Case("d"))),)).ok
    assert not replace(EMPTY, suites=(Suite("s", (Case("c"), Case("d", "error"))),)).ok
    assert "✕ Failed" in html_page(EMPTY)


def test_a_long_log_keeps_its_end() -> None:
    """The reasons are at the end."""
    page = html_page(sample_report(log="x" * 300_000 + "the reason"))
    assert "the reason" in page
    assert "(100,010 characters left out)" in page


def test_thousands_of_commands_stay_a_small_page() -> None:
    """Spans that cannot be told apart are drawn as one, and say how many they are."""
    spans = tuple(Span("READ", "READ", number / 10_000, 1e-5, "command") for number in range(100_000))
    report = replace(EMPTY, seconds=10.0, spans=spans)
    (lane,), _ = charts.timeline(report)
    assert len(lane.bars) <= 1000
    assert lane.note.startswith("100,000 times")
    assert sum(int(bar.says.partition(" ")[0]) for bar in lane.bars) == 100_000
    assert len(html_page(report)) < 300_000


def test_a_failed_span_is_never_merged_away() -> None:
    """It keeps its colour, on top of a thousand others."""
    spans = tuple(
        Span("W", "W", number / 1e4, 1e-5, "command", failed=number == 500) for number in range(1000)
    )
    (lane,), _ = charts.timeline(replace(EMPTY, seconds=100.0, spans=spans))
    assert [bar.kind for bar in lane.bars] == ["command", "failed"]


def test_the_axes_are_right() -> None:
    """Round numbers at the places where they belong; a decade is as wide as the next."""
    _, seconds = charts.timeline(sample_report())
    assert [tick.label for tick in seconds] == ["0 s", "10 s", "20 s", "30 s"]
    assert seconds[2].at == pytest.approx(100 * 20 / 34.7, abs=0.01)
    strips, decades = charts.latency(sample_report().ways)
    assert [tick.label for tick in decades] == ["100 µs", "1 ms", "10 ms", "100 ms"]
    assert [tick.at for tick in decades] == pytest.approx([0, 100 / 3, 200 / 3, 100], abs=0.01)
    populate = next(strip for strip in strips if strip.name == "POPULATE TOKEN")
    assert populate.dots == (pytest.approx(44.07, abs=0.01),)


def test_the_fastest_is_the_full_width() -> None:
    """Widths are in the ratio of the rates, and a way that took no time has none."""
    ways = [Way("a", 10 * MIB, 1.0), Way("b", 20 * MIB, 1.0), Way("c", 0, 0.0)]
    assert [bar.width for bar in charts.throughput(ways)] == [50, 100, 0]
    assert charts.throughput([Way("c", 0, 0.0)]) == []


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 µs"),
        (2.1e-6, "2.1 µs"),
        (0.00099, "990 µs"),
        (0.001, "1 ms"),
        (61e-3, "61 ms"),
        (3600, "3600 s"),
    ],
)
def test_durations(seconds: float, text: str) -> None:
    """Three digits and a unit."""
    assert charts.duration(seconds) == text
