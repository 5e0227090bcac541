"""The report of `qemu-odx run`: the script as a check, and what it printed if that is a copy of ours.

May import: lab, report. Used by `run.py`.
"""

from __future__ import annotations

import shlex
import shutil
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from qemu_odx.cli.reporting import LOGS, digests, save, traced, ways
from qemu_odx.lab.demo import TRACE
from qemu_odx.lab.session.run import run_script
from qemu_odx.report.environment import host_environment
from qemu_odx.report.logs import read_logs
from qemu_odx.report.model import Case, Report, Suite
from qemu_odx.report.recorder import Recorder

if TYPE_CHECKING:
    from pathlib import Path

    from qemu_odx.lab.phases import Observer
    from qemu_odx.lab.session.run import Orders, RunResult

LAST_LINES = 40


def run_with_report(orders: Orders, observer: Observer, folder: Path) -> RunResult:
    """Run a script, and write the report of it however it ends.

    Raises:
        LabError: the report cannot be written.
    """
    recorder = Recorder(observer)
    result = run_script(replace(orders, copy_to=folder / LOGS, trace=True), recorder)
    save(_report(orders, result, recorder, folder / LOGS), folder)
    if orders.copy_to is not None:
        shutil.copytree(folder / LOGS, orders.copy_to, dirs_exist_ok=True)
    return result


def _report(orders: Orders, result: RunResult, recorder: Recorder, logs: Path) -> Report:
    printed = result.printed if isinstance(result.printed, dict) else {}
    return Report(
        title=f"qemu-odx run {orders.script.file.name}",
        verdict=_verdict(result),
        started=recorder.started,
        seconds=recorder.seconds,
        suites=(Suite(result.guest or orders.guest, (_case(orders, result),), _properties(orders)),),
        spans=(*recorder.spans, *traced(logs / TRACE, recorder.started.timestamp())),
        ways=ways(_objects(printed), printed.get("samples", {})),
        digests=digests(_texts(printed.get("sha256"))),
        environment=host_environment(),
        logs=read_logs(logs),
    )


def _verdict(result: RunResult) -> str:
    if result.ok:
        return "The script ended with exit code 0."
    if result.finished:
        return f"The script ended with exit code {result.code}."
    return f"{result.error[:1].upper()}{result.error[1:]}; {result.cure}."


def _case(orders: Orders, result: RunResult) -> Case:
    name, seconds = orders.script.file.name, result.phases.get("script", 0.0)
    if result.ok:
        return Case(name, seconds=seconds)
    last = "\n".join(result.stderr.splitlines()[-LAST_LINES:])
    if result.finished:
        return Case(name, "failed", seconds, f"exit code {result.code}", last)
    return Case(name, "error", seconds, f"{result.error}; {result.cure}", result.details or last)


def _properties(orders: Orders) -> dict[str, str]:
    return {"machine": orders.lab.machine, "arguments": shlex.join(orders.script.arguments)}


def _objects(printed: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The members that look like what a way of copying took."""
    return {
        name: value
        for name, value in printed.items()
        if isinstance(value, dict) and {"bytes", "seconds"} <= value.keys()
    }


def _texts(value: object) -> dict[str, str]:
    """The hashes that a script printed, none if it is no object of texts."""
    if not isinstance(value, dict):
        return {}
    return {str(name): text for name, text in value.items() if isinstance(text, str)}
