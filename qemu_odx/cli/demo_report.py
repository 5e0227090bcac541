"""The report of a demonstration: what was proved, as checks, hashes and two ways to copy.

May import: lab, report. Used by `demo.py`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from qemu_odx.lab.demo import TRACE, DemoResult
from qemu_odx.lab.errors import LabError
from qemu_odx.report.environment import host_environment
from qemu_odx.report.logs import read_logs
from qemu_odx.report.model import Case, Digest, Report, Sample, Span, Suite, Way
from qemu_odx.report.recorder import Recorder
from qemu_odx.report.trace_spans import trace_spans
from qemu_odx.report.write import write_report
from qemu_odx.trace.reading import TraceError, open_trace

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from qemu_odx.lab.demo import Cost
    from qemu_odx.lab.phases import Observer
    from qemu_odx.lab.wine import WineResult

TITLE = "qemu-odx demo"
DATA = {
    "source_before": "source, when the token was made",
    "source_after": "source, overwritten before the copy",
    "destination": "destination",
    "destination_through_blk": "destination by virtio-blk",
    "destination_on_host": "destination, read on the host",
}


def reported(
    run: Callable[..., DemoResult | WineResult], observer: Observer, folder: Path
) -> DemoResult | WineResult:
    """Run a demonstration, and write its report however it ends.

    Raises:
        LabError: it failed, or the report cannot be written.
    """
    recorder = Recorder(observer)
    try:
        result = run(recorder, logs=folder / "logs")
    except LabError as error:
        _write(_failed(error, recorder, folder), folder)
        raise
    _write(_passed(result, recorder, folder), folder)
    return result


def _write(report: Report, folder: Path) -> None:
    try:
        write_report(report, folder)
    except OSError as error:
        raise LabError(f"cannot write the report ({error})", "give --report another folder") from error


def _failed(error: LabError, recorder: Recorder, folder: Path) -> Report:
    case = Case("the demonstration", "failed", recorder.seconds, str(error), error.details)
    return _report(f"{error.cause}.", Suite("demo", (case,)), recorder, folder)


def _passed(result: DemoResult | WineResult, recorder: Recorder, folder: Path) -> Report:
    suite = _linux_suite(result) if isinstance(result, DemoResult) else _wine_suite(result)
    ways = _ways(result) if isinstance(result, DemoResult) else ()
    return _report(
        "The data of before the overwrite arrived.", suite, recorder, folder, sha256=result.sha256, ways=ways
    )


def _report(
    verdict: str,
    suite: Suite,
    recorder: Recorder,
    folder: Path,
    *,
    sha256: Mapping[str, str] | None = None,
    ways: tuple[Way, ...] = (),
) -> Report:
    return Report(
        title=TITLE,
        verdict=verdict[:1].upper() + verdict[1:],
        started=recorder.started,
        seconds=recorder.seconds,
        suites=(suite,),
        spans=(*recorder.spans, *_traced(folder / "logs" / TRACE, recorder.started.timestamp())),
        ways=ways,
        digests=tuple(Digest(DATA.get(name, name), value) for name, value in (sha256 or {}).items()),
        environment=host_environment(),
        logs=read_logs(folder / "logs"),
    )


def _traced(trace: Path, started: float) -> tuple[Span, ...]:
    """What the disk server recorded; nothing if it did not come to that."""
    try:
        return trace_spans(open_trace(trace), started)
    except TraceError:
        return ()


def _linux_suite(result: DemoResult) -> Suite:
    """What the result's verdict is made of, one by one."""
    hashes = result.sha256
    checks = {
        "the source was overwritten after the token was made": hashes["source_after"]
        != hashes["source_before"],
        "what the token wrote is the data of before": hashes["destination"] == hashes["source_before"],
        "the virtio-blk device shows the same": hashes["destination_through_blk"] == hashes["source_before"],
    }
    cases = (Case(name, "passed" if true else "failed") for name, true in checks.items())
    return Suite(result.guest, tuple(cases), {"accelerator": result.accelerator})


def _wine_suite(result: WineResult) -> Suite:
    """One check for each case under Wine, and two for the data."""
    cases = [_case(outcome.case.title, outcome.failure) for outcome in result.outcomes]
    wrong = "" if result.point_in_time else "other data arrived"
    cases += [_case("what the token wrote is the data of before", wrong)]
    cases += [_case("the image file holds what was written and nothing else", result.image_failure)]
    return Suite(result.description, tuple(cases))


def _case(name: str, failure: str) -> Case:
    return Case(name, "failed" if failure else "passed", message=failure)


def _ways(result: DemoResult) -> tuple[Way, ...]:
    def way(name: str, key: str, cost: Cost) -> Way:
        samples = tuple(Sample(*one) for one in result.samples.get(key, ()))
        return Way(name, cost.bytes, cost.seconds, cost.ring_bytes, samples)

    return (
        way("by token", "token_copy", result.token_copy),
        way("by read and write", "plain_copy", result.plain_copy),
    )
