"""`qemu-odx doctor`: what would go wrong, and the cure; a table, or one JSON object.

May import: the lab. It owns what is shown, `lab/doctor` what is looked at.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import rich_click as click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from qemu_odx.cli.console import stdout_console
from qemu_odx.cli.guest_options import Target, guest_options
from qemu_odx.cli.lab_options import fail
from qemu_odx.lab.doctor.checkup import FEATURES, Report, check_up
from qemu_odx.lab.doctor.finding import Level
from qemu_odx.lab.errors import LabError

if TYPE_CHECKING:
    from qemu_odx.lab.doctor.finding import Finding

STYLES = {Level.OK: "green", Level.NOTE: "cyan", Level.WARNING: "yellow", Level.ERROR: "bold red"}


@click.command()
@click.option(
    "--need",
    "needs",
    multiple=True,
    type=click.Choice(FEATURES),
    help="Also fail if this cannot be used; may be repeated.",
)
@click.option(
    "--folder",
    "folders",
    multiple=True,
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    metavar="FOLDER",
    help="A folder your disks will be in: is there room, has it reflinks? May be repeated.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object and nothing else.")
@click.option("-v", "--verbose", is_flag=True, help="Show what is well, too.")
@guest_options
def doctor(
    *, needs: tuple[str, ...], folders: tuple[Path, ...], as_json: bool, verbose: bool, target: Target
) -> None:
    """Find what would go wrong before anything is started, and say the cure.

    With --guest or --ssh: which layer of a guest refuses ODX, or proof that tokens flow.

    Exit codes: 0 nothing will fail (there may be warnings), 1 something will.
    """
    if target.wanted:
        _examine(target, as_json=as_json)
    report = _checked_up(needs, folders)
    if as_json:
        click.echo(json.dumps(report.as_json()))
    else:
        print_report(report, verbose=verbose)
    sys.exit(0 if report.ok else 1)


def _examine(target: Target, *, as_json: bool) -> NoReturn:
    from qemu_odx.cli.doctor_guest import examine, say  # noqa: PLC0415 - ssh and trace are not needed without it

    try:
        guest, monitor = target.find()
        view = examine(guest, target.question(), monitor)
    except LabError as error:
        fail(error)
    say(view, as_json=as_json)
    sys.exit(0 if view.ok else 1)


def _checked_up(needs: tuple[str, ...], folders: tuple[Path, ...]) -> Report:
    errors = Console(stderr=True)
    if not errors.is_terminal:
        return check_up(needs=needs, folders=folders)
    with errors.status("looking") as status:

        def seen(finding: Finding) -> None:
            status.update(f"{finding.area}: {finding.name}")

        return check_up(needs=needs, folders=folders, seen=seen)


def print_report(report: Report, *, verbose: bool) -> None:
    """A row for what is not as it should be (`verbose`: for everything), then the verdict."""
    console = stdout_console()
    table = Table("", "what", "found", "cure", box=None, pad_edge=False)
    for column in table.columns[1:]:
        column.overflow = "fold"
    for finding in report.findings:
        if verbose or finding.level is not Level.OK:
            level = Text(finding.level.value, STYLES[finding.level])
            name = Text(f"{finding.area}: {finding.name}")
            table.add_row(level, name, Text(finding.found), Text(finding.cure))
    if table.row_count:
        console.print(table)
    counts = report.as_json()["counts"]
    said = ", ".join(f"{number} {level}" for level, number in counts.items() if number)
    verdict = "[green]Nothing will fail[/]" if report.ok else "[bold red]Something will fail[/]"
    console.print(f"{verdict}: {said}.", highlight=False)
