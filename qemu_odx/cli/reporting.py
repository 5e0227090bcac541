"""What the reports of all commands have in common: the trace on the timeline, copies measured by a guest, the files.

May import: lab, report, trace. Used by `demo_report.py` and `run_report.py`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qemu_odx.lab.errors import LabError
from qemu_odx.report.model import Digest, Sample, Way
from qemu_odx.report.trace_spans import trace_spans
from qemu_odx.report.write import write_report
from qemu_odx.trace.reading import TraceError, open_trace

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from qemu_odx.report.model import Report, Span

LOGS = "logs"
WAYS = {"token_copy": "by token", "plain_copy": "by read and write"}
DATA = {
    "source_before": "source, when the token was made",
    "source_after": "source, overwritten before the copy",
    "destination": "destination",
    "destination_through_blk": "destination by virtio-blk",
    "destination_on_host": "destination, read on the host",
}


def save(report: Report, folder: Path) -> None:
    """Write the files of a report. Raises LabError if that is not possible."""
    try:
        write_report(report, folder)
    except OSError as error:
        raise LabError(f"cannot write the report ({error})", "give --report another folder") from error


def traced(trace: Path, started: float) -> tuple[Span, ...]:
    """What the disk server recorded in a run that began at `started`, seconds since 1970; nothing without a trace."""
    try:
        return trace_spans(open_trace(trace), started)
    except TraceError:
        return ()


def ways(costs: Mapping[str, Mapping[str, Any]], samples: Mapping[str, list[Any]]) -> tuple[Way, ...]:
    """The ways of copying among what a guest measured, each with the time of every request."""
    return tuple(
        Way(
            words,
            int(costs[key]["bytes"]),
            float(costs[key]["seconds"]),
            costs[key].get("ring_bytes"),
            tuple(Sample(*one) for one in samples.get(key, ())),
        )
        for key, words in WAYS.items()
        if key in costs
    )


def digests(sha256: Mapping[str, str]) -> tuple[Digest, ...]:
    """Hashes by names for people."""
    return tuple(Digest(DATA.get(name, name.replace("_", " ")), value) for name, value in sha256.items())
