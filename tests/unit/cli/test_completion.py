"""Tab in real shells."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

LINES = ("qemu-odx de", "qemu-odx demo --r", "qemu-odx demo --guest w")
BASH = """
eval "$(qemu-odx completion bash)"
complete -p qemu-odx
function=$(complete -p qemu-odx | sed 's/.*-F \\([^ ]*\\) .*/\\1/')
"""
BASH_LINE = """
COMP_WORDS=({words}); COMP_CWORD={last}
$function qemu-odx
printf '%s\\n' "${{COMPREPLY[@]}}"
"""
ZSH = """
compdef() { }
_describe() { print -l -- ${(P)3} }
compadd() { print -l -- ${(P)5} }
eval "$(qemu-odx completion zsh)"
"""
ZSH_LINE = """
words=({words}); CURRENT={last}+1
_qemu_odx_completion
"""
FISH = """
qemu-odx completion fish | source
"""
FISH_LINE = """
complete -C "{line}"
"""
SCRIPTS = {"bash": (BASH, BASH_LINE), "zsh": (ZSH, ZSH_LINE), "fish": (FISH, FISH_LINE)}


def tabs(shell: str) -> list[set[str]]:
    """What the shell offers at the end of each of the lines; descriptions are left out."""
    if shutil.which(shell) is None:
        pytest.skip(f"no {shell} here (package {shell})")
    script, each = SCRIPTS[shell]
    for line in LINES:
        words = line.split(" ")
        quoted = " ".join(f'"{word}"' for word in words)
        script += "echo '====='\n" + each.format(words=quoted, last=len(words) - 1, line=line)
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    done = subprocess.run(
        [shell, "-c", script], env=environment, capture_output=True, text=True, check=True, timeout=100
    )
    assert done.stderr == ""
    _, *offers = done.stdout.split("=====\n")
    return [
        {line.partition("\t")[0].partition(":")[0] for line in offer.splitlines() if line} for offer in offers
    ]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_commands_options_and_values(shell: str) -> None:
    """A command by its beginning, an option, a choice of an option."""
    commands, options, values = tabs(shell)
    assert "demo" in commands
    assert "serve" not in commands
    assert "--report" in options
    assert "wine" in values


def test_a_shell_that_is_not_known() -> None:
    """Usage: exit code 2."""
    command = [sys.executable, "-m", "qemu_odx", "completion", "tcsh"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert all(shell in done.stderr for shell in ("bash", "zsh", "fish"))
