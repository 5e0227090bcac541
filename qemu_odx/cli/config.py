"""`qemu-odx config`: is a lab's file right, and what does it mean.

May import: the lab, and the server's option parsers: what `check` accepts, `serve` accepts.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import rich_click as click

from qemu_odx.cli.failing import fail
from qemu_odx.lab.catalogue import check_name
from qemu_odx.lab.config.load import load_lab
from qemu_odx.lab.config.model import disk_argument, export_argument
from qemu_odx.lab.config.table import LabFileError
from qemu_odx.lab.errors import UsageError
from qemu_odx.lab.session.machines import memory_of
from qemu_odx.server.config import parse_disk, parse_export
from qemu_odx.server.faulting.options import parse_fault
from qemu_odx.server.options import split_options

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

USAGE = 2
FILE = click.argument(
    "file", type=click.Path(path_type=Path), default=Path("odx.toml"), metavar="[FILE]", required=False
)
JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON object and nothing else.")
PARSERS: Mapping[str, Callable[[dict[str, str]], object]] = {
    "--disk": parse_disk,
    "--export": parse_export,
    "--fault": parse_fault,
}


def check_option(option: str, value: str) -> None:
    """Raise ValueError if `qemu-odx serve` would not take an option, or if there is no image for `--guest`."""
    if option == "--guest":
        try:
            check_name(value)
        except UsageError as error:
            raise ValueError(f"image: {error}") from error
    if option in PARSERS:
        PARSERS[option](split_options(value))


@click.group()
def config() -> None:
    """Look at the file of a lab (odx.toml): several disks, exports and guests.

    Exit codes: 0 it is right, 2 it is not (file, line and key are on stderr).
    """


@config.command()
@FILE
@JSON
def check(*, file: Path, as_json: bool) -> None:
    """Check a lab's file; it starts nothing."""
    try:
        lab = load_lab(file, check_option)
    except LabFileError as error:
        fail(error, USAGE, errors=[error.as_json()])
    if as_json:
        click.echo(json.dumps({"ok": True, "errors": []}))
    else:
        counts = f"{len(lab.disks)} disks, {len(lab.exports)} exports, {len(lab.guests)} guests"
        click.echo(f"{file}: {counts}: nothing is wrong")


@config.command()
@FILE
@JSON
def show(*, file: Path, as_json: bool) -> None:
    """Show what a lab's file means, with all that it leaves open filled in."""
    try:
        lab = load_lab(file, check_option)
    except LabFileError as error:
        fail(error, USAGE, errors=[error.as_json()])
    if as_json:
        lab = replace(lab, guests=tuple(replace(guest, memory=memory_of(guest)) for guest in lab.guests))
        click.echo(json.dumps(lab.as_json(), default=str))
        return
    click.echo(f"machine {lab.machine}, accelerator {lab.accelerator}")
    for disk in lab.disks:
        click.echo(f"--disk {disk_argument(disk, disk.path or Path('RUN') / f'{disk.name}.img')}")
    for export in lab.exports:
        click.echo(f"--export {export_argument(export, Path('RUN') / f'{export.name}.sock')}")
    for fault in lab.faults:
        click.echo(f"--fault {fault}")
    for guest in lab.guests:
        devices = ", ".join(guest.exports) or "no device of ours"
        click.echo(
            f"guest {guest.name}: {guest.image}, {memory_of(guest) >> 20} MiB, {guest.cpus} cpus, {devices}"
        )
