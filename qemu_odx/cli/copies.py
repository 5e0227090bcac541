"""`qemu-odx copy`: the copy operations that run in a server.

Imports `cli/monitor_client.py`. The work is done by the server, in `server/monitor/commands/copies.py`.
"""

from __future__ import annotations

from typing import Any

import rich_click as click

from qemu_odx.cli.figures import period, show, size
from qemu_odx.cli.monitor_client import MonitorClient, monitor_options, print_json

COLUMNS = (">copy", "command", "mode", "disks", ">done", ">of", ">%", ">rate", ">running for", "owner")


@click.group()
def copy() -> None:
    """Look at the copies that run in a server, and stop them.

    The server is one that was started with `qemu-odx serve --monitor PATH`.

    Exit codes: 0 done, 1 the server refused, 2 wrong usage, 3 no server listens.
    """


@copy.command("list")
@monitor_options
def list_(monitor: str, *, as_json: bool) -> None:
    """Show every copy that runs now, with its progress and rate."""
    with MonitorClient(monitor) as server:
        copies = server.execute("query-odx-copies")
    if as_json:
        print_json(copies)
    else:
        show(COLUMNS, (row(item) for item in copies), nothing="no copy runs")


@copy.command()
@click.argument("number", type=int, metavar="COPY")
@monitor_options
def abort(number: int, monitor: str, *, as_json: bool) -> None:
    """Stop a copy at its next step, and wait for its end. What was written stays written."""
    with MonitorClient(monitor) as server:
        server.execute("odx-copy-abort", {"copy": number})
    if as_json:
        print_json({"aborted": number})
    else:
        click.echo(f"copy {number} has ended")


def row(item: dict[str, Any]) -> tuple[object, ...]:
    """A copy as a row of the table."""
    share = f"{100 * item['done'] / item['total']:.0f}" if item["total"] else "-"
    return (
        item["copy"],
        item["command"],
        "aborting" if item["aborting"] else item["mode"],
        " ".join(item["disks"]),
        size(item["done"]),
        size(item["total"]),
        share,
        f"{size(round(item['rate']))}/s" if "rate" in item else "-",
        period(item["elapsed"]),
        item["owner"].partition("#")[0],
    )
