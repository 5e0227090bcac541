"""`qemu-odx man`: the manual page of the whole program, made from its commands.

May import: cli, and the table of exit codes. Reads every command's own help, so the page and `--help` cannot differ.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import rich_click as click

import qemu_odx
from qemu_odx.cli import troff
from qemu_odx.lab.session.outcome import table as exit_codes

if TYPE_CHECKING:
    from collections.abc import Iterator

SUMMARY = "virtual disks for QEMU guests that speak ODX, and a lab that proves it"
ENVIRONMENT = (
    ("NO_COLOR", "No colours. There are none either when output is no terminal."),
    ("TMPDIR", "Where the folders of running labs are."),
    ("XDG_CACHE_HOME", "Built guest images and saved guests are in qemu-odx below it (~/.cache)."),
    ("XDG_STATE_HOME", "Logs of failed runs are in qemu-odx/runs below it (~/.local/state)."),
)


@click.command()
@click.pass_context
def man(context: click.Context) -> None:
    """Print the manual page.

    \b
    qemu-odx man | man -l -
    qemu-odx man > ~/.local/share/man/man1/qemu-odx.1
    """  # noqa: D301 - click's mark for lines that stay
    click.echo(manual_page(context.find_root().command))


def manual_page(program: click.Command) -> str:
    """The page as troff source; `program` is the root of the commands."""
    return "\n".join(_lines(program))


def _lines(program: click.Command) -> Iterator[str]:
    yield f'.TH QEMU\\-ODX 1 "" "qemu\\-odx {qemu_odx.__version__}" "User Commands"'
    yield ".SH NAME"
    yield f"qemu\\-odx \\- {SUMMARY}"
    yield ".SH SYNOPSIS"
    yield ".B qemu\\-odx"
    yield "COMMAND [OPTIONS] [ARGS]..."
    yield ".SH DESCRIPTION"
    yield from list(troff.paragraphs(program.help or ""))[1:]  # mandoc(1): no paragraph right after a heading
    yield ".SH COMMANDS"
    for context, command in troff.commands(program, "qemu-odx"):
        if context.parent is not None:
            yield from troff.section(context, command)
    for heading, rows in (("EXIT STATUS", exit_codes()), ("ENVIRONMENT", ENVIRONMENT)):
        yield f".SH {heading}"
        for name, text in rows:
            yield from (".TP", f".B {troff.escaped(name)}", troff.escaped(text))
    yield from (".SH SEE ALSO", ".BR qemu\\-system\\-x86_64 (1),", ".BR qemu\\-storage\\-daemon (1)")
