"""What is noted once a second, however idle the server is.

Imports `server/loop.py`, the copy manager and `folder.py`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from qemu_odx.server.journal.folder import StateFolder
    from qemu_odx.server.loop import Loop
    from qemu_odx.target.manager import CopyManager

PERIOD: Final = 1.0
"""Seconds."""


class Heartbeat:
    """Notes how the images look, and which initiators need not be told of a restart."""

    def __init__(self, loop: Loop, state: StateFolder, manager: CopyManager) -> None:
        self._loop = loop
        self._state = state
        self._manager = manager
        self._beat()

    def _beat(self) -> None:
        self._state.beat()
        self._manager.settle()
        self._loop.call_later(PERIOD, self._beat)
