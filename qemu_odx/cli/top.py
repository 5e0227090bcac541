"""`qemu-odx top`: what a running server does, on a screen that lives, or once for scripts.

Imports `cli/monitor_client.py`. `cli/top_view.py` draws what is sampled here.
"""

from __future__ import annotations

import json
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import rich_click as click
from rich.live import Live

from qemu_odx.cli.console import stdout_console
from qemu_odx.cli.figures import mean, merged, percentile, since
from qemu_odx.cli.monitor_client import MonitorClient, monitor_options
from qemu_odx.cli.top_view import screen
from qemu_odx.cli.values import Seconds

if TYPE_CHECKING:
    from collections.abc import Iterator

_TOKENS = 100


@dataclass(slots=True)
class Sample:
    """What the server told at one moment.

    Attributes:
        at: seconds, of this machine's clock.
        numbers: histograms of each export, all its queues together.
    """

    at: float
    told: dict[str, Any]
    numbers: dict[str, dict[str, Any]]


@click.command()
@click.option(
    "--interval",
    type=Seconds(0.1, 3600),
    default=1.0,
    help="Seconds between two looks; 1 by default.",
)
@click.option("--count", type=click.IntRange(1), help="End after so many looks; 1 when not on a terminal.")
@monitor_options
def top(monitor: str, *, interval: float, count: int | None, as_json: bool) -> None:
    """Watch a running server: exports and their latencies, copies and their progress, tokens, disks.

    Ends with Ctrl-C. When not on a terminal, or with --json, it looks once, for one interval. --json prints a line
    for each look.

    Exit codes: 0 done, 2 wrong usage, 3 no server listens.
    """
    alive = sys.stdout.isatty() and not as_json
    looks = count or (None if alive else 1)
    with MonitorClient(monitor) as server:
        frames = _frames(server, interval, looks)
        try:
            if as_json:
                for frame in frames:
                    click.echo(json.dumps(frame))
            elif alive:
                _live(frames)
            else:
                for frame in frames:
                    stdout_console().print(screen(frame))
        except KeyboardInterrupt:
            return


def _live(frames: Iterator[dict[str, Any]]) -> None:
    with Live(console=stdout_console(), screen=True, auto_refresh=False) as live:
        for frame in frames:
            live.update(screen(frame), refresh=True)


def _frames(server: MonitorClient, interval: float, looks: int | None) -> Iterator[dict[str, Any]]:
    """What to show, look by look: rates are those of the interval before."""
    before = _sample(server)
    while looks is None or looks > 0:
        time.sleep(interval)
        now = _sample(server)
        yield _frame(before, now)
        before = now
        looks = None if looks is None else looks - 1


def _sample(server: MonitorClient) -> Sample:
    told = {noun: server.execute(f"query-odx-{noun}") for noun in ("exports", "disks", "copies", "clock")}
    told["tokens"] = server.execute("query-odx-tokens", {"limit": _TOKENS})
    numbers = server.execute("query-odx-statistics")["exports"]
    by_export = {
        item["export"]: merged(queue[kind] for queue in item["queues"] for kind in ("batched", "alone"))
        for item in numbers
    }
    return Sample(time.monotonic(), told, by_export)


def _frame(before: Sample, now: Sample) -> dict[str, Any]:
    """A sample with the rates of the interval that it ends."""
    seconds = now.at - before.at
    exports = []
    for item in now.told["exports"]:
        numbers = now.numbers.get(item["id"], merged([]))
        fresh = since(numbers, before.numbers.get(item["id"]))
        exports.append(
            {
                "id": item["id"],
                "type": item["type"],
                "units": item["units"],
                "connected": "connection" in item,
                "in-flight": sum(
                    queue["in-flight"] for queue in item.get("connection", {}).get("queues", [])
                ),
                "requests": numbers["count"],
                "requests-per-second": round(fresh["count"] / seconds, 1),
                "mean-microseconds": mean(fresh),
                "percentile-99-microseconds": percentile(fresh, 0.99),
            }
        )
    return {"interval": seconds, **now.told, "exports": exports}
