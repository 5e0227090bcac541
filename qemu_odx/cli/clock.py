"""`qemu-odx clock`: the time of a running server.

Imports `cli/monitor_client.py`. The work is done by the server, in `server/monitor/commands/clock.py`.
"""

from __future__ import annotations

import re
from typing import Any

import rich_click as click

from qemu_odx.cli.monitor_client import MonitorClient, monitor_options, print_json
from qemu_odx.cli.values import Seconds

_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|min|h|d)?")
_SECONDS = {"ms": 0.001, "s": 1.0, "min": 60.0, "h": 3600.0, "d": 86400.0}


@click.group()
def clock() -> None:
    """Look at the clock of a running server, and let its time pass.

    Tokens expire and delays end by this clock. It is the system's, unless the server was started with
    `qemu-odx serve --clock virtual --monitor PATH`: then time stands still until it is told to pass.

    Exit codes: 0 done, 1 the server refused, 2 wrong usage, 3 no server listens.
    """


@clock.command()
@monitor_options
def show(monitor: str, *, as_json: bool) -> None:
    """Show which clock it is, its time, and when something is due."""
    with MonitorClient(monitor) as server:
        told = server.execute("query-odx-clock")
    if as_json:
        print_json(told)
    else:
        click.echo(_text(told))


@clock.command()
@click.argument("duration", metavar="DURATION")
@monitor_options
def advance(duration: str, monitor: str, *, as_json: bool) -> None:
    """Let time pass: what is due on the way happens at its own time, in its order.

    DURATION is a number of seconds, or one with ms, s, min, h or d behind it: 250ms, 1.5, 10min.
    """
    seconds = _parse(duration)
    with MonitorClient(monitor) as server:
        told = server.execute("odx-clock-advance", {"seconds": seconds})
    if as_json:
        print_json(told)
    else:
        click.echo(f"now {told['now']:.6g} s; {told['calls']} came due")


def _parse(text: str) -> float:
    found = _DURATION.fullmatch(text)
    if not found:
        raise click.UsageError(f"'{text}' is no duration; write seconds, or a number with ms, s, min, h or d")
    return Seconds().convert(found[1], None, None) * _SECONDS[found[2] or "s"]


def _text(told: dict[str, Any]) -> str:
    if told["clock"] == "real":
        return "the system's clock: time passes by itself"
    due = f"the first in {told['next']:.6g} s" if "next" in told else "nothing is due"
    return f"virtual clock: {told['now']:.6g} s since the start, {told['waiting']} waiting, {due}"
