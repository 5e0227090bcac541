"""How a command ends that cannot do what it was asked: one sentence on stderr, with --json an object on stdout too.

Imports nothing of ours. Used by every command; errors of the lab come by `lab_options.py`, wrong usage by `main.py`.
"""

from __future__ import annotations

import json
import sys
from typing import NoReturn

import click


def fail(error: object, code: int, **more: object) -> NoReturn:
    """Say what is wrong and end the command; the object tells `more`."""
    if json_is_wanted():
        print_failure(error, **more)
    complain(error)
    sys.exit(code)


def json_is_wanted() -> bool:
    """The command that runs was given --json."""
    return bool(click.get_current_context().params.get("as_json"))


def print_failure(error: object, **more: object) -> None:
    """The object, on one line: it may be the last one of JSON lines."""
    click.echo(json.dumps({"ok": False, "error": sentence(error), **more}))


def complain(error: object) -> None:
    """The sentence, behind the words of the command."""
    click.echo(f"{click.get_current_context().command_path}: {sentence(error)}", err=True)


def sentence(error: object) -> str:
    """What people read; an error of the system with the file it names, and a cure."""
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename else ""
        return f"{where}{error.strerror}; take another place, or put this one right"
    return str(error)
