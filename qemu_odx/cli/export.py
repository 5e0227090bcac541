"""`qemu-odx export`: the exports of a running server, and the front ends that are connected.

Imports `cli/monitor_client.py`, and the server's option parsing. The work is done by the server, in
`server/monitor/commands/exports.py`.
"""

from __future__ import annotations

import os
import re
from typing import Any

import rich_click as click

from qemu_odx.cli.figures import show
from qemu_odx.cli.monitor_client import MonitorClient, monitor_options, print_json, tell
from qemu_odx.server.monitor.commands.exports import KINDS
from qemu_odx.server.options import ConfigError, split_options

_COLUMNS = ("export", "type", "disks", "front end", ">queues", ">in flight", ">completed", "socket")
_LUN = re.compile(r"lun(\d+)")


@click.group()
def export() -> None:
    """Look at the exports of a running server; add and remove them, and their logical units, while guests run.

    The server is one that was started with `qemu-odx serve --monitor PATH`.

    Exit codes: 0 done, 1 the server refused, 2 wrong usage, 3 no server listens.
    """


@export.command("list")
@monitor_options
def list_(monitor: str, *, as_json: bool) -> None:
    """Show every export and whether a front end is connected; with --json also what was negotiated."""
    with MonitorClient(monitor) as server:
        exports = server.execute("query-odx-exports")
    if as_json:
        print_json(exports)
    else:
        show(_COLUMNS, (_row(item) for item in exports), nothing="there is no export")


@export.command()
@click.argument("options", metavar="type=TYPE,socket=PATH,...")
@monitor_options
def add(options: str, monitor: str, *, as_json: bool) -> None:
    """Listen on one more socket, with the options of `qemu-odx serve --export`."""
    try:
        arguments = _arguments(options)
    except ConfigError as error:
        raise click.UsageError(str(error)) from error
    with MonitorClient(monitor) as server:
        made = server.execute("odx-export-add", arguments)
    tell(f"{made['id']}: QEMU may connect to {made['socket']}", made, as_json=as_json)


@export.command()
@click.argument("name", metavar="ID")
@monitor_options
def remove(name: str, monitor: str, *, as_json: bool) -> None:
    """Take an export away: its guest loses the device, what is in flight is finished first."""
    with MonitorClient(monitor) as server:
        server.execute("odx-export-remove", {"id": name})
    tell(f"{name} is gone", {"removed": name}, as_json=as_json)


@export.command("add-unit")
@click.argument("name", metavar="ID")
@click.argument("lun", type=int)
@click.argument("disk")
@monitor_options
def add_unit(name: str, lun: int, disk: str, monitor: str, *, as_json: bool) -> None:
    """Show a disk as one more logical unit of a vhost-user-scsi export; its guest is told."""
    with MonitorClient(monitor) as server:
        server.execute("odx-unit-add", {"export": name, "lun": lun, "disk": disk})
    tell(f"{name}: {disk} is logical unit {lun}", {"export": name, "lun": lun, "disk": disk}, as_json=as_json)


@export.command("remove-unit")
@click.argument("name", metavar="ID")
@click.argument("lun", type=int)
@monitor_options
def remove_unit(name: str, lun: int, monitor: str, *, as_json: bool) -> None:
    """Take a logical unit away; its guest is told, and finds 25/00 there."""
    with MonitorClient(monitor) as server:
        server.execute("odx-unit-remove", {"export": name, "lun": lun})
    tell(f"{name}: logical unit {lun} is gone", {"export": name, "removed": lun}, as_json=as_json)


def _arguments(text: str) -> dict[str, object]:
    """What was given on the command line as arguments: `lun0=d0` becomes a unit, paths absolute."""
    arguments: dict[str, object] = {}
    units = []
    for key, value in split_options(text).items():
        if found := _LUN.fullmatch(key):
            units.append({"lun": int(found[1]), "disk": value})
        elif KINDS.get(key) is int and value.isdecimal():
            arguments[key] = int(value)
        else:
            arguments[key] = os.path.abspath(value) if key == "socket" else value  # noqa: PTH100
    return {**arguments, "units": units} if units else arguments


def _row(item: dict[str, Any]) -> tuple[object, ...]:
    queues = item.get("connection", {}).get("queues", [])
    disks = [unit["disk"] for unit in item["units"]]
    if item["type"] == "vhost-user-scsi":
        disks = [f"{unit['lun']}:{unit['disk']}" for unit in item["units"]]
    return (
        item["id"],
        item["type"].removeprefix("vhost-user-"),
        " ".join(disks),
        "connected" if "connection" in item else "-",
        sum(queue["state"] == "running" for queue in queues),
        sum(queue["in-flight"] for queue in queues),
        sum(queue["completed"] for queue in queues),
        item["socket"],
    )
