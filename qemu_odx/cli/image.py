"""`qemu-odx image`: the guests' images: which there are, build, verify, remove; tables, or one JSON object.

May import: the lab. It owns what is shown, `lab/catalogue.py`, `lab/image.py` and `lab/windows_image` what is done.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import rich_click as click
from rich.table import Table

from qemu_odx.cli.console import stdout_console
from qemu_odx.cli.lab_options import fail
from qemu_odx.cli.progress import shown
from qemu_odx.cli.values import Seconds
from qemu_odx.lab import catalogue
from qemu_odx.lab.errors import LabError
from qemu_odx.lab.image import ensure_image
from qemu_odx.lab.interrupts import signals_end_the_run
from qemu_odx.lab.phases import Phases

if TYPE_CHECKING:
    from qemu_odx.lab.catalogue import Entry
    from qemu_odx.lab.phases import Observer

TITLES = {
    "image": "Guest image",
    "verify": "Hashes",
    "media": "Media",
    "answers": "Answer disc",
    "install": "Installation",
    "flatten": "One disk",
    "check": "First login",
    "seal": "Digests",
}
MEBIBYTE = 1 << 20
AS_JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON object and nothing else.")
ISO = click.Path(dir_okay=False, path_type=Path)


@click.group()
def image() -> None:
    """The images guests boot from: list, build, verify, remove.

    They are kept under $XDG_CACHE_HOME/qemu-odx/images.
    """


@image.command("list")
@AS_JSON
def list_(*, as_json: bool) -> None:
    """Every image there is a recipe for, and every Windows that is there or begun.

    Exit codes: 0 all went well, 1 it could not be done.
    """
    try:
        entries = catalogue.entries()
    except LabError as error:
        fail(error)
    if as_json:
        click.echo(json.dumps({"images": [entry.as_json() for entry in entries]}))
        return
    table = Table("image", "kind", "digest", "MiB", "", title="Guest images", title_justify="left")
    table.columns[3].justify = "right"
    for entry in entries:
        size = f"{entry.size / MEBIBYTE:,.0f}" if entry.built else ""
        table.add_row(entry.name, entry.kind, entry.digest, size, _state(entry))
    stdout_console().print(table)


def _state(entry: Entry) -> str:
    if not entry.built:
        return f"not built: {entry.build_command}"
    return str(entry.facts.get("version", "built"))


@image.command()
@click.argument("name")
@click.option("--iso", type=ISO, metavar="FILE", help="windows: the installation medium. Needed.")
@click.option("--virtio-iso", type=ISO, metavar="FILE", help="windows: the virtio-win drivers. Needed.")
@click.option("--edition", metavar="EDITION", help="windows: number, name or identifier of the image on it.")
@click.option("--as", "as_name", metavar="NAME", help="windows: name of the result, to have several.")
@click.option("--openssh", type=ISO, metavar="ZIP", help="windows: OpenSSH-Win64.zip; before Server 2025.")
@click.option("--product-key", metavar="KEY", help="windows: for media that are no evaluation.")
@click.option("--test-signing", is_flag=True, help="windows: let it load test-signed drivers.")
@click.option(
    "--hours",
    type=Seconds(min=0, min_open=True),
    default=4.0,
    show_default=True,
    help="windows: limit of the installation.",
)
@AS_JSON
def build(*, name: str, as_json: bool, **wishes: Any) -> None:
    """Build the image NAME, unless it is there: linux, wine, another recipe, or windows.

    windows installs itself from your medium, in steps that are remembered: after Ctrl-C or a failure the same
    command goes on where it was. With KVM others report 10 to 25 minutes for such an installation.

    Exit codes: 0 it is there, 1 it could not be built, 2 wrong usage.
    """
    try:
        with signals_end_the_run(), shown(TITLES) as observer:
            folder = _build_windows(wishes, observer) if name == "windows" else _build(name, wishes, observer)
    except LabError as error:
        fail(error)
    if as_json:
        click.echo(json.dumps({"ok": True, "name": name, "folder": str(folder)}))
    else:
        click.echo(str(folder))


def _build(name: str, wishes: dict[str, Any], observer: Observer) -> Path:
    given = [option for option, value in wishes.items() if value and option != "hours"]
    if given:
        option = "as" if given[0] == "as_name" else given[0].replace("_", "-")
        raise click.UsageError(f"--{option} is for windows only")
    with Phases(observer).phase("image"):
        return ensure_image(name, report=observer.detail).folder


def _build_windows(wishes: dict[str, Any], observer: Observer) -> Path:
    from qemu_odx.lab.windows_image.build import WindowsBuild, Wishes  # noqa: PLC0415 - ISO and template libraries

    for option in ("iso", "virtio_iso"):
        if wishes[option] is None:
            raise click.UsageError(f"windows needs --{option.replace('_', '-')} FILE")
    wanted = Wishes(
        iso=wishes["iso"],
        virtio_iso=wishes["virtio_iso"],
        name=wishes["as_name"] or "windows",
        edition=wishes["edition"],
        openssh_zip=wishes["openssh"],
        product_key=wishes["product_key"],
        test_signing=wishes["test_signing"],
        hours=wishes["hours"],
    )
    return WindowsBuild(wanted, observer).run().folder


@image.command()
@click.argument("names", nargs=-1)
@AS_JSON
def verify(*, names: tuple[str, ...], as_json: bool) -> None:
    """Compare the files of images with the digests of when they were built; of all that are built if none is named.

    Exit codes: 0 all are as they were, 1 one is not, or is not there.
    """
    try:
        wanted = [catalogue.find_entry(name) for name in names]
        wanted = wanted or [entry for entry in catalogue.entries() if entry.built and entry.facts]
        with signals_end_the_run(), shown(TITLES) as observer:
            wrong = {entry.name: _verify(entry, observer) for entry in wanted}
    except LabError as error:
        fail(error)
    ok = not any(wrong.values())
    if as_json:
        click.echo(json.dumps({"ok": ok, "images": wrong}))
    else:
        for name, found in wrong.items():
            click.echo(f"{name}: {'; '.join(found) or 'as it was built'}")
    sys.exit(0 if ok else 1)


def _verify(entry: Entry, observer: Observer) -> list[str]:
    with Phases(observer).phase("verify"):
        observer.detail(entry.name)
        return catalogue.verify(entry, observer.progress)


@image.command()
@click.argument("name")
@AS_JSON
def remove(*, name: str, as_json: bool) -> None:
    """Remove an image, with those of older recipes of its name and what is left of unfinished builds.

    Exit codes: 0 it is gone, 1 there was none.
    """
    try:
        removed = catalogue.remove(name)
    except LabError as error:
        fail(error)
    if as_json:
        click.echo(json.dumps({"ok": True, "removed": [str(folder) for folder in removed]}))
    else:
        for folder in removed:
            click.echo(f"removed {folder}")
