"""`qemu-odx demo`: a real guest copies data by token and proves it; a table, or one JSON object.

May import: the lab. It owns what is shown, the lab what is done.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import rich_click as click
from rich.console import Console
from rich.table import Table

from qemu_odx.cli.demo_report import reported
from qemu_odx.cli.demo_wine import print_wine_result
from qemu_odx.cli.lab_options import fail, report_option
from qemu_odx.cli.progress import shown
from qemu_odx.lab.demo import Cost, DemoResult, run_demo
from qemu_odx.lab.errors import LabError
from qemu_odx.lab.interrupts import signals_end_the_run
from qemu_odx.lab.wine import WineResult, run_wine_demo

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


PHASE_TITLES = {
    "image": "Guest image",
    "serve": "Disk server",
    "boot": "Boot and log in",
    "copy": "Copy and check",
    "power_off": "Power off",
}
HASH_TITLES = {
    "source_before": "source, when the token was made",
    "source_after": "source, overwritten before the copy",
    "destination": "destination",
    "destination_through_blk": "destination by virtio-blk",
}
SHOWN_DIGITS = 32  # of 64: enough to compare by eye on a line of 80; --json has them all


@click.command()
@click.option(
    "--guest",
    type=click.Choice(["linux", "wine"]),
    default="linux",
    show_default=True,
    help="wine: Windows' offload IOCTL from a Windows program through our filter driver, under Wine.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object and nothing else.")
@report_option
def demo(*, guest: str, as_json: bool, report_folder: Path | None) -> None:
    """Boot a guest on our disks, copy by token, overwrite the source in between, and check the data.

    Needs QEMU and, the first time, the network for the guest's packages.
    """
    run: Callable[..., DemoResult | WineResult] = run_demo if guest == "linux" else run_wine_demo
    try:
        with signals_end_the_run(), shown(PHASE_TITLES) as observer:
            result = run(observer) if report_folder is None else reported(run, observer, report_folder)
    except LabError as error:
        fail(error)
    if as_json:
        click.echo(json.dumps(result.as_json()))
    else:
        _print(result)


def _print(result: DemoResult | WineResult) -> None:
    if isinstance(result, DemoResult):
        _print_result(Console(), result)
    else:
        print_wine_result(Console(), result)


def _print_result(console: Console, result: DemoResult) -> None:
    table = Table(
        "", "bytes", "seconds", "bytes across the ring", title="Two ways to copy", title_justify="left"
    )
    for column in table.columns[1:]:
        column.justify = "right"
    table.add_row("by token", *_cells(result.token_copy))
    table.add_row("by read and write", *_cells(result.plain_copy))
    hashes = Table("SHA-256 of", "", title="What the guest read", title_justify="left")
    for name, title in HASH_TITLES.items():
        hashes.add_row(title, f"{result.sha256[name][:SHOWN_DIGITS]}…")
    console.print(table, hashes, sep="\n")
    total = sum(result.phases.values())
    console.print(f"Guest: {result.guest}, {result.accelerator}; {total:.1f} s in all.", highlight=False)
    console.print(
        "[green]OK[/]: the data of before the overwrite arrived, by either device.", highlight=False
    )


def _cells(cost: Cost) -> tuple[str, str, str]:
    return f"{cost.bytes:,}", f"{cost.seconds:.3f}", f"{cost.ring_bytes:,}"
