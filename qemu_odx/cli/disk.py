"""`qemu-odx disk`: the disks of a running server.

Imports `cli/monitor_client.py`, and the server's option parsing. The work is done by the server, in
`server/monitor/commands/disks.py`.
"""

from __future__ import annotations

import os
from typing import Any

import rich_click as click

from qemu_odx.cli.figures import show, size
from qemu_odx.cli.monitor_client import MonitorClient, monitor_options, print_json, tell
from qemu_odx.server.monitor.commands.disks import KINDS
from qemu_odx.server.monitor.commands.options import as_arguments
from qemu_odx.server.options import ConfigError, parse_size, split_options

_COLUMNS = ("disk", ">size", ">block", "access", "layers", "exports", ">tokens", ">pinned", "image")


@click.group()
def disk() -> None:
    """Look at the disks of a running server; add, resize and remove them while guests use others.

    The server is one that was started with `qemu-odx serve --monitor PATH`.

    Exit codes: 0 done, 1 the server refused, 2 wrong usage, 3 no server listens.
    """


@disk.command("list")
@monitor_options
def list_(monitor: str, *, as_json: bool) -> None:
    """Show every disk."""
    with MonitorClient(monitor) as server:
        disks = server.execute("query-odx-disks")
    if as_json:
        print_json(disks)
    else:
        show(_COLUMNS, (_row(item) for item in disks), nothing="there is no disk")


@disk.command()
@click.argument("options", metavar="id=ID,path=FILE[,...]")
@monitor_options
def add(options: str, monitor: str, *, as_json: bool) -> None:
    """Open a disk, with the options of `qemu-odx serve --disk`. No export shows it yet."""
    try:
        arguments = as_arguments(split_options(options), KINDS)
    except ConfigError as error:
        raise click.UsageError(str(error)) from error
    if isinstance(arguments.get("path"), str):
        arguments["path"] = os.path.abspath(str(arguments["path"]))  # noqa: PTH100  # symbolic links stay
    with MonitorClient(monitor) as server:
        server.execute("odx-disk-add", arguments)
    tell(f"{arguments['id']} is there", {"added": arguments["id"]}, as_json=as_json)


@disk.command()
@click.argument("name", metavar="ID")
@monitor_options
def remove(name: str, monitor: str, *, as_json: bool) -> None:
    """Flush and close a disk that no export shows any more. Its tokens are cancelled; its image stays."""
    with MonitorClient(monitor) as server:
        server.execute("odx-disk-remove", {"id": name})
    tell(f"{name} is closed", {"removed": name}, as_json=as_json)


@disk.command()
@click.argument("name", metavar="ID")
@click.argument("new_size", metavar="[SIZE]", required=False)
@monitor_options
def resize(name: str, new_size: str | None, monitor: str, *, as_json: bool) -> None:
    """Make a disk larger or smaller, and tell its guests.

    SIZE is a number of bytes, or one with K, M, G or T behind it. Without it, the disk follows an image that was made
    larger by other means.
    """
    try:
        wanted = parse_size(new_size) if new_size else None
    except ConfigError as error:
        raise click.UsageError(str(error)) from error
    with MonitorClient(monitor) as server:
        made = server.execute("odx-disk-resize", {"id": name, "size": wanted})
    tell(f"{name}: {size(made['size'])}", made, as_json=as_json)


def _row(item: dict[str, Any]) -> tuple[object, ...]:
    return (
        item["id"],
        size(item["size"]),
        item["block-size"],
        "read only" if item["readonly"] else "read, write",
        "+".join(item["layers"]) or "-",
        " ".join(item["exports"]) or "-",
        item["tokens"],
        size(item["pinned-bytes"]),
        item["path"],
    )
