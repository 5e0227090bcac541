"""The report of a demonstration: what was proved, as checks, hashes and two ways to copy.

May import: lab, report. Used by `demo.py`.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

from qemu_odx.cli.reporting import LOGS, digests, save, traced, ways
from qemu_odx.lab.demo import TRACE, DemoResult
from qemu_odx.lab.errors import LabError
from qemu_odx.report.environment import host_environment
from qemu_odx.report.logs import read_logs
from qemu_odx.report.model import Case, Report, Suite
from qemu_odx.report.recorder import Recorder

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from qemu_odx.lab.phases import Observer
    from qemu_odx.lab.wine import WineResult
    from qemu_odx.report.model import Way

TITLE = "qemu-odx demo"


def reported(
    run: Callable[..., DemoResult | WineResult], observer: Observer, folder: Path
) -> DemoResult | WineResult:
    """Run a demonstration, and write its report however it ends.

    Raises:
        LabError: it failed, or the report cannot be written.
    """
    recorder = Recorder(observer)
    try:
        result = run(recorder, logs=folder / LOGS)
    except LabError as error:
        save(_failed(error, recorder, folder), folder)
        raise
    save(_passed(result, recorder, folder), folder)
    return result


def _failed(error: LabError, recorder: Recorder, folder: Path) -> Report:
    case = Case("the demonstration", "failed", recorder.seconds, str(error), error.details)
    return _report(f"{error.cause}.", Suite("demo", (case,)), recorder, folder)


def _passed(result: DemoResult | WineResult, recorder: Recorder, folder: Path) -> Report:
    suite = _linux_suite(result) if isinstance(result, DemoResult) else _wine_suite(result)
    measured = _ways(result) if isinstance(result, DemoResult) else ()
    return _report(
        "The data of before the overwrite arrived.",
        suite,
        recorder,
        folder,
        sha256=result.sha256,
        measured=measured,
    )


def _report(
    verdict: str,
    suite: Suite,
    recorder: Recorder,
    folder: Path,
    *,
    sha256: Mapping[str, str] | None = None,
    measured: tuple[Way, ...] = (),
) -> Report:
    return Report(
        title=TITLE,
        verdict=verdict[:1].upper() + verdict[1:],
        started=recorder.started,
        seconds=recorder.seconds,
        suites=(suite,),
        spans=(*recorder.spans, *traced(folder / LOGS / TRACE, recorder.started.timestamp())),
        ways=measured,
        digests=digests(sha256 or {}),
        environment=host_environment(),
        logs=read_logs(folder / LOGS),
    )


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
    costs = {"token_copy": asdict(result.token_copy), "plain_copy": asdict(result.plain_copy)}
    return ways(costs, result.samples)
