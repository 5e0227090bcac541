"""`qemu-odx`: the root of the command line.

Each subcommand lives in its own module and is imported only when it is called: the server must not carry the
lab's libraries. Next: `cli/serve.py`, `cli/demo.py`, `cli/conform.py`,
`cli/windows.py`.
"""

from __future__ import annotations

import importlib
import signal
import sys
from typing import TYPE_CHECKING, Any, Final

import rich_click as click

import qemu_odx
from qemu_odx.cli.failing import print_failure
from qemu_odx.cli.streams import end_without, open_streams

if TYPE_CHECKING:
    from collections.abc import Sequence

_NAME: Final = "qemu-odx"
_COMMANDS: Final = {
    "serve": "qemu_odx.cli.serve",
    "demo": "qemu_odx.cli.demo",
    "image": "qemu_odx.cli.image",
    "run": "qemu_odx.cli.run",
    "shell": "qemu_odx.cli.guests",
    "up": "qemu_odx.cli.up",
    "down": "qemu_odx.cli.up",
    "ps": "qemu_odx.cli.up",
    "exec": "qemu_odx.cli.guests:exec_",
    "cp": "qemu_odx.cli.guests",
    "logs": "qemu_odx.cli.guests",
    "conform": "qemu_odx.cli.conform",
    "windows": "qemu_odx.cli.windows",
    "token": "qemu_odx.cli.tokens:token",
    "copy": "qemu_odx.cli.copies:copy",
    "disk": "qemu_odx.cli.disk",
    "export": "qemu_odx.cli.export",
    "clock": "qemu_odx.cli.clock",
    "stats": "qemu_odx.cli.stats",
    "top": "qemu_odx.cli.top",
    "trace": "qemu_odx.cli.trace",
    "replay": "qemu_odx.cli.replay",
    "fault": "qemu_odx.cli.fault",
    "corruption": "qemu_odx.cli.corruption",
    "power": "qemu_odx.cli.power",
    "doctor": "qemu_odx.cli.doctor",
    "config": "qemu_odx.cli.config",
    "completion": "qemu_odx.cli.completion",
    "man": "qemu_odx.cli.man",
    "help": "qemu_odx.cli.help:help_",
}
"""Subcommand -> the module that has the click command of that name, or of the name behind the colon."""


class LazyGroup(click.RichGroup):
    """A group that imports a subcommand when it is wanted, and ends well whatever is behind its standard streams."""

    def list_commands(self, _ctx: click.Context) -> list[str]:
        """The names in the table."""
        return list(_COMMANDS)

    def get_command(self, _ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The subcommand, imported now; None if there is none of that name."""
        if cmd_name not in _COMMANDS:
            return None
        module, _, name = _COMMANDS[cmd_name].partition(":")
        command: click.Command = getattr(importlib.import_module(module), name or cmd_name)
        return command

    def invoke(self, ctx: click.Context) -> object:
        """Run the subcommand; Ctrl-C has one exit code, whether or not there was something to clean up."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            sys.exit(128 + signal.SIGINT)
        except click.UsageError as error:
            if ctx.obj:
                print_failure(error.format_message())
            raise

    def main(
        self, args: Sequence[str] | None = None, prog_name: str | None = None, *rest: Any, **extra: Any
    ) -> Any:
        """Run; what no command expects of folders and of standard output ends with a sentence too."""
        words = sys.argv[1:] if args is None else list(args)
        open_streams()
        try:
            try:
                return super().main(words, prog_name or _NAME, *rest, obj="--json" in words, **extra)
            finally:
                sys.stdout.flush()
        except OSError as error:
            end_without(error, as_json="--json" in words)


@click.group(name=_NAME, cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(qemu_odx.__version__, prog_name="qemu-odx")
def main() -> None:
    """Virtual disks for QEMU guests that speak ODX (copy by token), and a lab that proves it.

    Exit codes: 0 all went well, 1 it could not be done (one sentence on stderr says why), 2 wrong usage; others:
    qemu-odx help exit-codes.
    """
