"""What every command has in common: help for each option, `--json`, no colours in a pipe."""

from __future__ import annotations

import importlib
import os
import pty
import subprocess
import sys
from typing import TYPE_CHECKING

import click
import pytest
from click.testing import CliRunner

from qemu_odx.cli.main import main

if TYPE_CHECKING:
    from collections.abc import Iterator

WITHOUT_JSON = {
    "shell",  # a terminal
    "logs",  # what others wrote, as it is
    "trace filter",  # these three print traces or JSON anyway
    "trace merge",
    "trace timeline",
    "completion",  # a script
    "man",  # a page
}
HELP = [sys.executable, "-m", "qemu_odx", "help", "exit-codes"]
REPORT = """
from qemu_odx.cli.doctor import print_report
from qemu_odx.lab.doctor.checkup import Report
from qemu_odx.lab.doctor.finding import Finding, Level
print_report(Report((Finding('a', 'b', Level.ERROR, 'c', 'd'),)), verbose=True)
"""
DOCTORED = [sys.executable, "-c", REPORT]


def commands(group: click.Group, name: str = "") -> Iterator[tuple[str, click.Command]]:
    """Every command that is no group, by its words."""
    context = click.Context(group)
    for word in group.list_commands(context):
        command = group.get_command(context, word)
        if isinstance(command, click.Group):
            yield from commands(command, f"{name}{word} ")
        elif command is not None:
            yield f"{name}{word}", command


ALL = dict(commands(main))


@pytest.mark.parametrize("name", ALL)
def test_help_is_whole(name: str) -> None:
    """The command says what it does, and each option too."""
    assert ALL[name].help
    for parameter in ALL[name].params:
        if isinstance(parameter, click.Option):
            assert parameter.help, parameter.name


def test_results_are_there_for_programs() -> None:
    """`--json`, unless there is a reason."""
    without = {
        name
        for name, command in ALL.items()
        if not any("--json" in parameter.opts for parameter in command.params)
    }
    assert without == WITHOUT_JSON


def seen_on_a_terminal(command: list[str], **environment: str) -> str:
    """What a command writes to a terminal."""
    ours, theirs = pty.openpty()
    with subprocess.Popen(command, stdout=theirs, env={**os.environ, **environment}) as process:
        os.close(theirs)
        seen = b""
        while True:
            try:
                seen += os.read(ours, 4096)
            except OSError:  # the other end is closed
                break
        process.wait()
    os.close(ours)
    return seen.decode()


def test_ctrl_c_has_one_exit_code(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where no run has to be cleaned up, such as while a command is still being imported."""

    def interrupted(_: str) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(importlib, "import_module", interrupted)
    assert CliRunner().invoke(main, ["ps"]).exit_code == 130


def test_colours_are_for_terminals() -> None:
    """And for those who want them there."""
    coloured = "\x1b[1;31m"
    assert coloured in seen_on_a_terminal(DOCTORED, TERM="xterm", NO_COLOR="")
    assert coloured not in seen_on_a_terminal(DOCTORED, TERM="xterm", NO_COLOR="1")
    assert "\x1b" not in subprocess.run(DOCTORED, capture_output=True, text=True, check=True).stdout
    assert "\x1b" not in subprocess.run(HELP, capture_output=True, text=True, check=True).stdout
