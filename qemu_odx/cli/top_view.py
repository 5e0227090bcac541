"""How `qemu-odx top` looks.

Imports `rich` and `cli/figures.py`. Given what `cli/top.py` has sampled.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.console import Group
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from qemu_odx.cli.figures import latency, period, size, table

if TYPE_CHECKING:
    from rich.console import RenderableType

_MOST_TOKENS = 12
_BAR = 24


def screen(frame: dict[str, Any]) -> RenderableType:
    """All of it."""
    parts: list[RenderableType] = [_head(frame), _exports(frame["exports"])]
    if frame["copies"]:
        parts.append(_copies(frame["copies"]))
    parts += [_tokens(frame["tokens"]), _disks(frame["disks"])]
    return Group(*parts)


def _head(frame: dict[str, Any]) -> Text:
    clock = frame["clock"]
    time = f"virtual clock at {clock['now']:.6g} s" if clock["clock"] == "virtual" else "the system's clock"
    connected = sum(item["connected"] for item in frame["exports"])
    return Text.assemble(
        ("qemu-odx ", "bold"),
        f"{connected} of {len(frame['exports'])} exports connected, {len(frame['copies'])} copies, ",
        f"{sum(item['tokens'] for item in frame['disks'])} tokens, {time}",
    )


def _exports(exports: list[dict[str, Any]]) -> Table:
    columns = ("export", "type", "front end", ">in flight", ">requests", ">per second", ">mean", ">99% below")
    rows = (
        (
            item["id"],
            item["type"].removeprefix("vhost-user-"),
            "connected" if item["connected"] else "-",
            item["in-flight"],
            f"{item['requests']:,}",
            f"{item['requests-per-second']:,.0f}",
            latency(item["mean-microseconds"]),
            latency(item["percentile-99-microseconds"]),
        )
        for item in exports
    )
    return table(columns, rows)


def _copies(copies: list[dict[str, Any]]) -> Table:
    made = Table("copy", "command", "disks", "progress", "", "rate", header_style="bold")
    for item in copies:
        rate = f"{size(round(item['rate']))}/s" if "rate" in item else "-"
        bar = ProgressBar(total=item["total"] or 1, completed=item["done"], width=_BAR)
        share = f"{size(item['done'])} of {size(item['total'])}"
        made.add_row(str(item["copy"]), item["command"], " ".join(item["disks"]), bar, share, rate)
    return made


def _tokens(tokens: list[dict[str, Any]]) -> Table:
    columns = ("token", "disk", ">length", ">age", ">ends in", ">users", "snapshot", ">pinned")
    youngest = tokens[-_MOST_TOKENS:]
    rows = (
        (
            item["token"],
            item["disk"],
            size(item["length"]),
            period(item["age"]),
            item.get("doomed") or period(item["expires-in"]),
            item["users"],
            "lost" if item["lost"] else item["snapshot"],
            size(item["pinned-bytes"]),
        )
        for item in youngest
    )
    return table(columns, rows)


def _disks(disks: list[dict[str, Any]]) -> Table:
    columns = ("disk", ">size", "layers", "exports", ">tokens", ">pinned", "image")
    rows = (
        (
            item["id"],
            size(item["size"]),
            "+".join(item["layers"]) or "-",
            " ".join(item["exports"]) or "-",
            item["tokens"],
            size(item["pinned-bytes"]),
            item["path"],
        )
        for item in disks
    )
    return table(columns, rows)
