"""`qemu-odx token`: the live tokens of a running server.

Imports `cli/monitor_client.py`. The work is done by the server, in `server/monitor/commands/tokens.py`.
"""

from __future__ import annotations

from typing import Any

import rich_click as click

from qemu_odx.cli.figures import period, show, size
from qemu_odx.cli.monitor_client import MonitorClient, monitor_options, print_json

_PAGE = 1000
_COLUMNS = ("token", "disk", "type", ">length", ">age", ">ends in", ">users", "snapshot", ">pinned", "owner")


@click.group()
def token() -> None:
    """Look at the live tokens of a running server, and revoke them.

    The server is one that was started with `qemu-odx serve --monitor PATH`. The 512 bytes that make a token good for
    a copy are never shown.

    Exit codes: 0 done, 1 the server refused, 2 wrong usage, 3 no server listens.
    """


@token.command("list")
@click.option("--disk", metavar="ID", help="Only tokens made from this disk.")
@monitor_options
def list_(monitor: str, disk: str | None, *, as_json: bool) -> None:
    """Show every live token: what it stands for, what it pins, when it ends."""
    with MonitorClient(monitor) as server:
        tokens = all_tokens(server, disk)
    if as_json:
        print_json(tokens)
    else:
        show(_COLUMNS, (_row(item) for item in tokens), nothing="no token is alive")


@token.command()
@click.argument("tokens", nargs=-1, required=True, metavar="TOKEN...")
@monitor_options
def revoke(tokens: tuple[str, ...], monitor: str, *, as_json: bool) -> None:
    """End tokens: from now on who uses one is told 23/06, TOKEN REVOKED."""
    with MonitorClient(monitor) as server:
        for name in tokens:
            server.execute("odx-token-revoke", {"token": name})
            if not as_json:
                click.echo(f"{name}: revoked")
    if as_json:
        print_json({"revoked": list(tokens)})


def all_tokens(server: MonitorClient, disk: str | None = None) -> list[dict[str, Any]]:
    """Every live token, page by page."""
    found: list[dict[str, Any]] = []
    while True:
        after = found[-1]["token"] if found else None
        page = server.execute("query-odx-tokens", {"disk": disk, "after": after, "limit": _PAGE})
        found += page
        if len(page) < _PAGE:
            return found


def _row(item: dict[str, Any]) -> tuple[object, ...]:
    return (
        item["token"],
        item["disk"],
        item["type"].removeprefix("point-in-time-"),
        size(item["length"]),
        period(item["age"]),
        item.get("doomed") or period(item["expires-in"]),
        item["users"],
        "lost" if item["lost"] else item["snapshot"],
        size(item["pinned-bytes"]),
        item["owner"].partition("#")[0],
    )
