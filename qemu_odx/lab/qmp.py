"""QEMU's monitor, for code that is not asynchronous: a thin face over `qemu.qmp`.

May import: errors. Used by `guest.py`.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from qemu.qmp import ExecuteError, QMPClient, QMPError

from qemu_odx.lab.errors import LabError

if TYPE_CHECKING:
    import socket
    from collections.abc import Coroutine, Mapping

CONNECT_SECONDS = 60.0
COMMAND_SECONDS = 60.0


class Monitor:
    """One QMP connection. Its event loop runs only while a call is under way."""

    def __init__(self, connection: socket.socket) -> None:
        """Negotiate on a connected socket. Raises LabError if QEMU does not answer."""
        self._loop = asyncio.new_event_loop()
        self._client = QMPClient("lab")
        try:
            self._run(self._client.connect(connection), CONNECT_SECONDS)
        except BaseException:
            self._loop.close()
            raise

    def execute(self, command: str, arguments: Mapping[str, object] | None = None) -> Any:
        """Run a QMP command and return what it returns.

        Raises:
            LabError: QEMU refused it, or is gone.
        """
        return self._run(self._client.execute(command, arguments), COMMAND_SECONDS)

    def close(self) -> None:
        """Leave QEMU alone; it goes on. Idempotent."""
        if self._loop.is_closed():
            return
        try:
            self._run(self._client.disconnect(), COMMAND_SECONDS)
        except LabError:
            pass  # QEMU ended first: the connection is gone all the same
        finally:
            self._loop.close()

    def _run(self, work: Coroutine[Any, Any, Any], seconds: float) -> Any:
        try:
            return self._loop.run_until_complete(asyncio.wait_for(work, seconds))
        except ExecuteError as error:
            raise LabError(f"QEMU refused a command ({error})", "check QEMU's version") from error
        except (QMPError, EOFError, OSError) as error:  # TimeoutError is an OSError
            raise LabError(f"QEMU does not answer ({error!r})", "see QEMU's log") from error
