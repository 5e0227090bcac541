"""`qemu-odx power`: the crash of the host, for the disks of a running server that have the layer `power-cut`.

Imports `cli/monitor_client.py`. The work is done by the server, in `server/monitor/commands/power.py`.
"""

from __future__ import annotations

from pathlib import Path

import rich_click as click

from qemu_odx.cli.monitor_client import MonitorClient, NoServerError, monitor_options, print_json


@click.group()
def power() -> None:
    """Cut the power under a running server, or see what a cut would leave.

    For disks with the layer `power-cut` (docs/layers.md). The server is one that was started with
    `qemu-odx serve --monitor PATH`.

    Exit codes: 0 done, 1 the server refused, 2 wrong usage, 3 no server listens.
    """


@power.command()
@monitor_options
def cut(monitor: str, *, as_json: bool) -> None:
    """Cut it: such disks lose some of what was not flushed, all tokens are cancelled, the server ends at once."""
    with MonitorClient(monitor) as server:
        try:
            server.execute("odx-power-cut")
        except NoServerError:
            if as_json:
                print_json({"cut": True})
            else:
                click.echo("the power was cut; the server's log says what was lost")


@power.command()
@click.option("--disk", metavar="ID", required=True, help="The disk.")
@click.option("--image", metavar="FILE", required=True, help="A new file for what a cut now would leave.")
@click.option(
    "--seed", metavar="N", type=click.IntRange(0), help="Of the random choice; the same loses the same."
)
@monitor_options
def picture(disk: str, image: str, seed: int | None, monitor: str, *, as_json: bool) -> None:
    """Write a disk as a cut now would leave it into a new file; everything goes on."""
    arguments = {"disk": disk, "image": str(Path(image).absolute()), "seed": seed}
    with MonitorClient(monitor) as server:
        found = server.execute("odx-power-cut", arguments)
    if as_json:
        print_json(found)
    else:
        lost = f"{found['lost']} of {found['volatile']} blocks that were not flushed are lost"
        click.echo(f"{image}: {lost} (seed {found['seed']})")
