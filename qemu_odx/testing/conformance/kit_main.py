"""The main program of the single-file kit: `python3 odx-conform.pyz /dev/sg1 --second /dev/sg2 --destroy-data`.

Standard library and the kit's own files only. Put together by `kit.py`. Exit codes: 0 every check passed or was
skipped, 1 some failed, 2 it could not be done.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from qemu_odx.testing.conformance import report
from qemu_odx.testing.conformance.checks import all_checks
from qemu_odx.testing.conformance.run import run_checks
from qemu_odx.testing.conformance.sg import SgDevice, SgError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from qemu_odx.testing.conformance.checks.family import Check
    from qemu_odx.testing.conformance.run import Result

OK, FAILED, USAGE = 0, 1, 2
_PREFIX = "sg:"


class ConformError(Exception):
    """It cannot be done; the text names the cure."""


def selected(wanted: Iterable[str]) -> list[Check]:
    """The checks of some families or with some ids, all if none is named.

    Raises:
        ConformError: a name fits nothing.
    """
    names, checks = set(wanted), all_checks()
    for name in names:
        if not any(name in {check.family, check.id} for check in checks):
            families = ", ".join(dict.fromkeys(check.family for check in checks))
            raise ConformError(f"there is no check {name!r}: use --list to see them, or a family: {families}")
    return [check for check in checks if not names or names & {check.family, check.id}]


def list_lines() -> list[str]:
    """A line for each check: id, whether it writes, what it proves."""
    return [
        f"{check.id:45} {'writes' if check.destructive else 'reads':7} {check.title}"
        for check in all_checks()
    ]


def run_on_nodes(
    paths: Sequence[str],
    checks: Sequence[Check],
    *,
    destroy: bool,
    patience: float,
    seen: Callable[[Result], None] = lambda _: None,
) -> list[Result]:
    """Run checks on disk nodes; `seen` is told each result as it comes.

    Raises:
        ConformError: a node cannot be used, or is in use and would be written to.
    """
    try:
        device = SgDevice([path.removeprefix(_PREFIX) for path in paths], patience=patience)
    except SgError as error:
        raise ConformError(str(error)) from error
    try:
        taken = device.in_use() if destroy else None
        if taken:
            raise ConformError(f"{taken} is in use (mounted?): unmount it, or leave out --destroy-data")
        results = []
        for result in run_checks(checks, lambda: device, destroy=destroy):
            seen(result)
            results.append(result)
        return results
    finally:
        device.close()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the kit; its exit code."""
    options = _parser().parse_args(arguments)
    if options.list:
        _say("\n".join(list_lines()))
        return OK
    if not options.node:
        return _cannot("name a disk node, such as /dev/sg1, or use --list")
    try:
        results = run_on_nodes(
            [options.node, *options.second],
            selected(options.only),
            destroy=options.destroy_data,
            patience=options.patience,
        )
        _write(options, results)
    except (ConformError, OSError) as error:
        return _cannot(error)
    return FAILED if report.counts(results)["failed"] else OK


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")


def _cannot(why: object) -> int:
    sys.stderr.write(f"odx-conform: {why}\n")
    return USAGE


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="odx-conform", description="Check how a disk keeps the rules of token copy (ODX)."
    )
    parser.add_argument("node", nargs="?", help="disk node under test, such as /dev/sg1")
    parser.add_argument(
        "--second", action="append", default=[], metavar="NODE", help="another disk of the same device"
    )
    parser.add_argument("--destroy-data", action="store_true", help="allow checks that write to the disks")
    parser.add_argument(
        "--only", action="append", default=[], metavar="NAME", help="a family or a check; may be repeated"
    )
    parser.add_argument(
        "--patience",
        type=float,
        default=90,
        metavar="SECONDS",
        help="longest single wait of the expiry checks",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--junit", metavar="FILE", help="write JUnit XML")
    parser.add_argument(
        "--verbose", action="store_true", help="show what was sent and answered for every check"
    )
    parser.add_argument("--list", action="store_true", help="list the checks and end")
    return parser


def _write(options: argparse.Namespace, results: Sequence[Result]) -> None:
    if options.junit:
        Path(options.junit).write_bytes(report.as_junit(results, options.node))
    if options.json:
        _say(json.dumps(report.as_object(results, options.node)))
    else:
        _say("\n".join(report.as_lines(results, every=options.verbose)))
