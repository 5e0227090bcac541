"""`qemu-odx run`: one script in a fresh guest; its output, its exit code.

May import: the lab. It owns what is shown, `lab/session/run.py` what is done.
"""

from __future__ import annotations

import json
import re
import sys
from typing import TYPE_CHECKING, NoReturn

import rich_click as click

from qemu_odx.cli.lab_options import LabChoice, complain, fail, folder_option, lab_options, report_option
from qemu_odx.cli.progress import Shown, shown
from qemu_odx.cli.run_report import run_with_report
from qemu_odx.cli.values import Seconds
from qemu_odx.lab.errors import LabError
from qemu_odx.lab.interrupts import signals_end_the_run
from qemu_odx.lab.session.machines import system_of
from qemu_odx.lab.session.run import DEFAULT_SECONDS, Orders, RunResult, run_script
from qemu_odx.lab.session.script import find_script, scripts

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from qemu_odx.lab.config.model import Guest, Lab

TITLES = {
    "image": "Guest image",
    "serve": "Disk server",
    "boot": "Boot and log in",
    "script": "Script",
    "power_off": "Power off",
}
PROGRESS = re.compile(r"progress: (\d+) (\d+) (.*)")

_EXAMPLES = """\
   qemu-odx run odx_copy.py --source odx-source --destination odx-destination
   qemu-odx run --disk size=1G,bus=scsi+blk ./my_test.py --verbose
   qemu-odx run --lab odx.toml --on second --keep all ./check.sh
   qemu-odx run --image win.qcow2 --ssh Administrator@22 --os windows t.ps1
   qemu-odx run --list

 Options of ours stand before SCRIPT, what follows it is the script's. Exit
 codes: those of the script; ours are in qemu-odx help exit-codes.
"""


class _WithExamples(click.RichCommand):
    """Help that ends in text to copy, so its lines stay as they are."""

    def format_epilog(self, _ctx: click.Context, formatter: click.HelpFormatter) -> None:
        formatter.write(_EXAMPLES)


@click.command(cls=_WithExamples, context_settings={"allow_interspersed_args": False})
@lab_options
@click.option("--on", metavar="GUEST", help="Which guest of --lab runs it (default: the first).")
@click.option(
    "--time-out",
    type=Seconds(min=1),
    default=DEFAULT_SECONDS,
    show_default=True,
    metavar="SECONDS",
    help="How long the script may take.",
)
@click.option(
    "--keep",
    type=click.Choice(["all", "failed", "none"]),
    default="failed",
    show_default=True,
    help="Of which runs logs and results are kept.",
)
@folder_option("--logs", about="Put them there in any case.")
@report_option
@click.option("--json", "as_json", is_flag=True, help="Print one JSON value and nothing else.")
@click.option("--list", "listing", is_flag=True, help="List our scripts for this guest and end.")
@click.argument("script", required=False)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def run(
    *,
    choice: LabChoice,
    on: str | None,
    time_out: float,
    keep: str,
    logs: Path | None,
    report_folder: Path | None,
    script: str | None,
    arguments: tuple[str, ...],
    as_json: bool,
    listing: bool,
) -> None:
    """Boot a guest with disks of ours, run SCRIPT in it, power it off.

    SCRIPT is one of ours (--list) or a file: it is uploaded beside our scripts' modules and run there. Its standard
    output and error are passed on.
    """
    try:
        lab = choice.lab()
        guest = _the_guest(lab, on)
        system = system_of(guest)
        if listing or script is None:
            _list(system, listing=listing, as_json=as_json)
        what = find_script(script or "", arguments, system)
    except LabError as error:
        fail(error, 2)
    with signals_end_the_run(), shown(TITLES) as observer:
        relay = _relay(observer, quiet=as_json)
        orders = Orders(lab, what, guest.name, time_out, keep, logs, relay)
        result = _run(orders, observer, report_folder)
    _say(result, as_json=as_json)
    sys.exit(result.code)


def _run(orders: Orders, observer: Shown, report_folder: Path | None) -> RunResult:
    if report_folder is None:
        return run_script(orders, observer)
    try:
        return run_with_report(orders, observer, report_folder)
    except LabError as error:
        fail(error)


def _the_guest(lab: Lab, name: str | None) -> Guest:
    for guest in lab.guests:
        if name in {None, guest.name}:
            return guest
    raise LabError(f"the lab has no guest {name}", f"take one of {', '.join(g.name for g in lab.guests)}")


def _list(system: str, *, listing: bool, as_json: bool) -> NoReturn:
    if not listing:
        raise click.UsageError("say which SCRIPT; --list lists ours")
    click.echo(json.dumps(scripts(system)) if as_json else "\n".join(scripts(system)))
    sys.exit(0)


def _relay(observer: Shown, *, quiet: bool) -> Callable[[str], None]:
    """Hand on what the script says while it runs: progress lines to the bar, others as they are."""

    def relay(line: str) -> None:
        if match := PROGRESS.fullmatch(line):
            observer.detail(match[3])
            observer.progress(int(match[1]), int(match[2]))
        elif not quiet:
            observer.note(line)

    return relay


def _say(result: RunResult, *, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(result.as_json()))
    else:
        click.echo(result.stdout, nl=False)
    if result.error:
        error = LabError(result.error, result.cure, details=result.details)
        complain(error)
    if result.artefacts is not None:
        click.echo(f"Logs and results are in {result.artefacts}", err=True)
