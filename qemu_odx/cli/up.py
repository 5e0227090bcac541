"""`qemu-odx up`, `down`, `ps`: labs that stay until they are taken down.

May import: the lab. It owns what is shown, `lab/session` what is done.
"""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

import rich_click as click
from rich.table import Table
from rich.text import Text

from qemu_odx.cli.console import stdout_console
from qemu_odx.cli.lab_options import LabChoice, complain, fail, lab_options
from qemu_odx.cli.progress import shown
from qemu_odx.cli.run import TITLES
from qemu_odx.lab.errors import LabError
from qemu_odx.lab.interrupts import let_nothing_interrupt, signals_end_the_run
from qemu_odx.lab.session.record import records, the_record
from qemu_odx.lab.session.up import bring_up, take_down

if TYPE_CHECKING:
    from qemu_odx.lab.session.record import LabRecord

DEFAULT_NAME = "lab"
JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON and nothing else.")


@click.command()
@lab_options
@click.argument("name", required=False)
@JSON
def up(*, choice: LabChoice, name: str | None, as_json: bool) -> None:
    """Bring a lab up and leave it running: disks and guests, logged in to and ready.

    NAME is what the other commands call it (default: the name of --lab's file, or 'lab'). A process of its own keeps
    it; qemu-odx down takes it away without a trace.
    """
    name = name or (choice.file.stem if choice.file else DEFAULT_NAME)
    try:
        lab = choice.lab()
        with signals_end_the_run():
            record = bring_up(name, lab, lambda: shown(TITLES), let_nothing_interrupt)
    except LabError as error:
        fail(error)
    if as_json:
        click.echo(json.dumps(_as_json(record)))
        return
    click.echo(f"{record.name} is up: {', '.join(_guest_words(record))}")
    click.echo(
        f"qemu-odx shell {record.name}   qemu-odx exec {record.name} COMMAND   qemu-odx down {record.name}"
    )


@click.command()
@click.argument("names", nargs=-1)
@click.option("--all", "everything", is_flag=True, help="Every lab that is up.")
@click.option("--now", is_flag=True, help="End the machines at once instead of shutting the guests down.")
@JSON
def down(*, names: tuple[str, ...], everything: bool, now: bool, as_json: bool) -> None:
    """Take labs down: guests, disk server, thrown-away disks, sockets, records.

    NAMES may be left out if only one is up. A lab whose own process was killed is cleaned up after.
    """
    try:
        doomed = _chosen(names, everything=everything)
    except LabError as error:
        fail(error)
    errors = []
    for record in doomed:
        try:
            take_down(record, now=now)
        except LabError as error:
            complain(error)
            errors.append(str(error))
        if not as_json:
            click.echo(f"{record.name} is down")
    if as_json:
        told = {"error": ", and ".join(errors)} if errors else {}
        click.echo(json.dumps({"ok": not errors, "down": [record.name for record in doomed], **told}))
    sys.exit(1 if errors else 0)


def _chosen(names: tuple[str, ...], *, everything: bool) -> list[LabRecord]:
    if everything:
        return records()
    return [the_record(name) for name in names] if names else [the_record(None)]


@click.command()
@JSON
def ps(*, as_json: bool) -> None:
    """List the labs that are up, with their guests and how to reach them."""
    found = records()
    if as_json:
        click.echo(json.dumps([_as_json(record) for record in found]))
        return
    if not found:
        click.echo("no lab is up", err=True)
        return
    table = Table("lab", "state", "guests", "disks", "since", box=None, pad_edge=False)
    for record in found:
        disks = ", ".join(record.disks)
        row = (record.name, _state(record), ", ".join(_guest_words(record)), disks, record.since)
        table.add_row(*(Text(cell) for cell in row))
    stdout_console().print(table)


def _state(record: LabRecord) -> str:
    return "up" if record.supervisor.alive else "dead"


def _guest_words(record: LabRecord) -> list[str]:
    """Each guest, with its ssh port, or that it is off."""
    words = []
    for guest in record.guests:
        off = guest.process is not None and not guest.process.alive
        words.append(f"{guest.name} {'off' if off else f'({guest.user}@127.0.0.1:{guest.port})'}")
    return words


def _as_json(record: LabRecord) -> dict[str, Any]:
    return {"state": _state(record), **record.as_json()}
