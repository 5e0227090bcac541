"""A click command tree as a manual page, in the `man` macros of troff (man(7)).

Imports nothing of ours. Next: `man.py` prints it.
"""

from __future__ import annotations

import inspect
import re
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from collections.abc import Iterator

UNWRAPPED = "\b"  # click's own mark of a paragraph whose lines stay as they are
WIDE = 200  # columns of help that is taken apart here and wrapped by troff


def escaped(text: str) -> str:
    """Text as troff input: backslashes and hyphens as such, no line taken for a request."""
    text = text.replace("\\", "\\e").replace("-", "\\-")
    return re.sub(r"^(?=[.'])", r"\\&", text, flags=re.MULTILINE)


def commands(
    command: click.Command, name: str, parent: click.Context | None = None
) -> Iterator[tuple[click.Context, click.Command]]:
    """A command and all below it that are not hidden, each with a context that knows its whole name."""
    context = click.Context(command, info_name=name, parent=parent)
    yield context, command
    if isinstance(command, click.Group):
        for below in command.list_commands(context):
            child = command.get_command(context, below)
            if child is not None and not child.hidden:
                yield from commands(child, below, context)


def section(context: click.Context, command: click.Command, macro: str = "SS") -> Iterator[str]:
    """Lines on one command: usage, what it does, options, examples."""
    yield f".{macro} {escaped(context.command_path)}"
    usage = " ".join(command.collect_usage_pieces(context))
    yield f".B {escaped(context.command_path)}"
    yield escaped(usage)
    yield from paragraphs(command.help or "")
    for parameter in command.params:  # without --help, which every command has
        record = parameter.get_help_record(context)
        if record is not None:
            yield ".TP"
            yield f".B {escaped(record[0])}"
            yield escaped(record[1]) or "\\&"
    yield from _epilog(context, command)


def paragraphs(text: str) -> Iterator[str]:
    """Help text: paragraphs are wrapped anew, but for those that click would not wrap either."""
    for paragraph in inspect.cleandoc(text).partition("\f")[0].split("\n\n"):
        if paragraph.startswith(UNWRAPPED):
            yield from example(paragraph.removeprefix(UNWRAPPED).strip("\n"))
        elif paragraph.strip():
            yield ".PP"
            yield escaped(" ".join(paragraph.split()))


def example(text: str) -> Iterator[str]:
    """Lines that stay as they are."""
    yield ".PP"
    yield ".nf"
    yield escaped(text)
    yield ".fi"


def _epilog(context: click.Context, command: click.Command) -> Iterator[str]:
    """What the command's help ends with; written by the command itself where it has its own way."""
    if type(command).format_epilog.__module__.partition(".")[0] not in {"click", "rich_click"}:
        formatter = click.HelpFormatter(width=WIDE)
        command.format_epilog(context, formatter)
        yield from example(formatter.getvalue().strip("\n"))
    elif command.epilog:
        yield from paragraphs(command.epilog)
