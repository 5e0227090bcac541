"""Standard streams that are not what a program expects: closed, in ASCII, a pipe that nobody reads, a full disk.

Imports `failing.py`. Used by `main.py`, around every command.
"""

from __future__ import annotations

import errno
import io
import os
import sys
from pathlib import Path
from typing import NoReturn

import click

from qemu_odx.cli.failing import print_failure, sentence


def open_streams() -> None:
    """What the shell closed (`>&-`) is /dev/null from now on: no image file gets the number of standard output."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            stream = Path(os.devnull).open(mode)  # noqa: SIM115 - to the end; its number is the lowest that is free
            os.set_inheritable(stream.fileno(), True)
            setattr(sys, name, stream)
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors == "strict":
        sys.stdout.reconfigure(errors="backslashreplace")  # as stderr: names and a µ that it cannot write


def end_without(error: OSError, *, as_json: bool) -> NoReturn:
    """End without a folder that cannot be used, or without standard output: quietly if nobody reads it (`| head`)."""
    from qemu_odx.lab.session.outcome import ExitCode  # noqa: PLC0415 - the server must not carry the lab

    if error.filename is None:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # nothing is left for Python's own end
        if error.errno == errno.EPIPE:
            sys.exit(ExitCode.FAILED)
        error.filename = "standard output"
    elif as_json:
        print_failure(error)
    click.echo(f"qemu-odx: {sentence(error)}", err=True)
    sys.exit(ExitCode.ENVIRONMENT)
