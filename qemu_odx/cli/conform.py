"""`qemu-odx conform`: vectors against our target, checks against any device, and the kit as a single file.

Imports `testing/conformance/` only. Next: `testing/conformance/replay.py` and `run.py`.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import rich_click as click
from rich.console import Console
from rich.table import Table

from qemu_odx.cli.failing import fail
from qemu_odx.cli.values import NewFile, Seconds
from qemu_odx.testing.conformance import kit, report
from qemu_odx.testing.conformance.checks import all_checks
from qemu_odx.testing.conformance.kit_main import ConformError, list_lines, run_on_nodes, selected
from qemu_odx.testing.conformance.local import LocalDevice
from qemu_odx.testing.conformance.replay import replay_file
from qemu_odx.testing.conformance.run import Verdict, run_checks
from qemu_odx.testing.conformance.vector_file import VectorFileError, load

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from qemu_odx.testing.conformance.replay import Verdict as VectorVerdict
    from qemu_odx.testing.conformance.run import Result

_FAILED, _USAGE = 1, 2
_COLOURS = {Verdict.PASS: "green", Verdict.FAIL: "bold red", Verdict.SKIP: "yellow"}
_SELF = "our own target, in this process"


@click.command()
@click.option(
    "--vectors", type=click.Path(path_type=Path), metavar="FILE", help="Replay a file of SCSI vectors."
)
@click.option("--target", metavar="sg:/dev/sgN", help="The device to check (default: our own target).")
@click.option("--second", multiple=True, metavar="sg:/dev/sgM", help="Another disk of the same device.")
@click.option("--destroy-data", is_flag=True, help="Allow checks that write to the disks of --target.")
@click.option("--only", multiple=True, metavar="NAME", help="A family or a check; may be repeated.")
@click.option(
    "--patience",
    type=Seconds(min=0),
    default=90,
    show_default=True,
    metavar="SECONDS",
    help="The longest single wait of the expiry checks.",
)
@click.option("--list", "listing", is_flag=True, help="List the checks and end.")
@click.option("--write-kit", type=NewFile(), metavar="FILE", help="Write the single-file kit, for a guest.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option("--junit", type=NewFile(), metavar="FILE", help="Write JUnit XML.")
@click.option("-v", "--verbose", is_flag=True, help="Show what was sent and answered for every check.")
def conform(
    *,
    vectors: Path | None,
    target: str | None,
    second: tuple[str, ...],
    only: tuple[str, ...],
    patience: float,
    write_kit: Path | None,
    junit: Path | None,
    destroy_data: bool,
    listing: bool,
    as_json: bool,
    verbose: bool,
) -> None:
    """Check how a device keeps the rules of token copy (ODX).

    Without --vectors and --target the checks run on our own target, in this process. Exit codes: 0 nothing failed,
    1 something did, 2 it could not be done.
    """
    try:
        _refuse_mixtures(vectors, target, second, junit, destroy_data=destroy_data)
        if listing:
            _say_list(as_json=as_json)
        elif write_kit is not None:
            kit.write_kit(write_kit)
            how = f"{write_kit}: copy it to a guest and run: python3 {write_kit.name} /dev/sg1 --destroy-data"
            print(json.dumps({"kit": str(write_kit)}) if as_json else how)
        elif vectors is not None:
            _say_vectors(replay_file(load(vectors)), as_json=as_json)
        else:
            paths = [target, *second] if target else []
            results = _run(paths, only, destroy=destroy_data, patience=patience, quiet=as_json)
            _say_checks(results, target or _SELF, junit, as_json=as_json, verbose=verbose)
    except (ConformError, VectorFileError) as error:
        fail(error, _USAGE)


def _refuse_mixtures(
    vectors: Path | None, target: str | None, second: Sequence[str], junit: Path | None, *, destroy_data: bool
) -> None:
    if vectors is not None and (target or junit):
        raise ConformError("vectors run on our own target: leave out --target and --junit")
    if target is None and (second or destroy_data):
        raise ConformError("--second and --destroy-data belong to --target sg:/dev/sgN: name one")
    for path in (target, *second):
        if path is not None and not path.startswith("sg:"):
            raise ConformError(f"{path!r} is no device: write sg: and a disk node, such as sg:/dev/sg1")


def _run(
    paths: Sequence[str], only: Sequence[str], *, destroy: bool, patience: float, quiet: bool
) -> list[Result]:
    checks = selected(only)
    console = Console(stderr=True)
    with console.status("checking") as status:

        def seen(result: Result) -> None:
            status.update(f"{result.check.id}: {result.verdict.value}")

        told: Callable[[Result], None] = (lambda _: None) if quiet else seen
        if paths:
            return run_on_nodes(paths, checks, destroy=destroy, patience=patience, seen=told)
        results = []
        for result in run_checks(checks, LocalDevice, destroy=True):
            told(result)
            results.append(result)
        return results


def _say_list(*, as_json: bool) -> None:
    if as_json:
        listed = [{"id": each.id, "writes": each.destructive, "title": each.title} for each in all_checks()]
        print(json.dumps({"checks": listed}))
    else:
        print("\n".join(list_lines()))


def _say_vectors(verdicts: Sequence[VectorVerdict], *, as_json: bool) -> None:
    failed = sum(not verdict.ok for verdict in verdicts)
    if as_json:
        listed = [{"id": verdict.id, "ok": verdict.ok, "why": verdict.why} for verdict in verdicts]
        print(json.dumps({"vectors": listed, "passed": len(verdicts) - failed, "failed": failed}))
    else:
        for verdict in verdicts:
            print(f"{'pass' if verdict.ok else 'FAIL'}  {verdict.id}{': ' * bool(verdict.why)}{verdict.why}")
        print(f"{len(verdicts) - failed} passed, {failed} failed")
    if failed:
        sys.exit(_FAILED)


def _say_checks(
    results: Sequence[Result], device: str, junit: Path | None, *, as_json: bool, verbose: bool
) -> None:
    if junit is not None:
        junit.write_bytes(report.as_junit(results, device))
    if as_json:
        print(json.dumps(report.as_object(results, device)))
    elif sys.stdout.isatty() and not verbose:
        _show_table(results)
    else:
        print("\n".join(report.as_lines(results, every=verbose)))
    if report.counts(results)["failed"]:
        sys.exit(_FAILED)


def _show_table(results: Sequence[Result]) -> None:
    """For people at a terminal: a row for each check, and the commands of those that failed."""
    table = Table(box=None, pad_edge=False)
    for heading in ("check", "verdict", "clause", "what it proves, or why not"):
        table.add_column(heading, overflow="fold")
    for result in results:
        colour = _COLOURS[result.verdict]
        said = f"[{colour}]{result.verdict.value}[/]"
        table.add_row(result.check.id, said, result.check.clause, _escaped(result.why or result.check.title))
    console = Console()
    console.print(table)
    for result in results:
        if result.verdict is Verdict.FAIL:
            console.print(f"\n[bold]{result.check.id}[/]")
            lines = (line for step in result.steps for line in report.step_lines(step))
            console.print("\n".join(lines), markup=False, highlight=False)
    console.print(", ".join(f"{number} {words}" for words, number in report.counts(results).items()))


def _escaped(text: str) -> str:
    return text.replace("[", "\\[")
