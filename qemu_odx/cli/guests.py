"""`qemu-odx exec`, `cp`, `logs`, `shell`: into the guests of labs that are up.

May import: the lab. It owns what is shown, `lab/session/access.py` what is done.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import rich_click as click

from qemu_odx.cli import failing
from qemu_odx.cli.lab_options import LabChoice, fail, lab_options
from qemu_odx.cli.progress import shown
from qemu_odx.cli.run import TITLES
from qemu_odx.cli.values import Seconds
from qemu_odx.lab.config.options import LabOptionError
from qemu_odx.lab.errors import LabError
from qemu_odx.lab.interrupts import signals_end_the_run
from qemu_odx.lab.phases import Phases
from qemu_odx.lab.run_folder import RunFolder
from qemu_odx.lab.session.access import Place, adapter_of, copy, find_guest, log_in, ssh_command
from qemu_odx.lab.session.outcome import ExitCode
from qemu_odx.lab.session.running import SERVE_LOG, running
from qemu_odx.lab.session.supervisor import guest_record
from qemu_odx.lab.session.terminal import interact

if TYPE_CHECKING:
    from qemu_odx.lab.session.record import GuestRecord

DEFAULT_SECONDS = 600.0
LOOK_SECONDS = 0.2
LOGS = ("serial", "qemu", "serve", "qmp")


@click.command(
    name="exec", context_settings={"allow_interspersed_args": False, "ignore_unknown_options": True}
)
@click.option(
    "--time-out",
    type=Seconds(min=1),
    default=DEFAULT_SECONDS,
    show_default=True,
    metavar="SECONDS",
    help="How long the command may be silent.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object and nothing else.")
@click.argument("guest", metavar="LAB[/GUEST]")
@click.argument("words", nargs=-1, required=True, type=click.UNPROCESSED, metavar="COMMAND...")
def exec_(*, guest: str, words: tuple[str, ...], time_out: float, as_json: bool) -> None:
    """Run a command in a guest of a lab that is up; it ends with the command's exit code.

    One word is a line for the guest's shell; several are a program and its arguments.
    """
    words = words[words[0] == "--" :]
    try:
        found = find_guest(guest)[1]
        line = words[0] if len(words) == 1 else adapter_of(found).command(words)
        shell = log_in(found)
        try:
            done = shell.run(
                line, seconds=time_out, on_stderr=lambda text: None if as_json else click.echo(text, err=True)
            )
        finally:
            shell.close()
    except LabError as error:
        fail(error, ExitCode.LAB_FAILED)
    if as_json:
        click.echo(json.dumps({"exit": done.status, "stdout": done.stdout, "stderr": done.stderr}))
    else:
        click.echo(done.stdout, nl=False)
    sys.exit(done.status if done.status >= 0 else ExitCode.CRASHED)


@click.command()
@click.argument("source", metavar="[LAB[/GUEST]:]SOURCE")
@click.argument("target", metavar="[LAB[/GUEST]:]TARGET")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object and nothing else.")
def cp(*, source: str, target: str, as_json: bool) -> None:
    """Copy a file between the host and a guest of a lab that is up.

    A path with a colon in it is in a guest: lab:/tmp/x, lab/second:/tmp/x, or :/tmp/x if one lab is up.
    """
    try:
        size = copy(Place.parse(source), Place.parse(target))
    except OSError as error:
        failing.fail(error, ExitCode.FAILED)
    except LabError as error:
        fail(error)
    if as_json:
        click.echo(json.dumps({"ok": True, "bytes": size}))


@click.command()
@click.argument("guest", metavar="[LAB[/GUEST]]", required=False)
@click.option(
    "--of",
    "which",
    type=click.Choice(LOGS),
    default="serial",
    show_default=True,
    help="The guest's serial port, QEMU, the disk server, or QEMU's monitor.",
)
@click.option("-f", "--follow", is_flag=True, help="Go on until Ctrl-C or the lab's end.")
def logs(*, guest: str | None, which: str, follow: bool) -> None:
    """Show a log of a lab that is up; the guest's console (its serial port) if nothing else is asked for."""
    try:
        record, found = find_guest(guest)
    except LabError as error:
        fail(error)
    beside = Path(found.serial_log)
    common = Path(record.folder)
    file = {"serial": beside, "qemu": beside.with_name("qemu.log"), "serve": common / SERVE_LOG}.get(
        which, common / "qmp.log"
    )
    try:
        with signals_end_the_run():
            _show(file, follow=follow)
    except FileNotFoundError:
        fail(LabError(f"there is no {file}", "look whether the lab is up: qemu-odx ps"))


def _show(file: Path, *, follow: bool) -> None:
    with file.open(errors="replace") as lines:
        click.echo(lines.read(), nl=False)
        while follow and file.exists():
            click.echo(lines.read(), nl=False)
            sys.stdout.flush()
            time.sleep(LOOK_SECONDS)


@click.command(context_settings={"allow_interspersed_args": True})
@lab_options
@click.argument("guest_of", metavar="[LAB[/GUEST]]", required=False)
def shell(*, choice: LabChoice, guest_of: str | None) -> None:
    """Open a shell in a guest by ssh.

    With the name of a lab that is up: in that. Without one: a fresh guest is booted as --disk and the other options
    say, and goes when the shell ends. Exit code: the shell's.
    """
    try:
        if guest_of and choice.given:
            raise LabOptionError(f"options do not change {guest_of}, which is up", "leave out one of both")
        code = _shell_in_lab(guest_of) if guest_of else _shell_in_fresh_guest(choice)
    except LabError as error:
        fail(error, ExitCode.LAB_FAILED)
    sys.exit(code)


def _shell_in_lab(address: str) -> int:
    _, guest = find_guest(address)
    with tempfile.TemporaryDirectory(prefix="qemu-odx-shell-") as folder:
        return _ssh(guest, Path(folder))


def _shell_in_fresh_guest(choice: LabChoice) -> int:
    lab = choice.lab()
    with signals_end_the_run(), RunFolder() as run, ExitStack() as stack:
        with shown(TITLES) as observer:
            session = stack.enter_context(running(lab, run.path, Phases(observer)))
        code = _ssh(guest_record(session, lab.guests[0].name), run.path)
        session.power_off()
    return code


def _ssh(guest: GuestRecord, folder: Path) -> int:
    """The user's ssh client at this terminal, ours if there is none; the exit code of the guest's shell."""
    command = ssh_command(guest, folder)
    if command is not None:
        return subprocess.run(command, check=False).returncode
    shell = log_in(guest)
    try:
        return interact(shell.session())
    finally:
        shell.close()
