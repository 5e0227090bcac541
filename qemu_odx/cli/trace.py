"""`qemu-odx trace`: look at a recorded trace, cut it, count it, merge it with what a Windows guest saw.

Imports `trace/` and `monitor_client`. Recording is `qemu-odx serve --trace FILE`; running a trace again is
`qemu-odx replay`.
"""

from __future__ import annotations

import json
import os
import re
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import rich_click as click
from rich.console import Console
from rich.table import Table

from qemu_odx.cli.failing import fail
from qemu_odx.cli.monitor_client import MonitorClient, monitor_options, print_json
from qemu_odx.cli.values import NewFile
from qemu_odx.trace import text
from qemu_odx.trace.merge import from_windows, merge
from qemu_odx.trace.reading import Trace, TraceError, open_trace
from qemu_odx.trace.schema import EVENTS
from qemu_odx.trace.select import Selection
from qemu_odx.trace.stats import statistics
from qemu_odx.trace.timeline import timeline
from qemu_odx.wire.scsi.spans import Span

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from qemu_odx.trace.schema import Record

_FAILED = 1
_CUT = "{}: the last line is not whole and was left out"
_WIDTH = 120
"""Columns of a table that no terminal shows."""
_FILE = click.Path(path_type=Path)
_OUTPUT = click.option(
    "-o", "--output", type=NewFile(), metavar="FILE", help="Write there instead of standard output."
)


@click.group()
def trace() -> None:
    """Show, filter, count and merge traces, recorded by `serve --trace FILE`.

    Exit codes: 0 done, 1 the file is no whole trace or cannot be read (one sentence says why), 2 wrong usage.
    """


def _blocks(_ctx: click.Context, _param: click.Parameter, value: str | None) -> Span | None:
    """`LBA`, `FIRST-LAST` or `LBA+BLOCKS`."""
    if value is None:
        return None
    match = re.fullmatch(r"(\d+)(?:([-+])(\d+))?", value)
    if match is None:
        raise click.BadParameter(f"'{value}' is neither LBA nor FIRST-LAST nor LBA+BLOCKS")
    lba, last = int(match[1]), int(match[3] or 1)
    return Span(lba, last - lba + 1 if match[2] == "-" else last)


def _selecting(command: Callable[..., None]) -> Callable[..., None]:
    """The options that choose records; the command gets a `Selection`."""
    options = (
        click.option(
            "--event", "events", multiple=True, type=click.Choice(EVENTS), help="Only such records."
        ),
        click.option("--export", metavar="ID", help="Only this export."),
        click.option("--disk", metavar="ID", help="Only this disk."),
        click.option("--op", metavar="NAME", help="Only this operation; 'READ*' for many."),
        click.option(
            "--token", metavar="HEX", help="Only what is about this token (first digits, or 'zero')."
        ),
        click.option(
            "--lba", callback=_blocks, metavar="BLOCKS", help="Only what names these: N, N-M or N+COUNT."
        ),
        click.option("--errors", is_flag=True, help="Only what went wrong."),
        click.option(
            "--since", type=float, metavar="SECONDS", help="Only from then on, from the trace's beginning."
        ),
        click.option("--until", type=float, metavar="SECONDS", help="Only up to then."),
    )
    for option in reversed(options):
        command = option(command)
    return command


def _selection(given: dict[str, Any]) -> Selection:
    return Selection(
        events=frozenset(given["events"]),
        export=given["export"],
        disk=given["disk"],
        operation=given["op"],
        token=given["token"],
        blocks=given["lba"],
        errors=given["errors"],
        since=given["since"],
        until=given["until"],
    )


@trace.command()
@click.argument("file", type=_FILE)
@_selecting
@click.option("--json", "as_json", is_flag=True, help="Print the records as JSON lines.")
def show(file: Path, *, as_json: bool, **given: Any) -> None:
    """Print a trace, one line a record."""
    with _telling(file) as opened:
        wanted = _selection(given).of(opened)
        _print(map(_json_line, wanted) if as_json else text.lines(wanted))


@trace.command("filter")
@click.argument("file", type=_FILE)
@_selecting
@_OUTPUT
def filter_(file: Path, *, output: Path | None, **given: Any) -> None:
    """Write the records that are wanted as a trace of their own."""
    with _telling(file) as opened:
        _write(map(_json_line, _selection(given).of(opened)), file, output)


@trace.command()
@click.argument("file", type=_FILE)
@_selecting
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def stats(file: Path, *, as_json: bool, **given: Any) -> None:
    """Count requests and errors, tell how long they took and how tokens lived."""
    with _telling(file) as opened:
        found = statistics(_selection(given).of(opened))
        if not as_json:
            _show_stats(found)
        elif opened.cut:
            fail(_CUT.format(file), _FAILED, **found)
        else:
            _print([json.dumps(found)])


@trace.command("timeline")
@click.argument("file", type=_FILE)
@_selecting
def timeline_(file: Path, **given: Any) -> None:
    """Print lanes of bars and marks as one JSON object, for a page that draws them."""
    with _telling(file) as opened:
        _print([json.dumps(timeline(_selection(given).of(opened)))])


@trace.command("merge")
@click.argument("file", type=_FILE)
@click.option(
    "--windows", "windows_files", type=_FILE, multiple=True, metavar="FILE", help="What odx.exe printed."
)
@click.option(
    "--clock-offset",
    type=float,
    default=0.0,
    metavar="SECONDS",
    help="How far the guest's clock is ahead of ours.",
)
@_OUTPUT
def merge_(file: Path, *, windows_files: tuple[Path, ...], clock_offset: float, output: Path | None) -> None:
    """Put the IOCTLs that a Windows guest made into a server's trace, by the time of day."""
    with _telling(file) as opened:
        others = [from_windows(path, offset=clock_offset) for path in windows_files]
        _write(map(_json_line, merge(opened, others)), file, output)


@trace.command()
@click.argument("file", type=_FILE)
@click.option(
    "--data", type=click.Choice(["off", "on", "full"]), default="off", help="With the data of requests."
)
@click.option("--event", "events", multiple=True, type=click.Choice(EVENTS), help="Only such records.")
@monitor_options
def start(file: Path, *, data: str, events: tuple[str, ...], monitor: str, as_json: bool) -> None:
    """Let a running server record to FILE from now on."""
    arguments: dict[str, Any] = {"file": str(file.absolute()), "data": data}
    if events:
        arguments["events"] = list(events)
    with MonitorClient(monitor) as server:
        _tell_recording(server.execute("odx-trace-start", arguments), as_json=as_json)


@trace.command()
@monitor_options
def stop(*, monitor: str, as_json: bool) -> None:
    """End the recording of a running server; its file is whole then."""
    with MonitorClient(monitor) as server:
        _tell_recording(server.execute("odx-trace-stop"), as_json=as_json)


def _tell_recording(info: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print_json(info)
    else:
        state = "recording to" if info["recording"] else "recorded:"
        click.echo(f"{state} {info['file']}: {info['records']} records, {info['dropped']} dropped")


@contextmanager
def _telling(file: Path) -> Iterator[Trace]:
    """The open trace; what is wrong with it is told at the end, and is the exit code."""
    try:
        opened = open_trace(file)
        yield opened
    except TraceError as error:
        fail(error, _FAILED)
    except (LookupError, TypeError, ValueError, AttributeError) as error:  # a trace may come from anywhere
        fail(f"{file}: a record that lacks something or contradicts itself: {error!r}", _FAILED)
    else:
        if opened.cut:
            fail(_CUT.format(file), _FAILED)


def _json_line(record: Record) -> str:
    return json.dumps(record, separators=(",", ":"))


def _print(lines: Iterable[str]) -> None:
    for line in lines:
        sys.stdout.write(line + "\n")
    sys.stdout.flush()


def _write(lines: Iterable[str], file: Path, output: Path | None) -> None:
    if output is None:
        _print(lines)
        return
    if output.exists() and output.samefile(file):
        raise TraceError(f"{output}: is the trace itself, which would be lost; write to another file")
    with os.fdopen(os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as written:
        written.writelines(line + "\n" for line in lines)


def _show_stats(found: dict[str, Any]) -> None:
    console = Console()
    if not console.is_terminal:
        console.width = _WIDTH
    table = Table(box=None, title=f"Requests of {found['seconds']:.3f} s; times in µs")
    table.add_column("export")
    table.add_column("operation", no_wrap=True)
    for name in ("count", "errors", "bytes", "queued p50", "p99", "served p50", "p99", "max"):
        table.add_column(name, justify="right")
    for row in found["operations"]:
        queued, served = row["queued_us"], row["served_us"]
        times = [queued.get("p50"), queued.get("p99"), *(served.get(f"p{p}") for p in (50, 99, 100))]
        counts = [f"{row[key]:,}" for key in ("count", "errors", "bytes")]
        table.add_row(row["export"], row["name"], *counts, *("" if t is None else f"{t:,.1f}" for t in times))
    console.print(table)
    _show_rest(console, found)


def _show_rest(console: Console, found: dict[str, Any]) -> None:
    for title, counts in (("Sense", found["sense"]), ("Faults", found["faults"])):
        for name, count in counts.items():
            console.print(f"{title}: {count:,} times {name}", highlight=False, soft_wrap=True)
    for life in found["tokens"]:
        minted = f"minted at {life['minted']:.3f} s" if "minted" in life else "not minted in this trace"
        ended = f"{life.get('cause', '')} at {life['ended']:.3f} s" if "ended" in life else "alive"
        console.print(
            f"Token {life['token']} of {life['disk'] or '?'}: {minted}, used {len(life['uses'])} times, {ended}",
            highlight=False,
            soft_wrap=True,
        )
    if found["missing"]:
        console.print(
            f"{found['missing']:,} records are missing: they came faster than they could be written"
        )
