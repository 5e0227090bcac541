"""Numbers to places: bars, dots and axes of the page's charts, in percent of the width.

May import: model. Next: `templates/report.html.j2` draws them. Percent, so that a phone's page has the same text size
as a wide one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import groupby
from statistics import median
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from qemu_odx.report.model import Report, Sample, Span, Way

FINEST = 0.1  # percent; what lies closer than this in a lane is drawn as one
MOST_DOTS = 400
KINDS = ("phase", "token", "command", "fault")
NICE = (1, 2, 5, 10)
UNITS = ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs"))


@dataclass(frozen=True, slots=True)
class Tick:
    """A mark of an axis."""

    at: float
    label: str


@dataclass(frozen=True, slots=True)
class Bar:
    """A stretch to draw: from and width in percent, a class for its colour, and what to say of it."""

    at: float
    width: float
    kind: str
    says: str


@dataclass(frozen=True, slots=True)
class Lane:
    """A row of the timeline."""

    name: str
    note: str
    bars: tuple[Bar, ...]


@dataclass(frozen=True, slots=True)
class Strip:
    """A row of dots, each the latency of one request."""

    name: str
    note: str
    series: int
    dots: tuple[float, ...]
    middle: float


def timeline(report: Report) -> tuple[list[Lane], list[Tick]]:
    """The lanes, phases before tokens before commands, and an axis in seconds."""
    whole = max([report.seconds, *(span.start + span.seconds for span in report.spans)], default=0.0)
    if not report.spans or whole <= 0:
        return [], []
    by_lane: dict[str, list[Span]] = {}
    for span in sorted(report.spans, key=_place):
        by_lane.setdefault(span.lane, []).append(span)
    lanes = [_lane(name, spans, whole) for name, spans in by_lane.items()]
    return lanes, list(_linear_ticks(whole))


def _place(span: Span) -> tuple[int, str, float]:
    """Commands of one device stand together, all else in the order of time."""
    return KINDS.index(span.kind), span.lane if span.kind == "command" else "", span.start


def _lane(name: str, spans: Sequence[Span], whole: float) -> Lane:
    total = duration(sum(span.seconds for span in spans))
    note = total if len(spans) == 1 else f"{len(spans):,} times, {total}"
    return Lane(name, note, tuple(_merged(spans, whole)))


def _merged(spans: Sequence[Span], whole: float) -> Iterator[Bar]:
    """The bars of a lane; spans too close to be told apart become one. The failed ones are drawn on top."""
    for failed in (False, True):
        run: list[Span] = []
        end = -math.inf
        for span in spans:
            if span.failed is not failed:
                continue
            if span.start - end > whole * FINEST / 100 and run:
                yield _bar(run, end, whole)
                run = []
            run.append(span)
            end = max(end, span.start + span.seconds)
        if run:
            yield _bar(run, end, whole)


def _bar(run: Sequence[Span], end: float, whole: float) -> Bar:
    start = run[0].start
    says = run[0].name if len(run) == 1 else f"{len(run)} of {run[0].name}"
    if len(run) == 1 and run[0].detail:
        says += f": {run[0].detail}"
    kind = "failed" if run[0].failed else run[0].kind
    says = f"{says}, {duration(end - start)} at {start:.3f} s"
    return Bar(_percent(start, whole), max(_percent(end - start, whole), FINEST), kind, says)


def _percent(part: float, whole: float) -> float:
    return round(100 * part / whole, 3)


def _linear_ticks(whole: float) -> Iterator[Tick]:
    step = _nice(whole / 4)
    for number in range(int(whole / step) + 1):
        yield Tick(_percent(number * step, whole), f"{number * step:g} s")


def _nice(value: float) -> float:
    """The least of 1, 2 and 5 times a power of ten that is not below `value`."""
    power: float = 10.0 ** math.floor(math.log10(value))
    return next(factor * power for factor in NICE if factor * power >= value * 0.999)


def throughput(ways: Sequence[Way]) -> list[Bar]:
    """A bar for each way; the fastest is the full width."""
    fastest = max((way.rate for way in ways), default=0.0)
    if fastest <= 0:
        return []
    return [
        Bar(0.0, _percent(way.rate, fastest), f"series{number}", rate(way.rate))
        for number, way in enumerate(ways)
    ]


def latency(ways: Sequence[Way]) -> tuple[list[Strip], list[Tick]]:
    """A strip for each operation of each way, and a logarithmic axis of powers of ten."""
    every = [sample.seconds for way in ways for sample in way.samples if sample.seconds > 0]
    if not every:
        return [], []
    low, high = math.floor(math.log10(min(every))), math.ceil(math.log10(max(every)))
    high = max(high, low + 1)

    def place(seconds: float) -> float:
        return _percent(math.log10(seconds) - low, high - low)

    strips = []
    for number, way in enumerate(ways):
        for operation, samples in _by_operation(way.samples):
            times = sorted(sample.seconds for sample in samples)
            note = f"median {duration(median(times))}, slowest {duration(times[-1])}, {len(times):,} times"
            if len(times) == 1:
                note = f"once, {duration(times[0])}"
            dots = tuple(dict.fromkeys(place(seconds) for seconds in _thinned(times)))
            strips.append(Strip(operation, note, number, dots, place(median(times))))
    return strips, [Tick(place(10.0**power), duration(10.0**power)) for power in range(low, high + 1)]


def _by_operation(samples: Iterable[Sample]) -> Iterator[tuple[str, list[Sample]]]:
    timed = sorted((sample for sample in samples if sample.seconds > 0), key=lambda one: one.operation)
    for operation, group in groupby(timed, key=lambda one: one.operation):
        yield operation, list(group)


def _thinned(times: Sequence[float]) -> Sequence[float]:
    """At most so many of sorted numbers, the first and the last always among them."""
    if len(times) <= MOST_DOTS:
        return times
    return [times[number * (len(times) - 1) // (MOST_DOTS - 1)] for number in range(MOST_DOTS)]


def duration(seconds: float) -> str:
    """Seconds as people write them: three digits and a fitting unit."""
    size, unit = next((pair for pair in UNITS if seconds >= pair[0] * 0.9995), UNITS[-1])
    return f"{seconds / size:.3g} {unit}" if seconds / size < 1000 else f"{seconds / size:.0f} {unit}"


def rate(bytes_per_second: float) -> str:
    """MiB/s, in three digits at least."""
    mebibytes = bytes_per_second / (1 << 20)
    return f"{mebibytes:.3g} MiB/s" if mebibytes < 1000 else f"{mebibytes:,.0f} MiB/s"
