"""The bootstrap script, as far as it can be tried without installing anything."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

ODX = Path(__file__).parents[3] / "odx"


def odx(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the script."""
    return subprocess.run([ODX, *arguments], capture_output=True, text=True, check=False)


@pytest.mark.parametrize("arguments", [[], ["help"], ["--help"]])
def test_help_names_the_commands(arguments: list[str]) -> None:
    """Without a command it says what there is."""
    done = odx(*arguments)
    assert done.returncode == 0
    for command in ("demo", "test", "setup", "completion"):
        assert f"./odx {command}" in done.stdout


def test_unknown_command_is_refused() -> None:
    """A typing error installs nothing and prints the usage to standard error."""
    done = odx("dmeo")
    assert done.returncode != 0
    assert done.stdout == ""
    assert "no such command: dmeo" in done.stderr
