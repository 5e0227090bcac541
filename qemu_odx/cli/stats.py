"""`qemu-odx stats`: how many requests a running server had, and how long they took.

Imports `cli/monitor_client.py`. The work is done by the server, in `server/monitor/commands/statistics.py`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import rich_click as click

from qemu_odx.cli.figures import latency, mean, percentile, show, size
from qemu_odx.cli.monitor_client import MonitorClient, monitor_options, print_json

if TYPE_CHECKING:
    from collections.abc import Iterator

_QUEUES = ("export", ">queue", "requests", ">count", ">mean", ">50% below", ">99% below")
_OPERATIONS = (
    *("export", ">queue", "operation", ">count", ">errors", ">data"),
    *(">queued, mean", ">99% below", ">served, mean", ">99% below"),
)


@click.command()
@click.option("--export", metavar="ID", help="Only this export.")
@click.option(
    "--by-operation",
    type=click.Choice(["on", "off"]),
    help="First begin or end to time every operation by name. It costs speed while it is on.",
)
@click.option("--reset", is_flag=True, help="Begin anew with all numbers, after showing them.")
@monitor_options
def stats(monitor: str, *, export: str | None, by_operation: str | None, reset: bool, as_json: bool) -> None:
    """Show how many requests a running server had and how long they took, by queue and by operation.

    By queue it is always known, by operation while --by-operation is on. Times are in buckets that double:
    "99% below 64 µs" means between 32 and 64 µs or better.

    Exit codes: 0 done, 1 the server refused, 2 wrong usage, 3 no server listens.
    """
    with MonitorClient(monitor) as server:
        if by_operation:
            server.execute(f"odx-statistics-{'start' if by_operation == 'on' else 'stop'}")
        told = server.execute("query-odx-statistics", {"export": export})
        if reset:
            server.execute("odx-statistics-reset")
    if as_json:
        print_json(told)
        return
    show(_QUEUES, _queue_rows(told), nothing="there were no requests")
    if any(item["operations"] for item in told["exports"]):
        show(_OPERATIONS, _operation_rows(told), nothing="none was timed")


def _queue_rows(told: dict[str, Any]) -> Iterator[tuple[object, ...]]:
    for item in told["exports"]:
        for queue in item["queues"]:
            for kind in ("batched", "alone"):
                if queue[kind]["count"]:
                    yield item["export"], queue["queue"], kind, queue[kind]["count"], *_times(queue[kind])


def _operation_rows(told: dict[str, Any]) -> Iterator[tuple[object, ...]]:
    for item in told["exports"]:
        for row in item["operations"]:
            waits = (*_times(row["queued"])[::2], *_times(row["served"])[::2])
            yield (
                item["export"],
                row.get("queue", "mailbox"),
                row["operation"],
                row["served"]["count"],
                row["errors"],
                size(row["bytes"]),
                *waits,
            )


def _times(histogram: dict[str, Any]) -> tuple[str, str, str]:
    return (
        latency(mean(histogram)),
        latency(percentile(histogram, 0.5)),
        latency(percentile(histogram, 0.99)),
    )
