"""A shell in a guest at the user's terminal, where there is no ssh client: the same by our own.

May import: ssh. Standard: the terminal goes raw, its bytes go to the guest, the guest's come back.
"""

from __future__ import annotations

import os
import select
import shutil
import signal
import sys
import termios
import tty
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

    import paramiko

CHUNK = 4096


def interact(channel: paramiko.Channel) -> int:
    """Connect this process' standard input and output to a shell in the guest; its exit code.

    Args:
        channel: an open session on which nothing was asked for yet.
    """
    size = shutil.get_terminal_size()
    channel.get_pty(os.environ.get("TERM", "vt100"), size.columns, size.lines)
    channel.invoke_shell()
    with _raw(), _resized(channel):
        _shovel(channel)
    return channel.recv_exit_status()


def _shovel(channel: paramiko.Channel) -> None:
    """Until the guest's shell ends. At the end of our input the guest's shell is told so."""
    inputs: list[paramiko.Channel | int] = [channel, sys.stdin.fileno()]
    while True:
        ready, _, _ = select.select(inputs, [], [])
        if channel in ready:
            data = channel.recv(CHUNK)
            if not data:
                return
            os.write(sys.stdout.fileno(), data)
        if sys.stdin.fileno() in ready:
            typed = os.read(sys.stdin.fileno(), CHUNK)
            if typed:
                channel.sendall(typed)
            else:
                channel.shutdown_write()
                inputs.remove(sys.stdin.fileno())


@contextmanager
def _raw() -> Iterator[None]:
    """Keys go to the guest as they are, Ctrl-C too."""
    if not sys.stdin.isatty():
        yield
        return
    before = termios.tcgetattr(sys.stdin)
    try:
        tty.setraw(sys.stdin)
        yield
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)


@contextmanager
def _resized(channel: paramiko.Channel) -> Iterator[None]:
    """The guest learns of the terminal's new size."""

    def resize(_: int, __: FrameType | None) -> None:
        size = shutil.get_terminal_size()
        channel.resize_pty(size.columns, size.lines)

    before = signal.signal(signal.SIGWINCH, resize)
    try:
        yield
    finally:
        signal.signal(signal.SIGWINCH, before)
