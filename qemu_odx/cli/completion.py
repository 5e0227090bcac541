"""`qemu-odx completion SHELL`: what a shell has to read so that Tab knows our commands and options.

May import: cli. The work is click's (`click.shell_completion`).
"""

from __future__ import annotations

import rich_click as click
from click.shell_completion import get_completion_class

VARIABLE = "_QEMU_ODX_COMPLETE"
PROGRAM = "qemu-odx"


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print the completion script of a shell.

    \b
    bash:  qemu-odx completion bash > ~/.local/share/bash-completion/completions/qemu-odx
    zsh:   qemu-odx completion zsh > a folder of $fpath/_qemu-odx
    fish:  qemu-odx completion fish > ~/.config/fish/completions/qemu-odx.fish
    """  # noqa: D301 - click's mark for lines that stay
    kind = get_completion_class(shell)
    if kind is None:
        raise click.ClickException(f"this click knows no completion for {shell}; install click 8.1 or newer")
    click.echo(kind(context.find_root().command, {}, PROGRAM, VARIABLE).source())
