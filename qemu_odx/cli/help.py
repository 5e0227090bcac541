"""`qemu-odx help`: what belongs to no single command.

May import: lab/session/outcome. The same tables are in `docs/cli.md`.
"""

from __future__ import annotations

import json

import rich_click as click
from rich.table import Table
from rich.text import Text

from qemu_odx.cli.console import stdout_console
from qemu_odx.lab.session.outcome import table


@click.group(name="help")
def help_() -> None:
    """Explain what belongs to no single command."""


@help_.command(name="exit-codes")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object and nothing else.")
def exit_codes(*, as_json: bool) -> None:
    """List the exit codes of all commands."""
    if as_json:
        click.echo(json.dumps(dict(table())))
        return
    shown = Table("code", "meaning", box=None, pad_edge=False)
    for code, words in table():
        shown.add_row(Text(code), Text(words))
    stdout_console().print(shown)
