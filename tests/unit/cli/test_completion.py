"""Tab in real shells."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

BASH = """
eval "$(qemu-odx completion bash)"
complete -p qemu-odx
COMP_WORDS=({words}); COMP_CWORD={last}
$(complete -p qemu-odx | sed 's/.*-F \\([^ ]*\\) .*/\\1/') qemu-odx
printf '%s\\n' "${{COMPREPLY[@]}}"
"""
ZSH = """
compdef() {{ }}
_describe() {{ print -l -- ${{(P)3}} }}
compadd() {{ print -l -- ${{(P)5}} }}
words=({words}); CURRENT={last}+1
eval "$(qemu-odx completion zsh)"
_qemu_odx_completion
"""
FISH = """
qemu-odx completion fish | source
complete -C "{line}"
"""


def tab(shell: str, line: str) -> list[str]:
    """What the shell offers at the end of a line; descriptions are left out."""
    if shutil.which(shell) is None:
        pytest.skip(f"no {shell} here (package {shell})")
    words = line.split(" ")
    quoted = " ".join(f'"{word}"' for word in words)
    script = {"bash": BASH, "zsh": ZSH, "fish": FISH}[shell]
    script = script.format(words=quoted, last=len(words) - 1, line=line)
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    done = subprocess.run(
        [shell, "-c", script], env=environment, capture_output=True, text=True, check=True, timeout=100
    )
    assert done.stderr == ""
    return [line.partition("\t")[0].partition(":")[0] for line in done.stdout.splitlines() if line]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_commands_options_and_values(shell: str) -> None:
    """A command by its beginning, an option, a choice of an option."""
    assert "demo" in tab(shell, "qemu-odx de")
    assert "serve" not in tab(shell, "qemu-odx de")
    assert "--report" in tab(shell, "qemu-odx demo --r")
    assert "wine" in tab(shell, "qemu-odx demo --guest w")


def test_a_shell_that_is_not_known() -> None:
    """Usage: exit code 2."""
    command = [sys.executable, "-m", "qemu_odx", "completion", "tcsh"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert all(shell in done.stderr for shell in ("bash", "zsh", "fish"))
