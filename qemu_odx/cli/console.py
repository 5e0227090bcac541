"""Where tables go: colours and the terminal's width on a terminal, neither in a pipe.

Imports nothing of ours.
"""

from __future__ import annotations

import sys

from rich.console import Console

PIPED_WIDTH = 160


def stdout_console() -> Console:
    """A console on stdout; rich itself heeds NO_COLOR."""
    return Console() if sys.stdout.isatty() else Console(width=PIPED_WIDTH)
