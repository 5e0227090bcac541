"""The manual page: all commands and options are in it, and the programs that read such pages accept it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from typing import TYPE_CHECKING

import click
import pytest
from click.testing import CliRunner

from qemu_odx.cli import troff
from qemu_odx.cli.main import main
from qemu_odx.cli.man import manual_page

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def page() -> str:
    """The page as troff."""
    return manual_page(main)


def test_every_command_and_option_is_in_it(page: str) -> None:
    """By its whole name, and by every spelling."""
    text = page.replace("\\-", "-")
    for context, command in troff.commands(main, "qemu-odx"):
        if context.parent is None:
            continue
        assert f".SS {context.command_path}\n" in text
        _, _, after = text.partition(f".SS {context.command_path}\n")
        own = after.partition("\n.SS ")[0]
        for option in command.params:
            if isinstance(option, click.Option) and not option.hidden:
                assert all(name in own for name in option.opts), option.opts


def test_the_command_prints_it(page: str) -> None:
    """As a user calls it."""
    assert CliRunner().invoke(main, ["man"]).stdout == page + "\n"


@pytest.mark.skipif(shutil.which("mandoc") is None, reason="no mandoc here (package mandoc)")
def test_mandoc_finds_no_fault(page: str) -> None:
    """Nothing but the date, which is left out: the page is made at any time and is always the same."""
    done = subprocess.run(
        ["mandoc", "-Tlint", "-W", "warning"], input=page, capture_output=True, text=True, check=False
    )
    complaints = [line for line in done.stdout.splitlines() if "missing date" not in line]
    assert complaints == []


@pytest.mark.skipif(shutil.which("man") is None, reason="no man here (package man-db)")
def test_man_shows_it(page: str, tmp_path: Path) -> None:
    """Groff has no warning, and what it prints has examples with their backslashes."""
    file = tmp_path / "qemu-odx.1"
    file.write_text(page)
    command = ["man", "--warnings", "-P", "cat", "-l", str(file)]
    environment = {**os.environ, "LC_ALL": "C.UTF-8", "MANWIDTH": "100"}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    assert done.stderr == ""
    assert re.search(r"^ +qemu-odx serve \\$", done.stdout, re.MULTILINE)


@pytest.mark.parametrize(
    ("text", "source"),
    [
        ("a-b \\c", "a\\-b \\ec"),
        (".SH NAME", "\\&.SH NAME"),
        ("one\n'two\n.three", "one\n\\&'two\n\\&.three"),
    ],
)
def test_no_text_is_taken_for_a_request(text: str, source: str) -> None:
    """Backslash, hyphen, full stop and quote."""
    assert troff.escaped(text) == source


def test_lines_that_stay() -> None:
    """Click's mark of a paragraph that is not wrapped."""
    assert list(troff.paragraphs("one\ntwo\n\n\b\nthree\nfour\n\fhidden")) == [
        ".PP",
        "one two",
        ".PP",
        ".nf",
        "three\nfour",
        ".fi",
    ]
