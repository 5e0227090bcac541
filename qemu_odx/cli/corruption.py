"""`qemu-odx corruption`: what the verify layers of a running server have found.

Imports `cli/monitor_client.py`. The work is done by the server, in `server/monitor/commands/corruption.py`.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import rich_click as click

from qemu_odx.cli.monitor_client import MonitorClient, monitor_options, print_json

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

WRONG = 4
"""Exit code if any block was wrong."""


@click.group()
def corruption() -> None:
    """Hunt silent corruption: wrong blocks on the disks of a running server, with who wrote them.

    For disks with the layer `verify` (docs/layers.md). The server is one that was started with
    `qemu-odx serve --monitor PATH`.

    Exit codes: 0 no block was wrong, 1 the server refused, 2 wrong usage, 3 no server listens, 4 wrong blocks.
    """


@corruption.command()
@click.option("--disk", metavar="ID", help="Only this disk.")
@monitor_options
def show(disk: str | None, monitor: str, *, as_json: bool) -> None:
    """Show every wrong block found so far, and the requests that were at it."""
    with MonitorClient(monitor) as server:
        found = server.execute("query-odx-corruption", {"disk": disk})
    _tell(found, as_json=as_json)


@corruption.command()
@click.option("--disk", metavar="ID", required=True, help="The disk.")
@monitor_options
def scan(disk: str, monitor: str, *, as_json: bool) -> None:
    """Look at every block of a disk now, beside its guests."""
    with MonitorClient(monitor) as server:
        found = [server.execute("odx-corruption-scan", {"disk": disk})]
    _tell(found, as_json=as_json)


def _tell(found: Iterable[Mapping[str, Any]], *, as_json: bool) -> None:
    found = list(found)
    if as_json:
        print_json(found)
    else:
        for disk in found:
            for block in disk["blocks"]:
                click.echo(block["text"])
            click.echo(f"disk {disk['disk']}: {disk['wrong']} wrong of {disk['checked']} blocks compared")
    if any(disk["wrong"] for disk in found):
        sys.exit(WRONG)
