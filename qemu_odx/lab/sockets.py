"""Whether somebody serves a socket, asked before a machine is started that would wait for it for ever.

May import: errors. Used by both kinds of machines.
"""

from __future__ import annotations

import socket
from pathlib import Path
from typing import TYPE_CHECKING

from qemu_odx.lab.errors import LabError

if TYPE_CHECKING:
    from collections.abc import Iterable

LISTENED_SOCKETS = Path("/proc/net/unix")  # proc(5): flags, then path as it was given to bind(2)
ACCEPTS = 0x10000  # __SO_ACCEPTCON
FLAGS, PATH = 3, 7  # columns
CONNECT_SECONDS = 5.0


def require_served(sockets: Iterable[Path]) -> None:
    """Raise LabError unless a server listens on each of them.

    The kernel's list is looked at first, for a connection that is closed again means work for the server.
    """
    listened = _listened()
    for path in sockets:
        if str(path) not in listened and not _answers(path):
            state = "nobody listens on" if path.exists() else "there is no socket"
            raise LabError(f"{state} {path}", "start the disk server first (qemu-odx serve)")


def _listened() -> set[str]:
    try:
        rows = [line.split(None, PATH) for line in LISTENED_SOCKETS.read_text().splitlines()[1:]]
    except OSError:
        return set()
    return {row[PATH] for row in rows if len(row) > PATH and int(row[FLAGS], 16) & ACCEPTS}


def _answers(path: Path) -> bool:
    """For a server in another network namespace, which the list does not show."""
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(CONNECT_SECONDS)
        try:
            probe.connect(str(path))
        except OSError:
            return False
    return True
