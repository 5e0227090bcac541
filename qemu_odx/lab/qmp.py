"""QEMU's monitor, for code that is not asynchronous: a thin face over `qemu.qmp`.

May import: errors, interrupts. Used by `machines/qemu.py`.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from qemu.qmp import ExecuteError, QMPClient, QMPError

from qemu_odx.lab.errors import LabError
from qemu_odx.lab.interrupts import uninterrupted

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Coroutine, Mapping

CONNECT_SECONDS = 60.0
COMMAND_SECONDS = 60.0
SETTLE_SECONDS = 0.05  # what QEMU has sent is read while the loop runs


class Monitor:
    """One QMP connection. Its event loop runs only while a call is under way."""

    def __init__(
        self, connection: socket.socket, seconds: float = CONNECT_SECONDS, *, server: str = "QEMU"
    ) -> None:
        """Negotiate on a connected socket, with a server of that name. Raises LabError if it does not answer."""
        self._server = server
        self._loop = asyncio.new_event_loop()
        self._client = QMPClient("lab")
        try:
            self._run(self._client.connect(connection), seconds)
        except BaseException:
            self._loop.close()
            raise

    def execute(self, command: str, arguments: Mapping[str, object] | None = None) -> Any:
        """Run a QMP command and return what it returns.

        Raises:
            LabError: QEMU refused it, or is gone.
        """
        return self._run(self._client.execute(command, arguments), COMMAND_SECONDS)

    def execute_until(
        self,
        command: str,
        arguments: Mapping[str, object],
        event: str,
        matches: Callable[[Mapping[str, Any]], bool],
        seconds: float,
    ) -> bool:
        """Run a QMP command and wait for an event that it brings about, not missing one that comes at once.

        Args:
            command: its name.
            arguments: its arguments.
            event: name of the event.
            matches: whether the event's data are those waited for.
            seconds: how long to wait.

        Returns:
            False if the event did not come in time.

        Raises:
            LabError: QEMU refused the command, or is gone.
        """

        async def work() -> None:
            with self._client.listener([event]) as events:
                await self._client.execute(command, arguments)
                async for message in events:
                    if matches(message.get("data", {})):  # type: ignore[arg-type]
                        return

        return bool(self._run(_in_time(work(), seconds), seconds + COMMAND_SECONDS))

    def take_events(self) -> list[dict[str, Any]]:
        """The events since the last call, oldest first; also after QEMU's end."""
        if self._loop.is_closed():
            return []
        self._run(asyncio.sleep(SETTLE_SECONDS), COMMAND_SECONDS)
        return [dict(event) for event in self._client.events.clear()]

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
        task = self._loop.create_task(asyncio.wait_for(work, seconds))
        try:
            # A signal breaks it off from outside: raised inside, it would tear a task of the library's.
            with uninterrupted(lambda: self._loop.call_soon_threadsafe(task.cancel)):
                return self._loop.run_until_complete(task)
        except ExecuteError as error:
            cure = f"check the version of {self._server} and what its monitor takes"
            raise LabError(f"{self._server} refused a command: {error}", cure) from error
        except (QMPError, EOFError, OSError) as error:  # TimeoutError is an OSError
            raise LabError(f"{self._server} does not answer ({error!r})", "see its log") from error


def hung_up(error: LabError) -> bool:
    """Whether a monitor's error means that QEMU closed the connection, so that it ends or has ended."""
    cause = error.__cause__
    return isinstance(cause, QMPError | EOFError | OSError) and not isinstance(
        cause, ExecuteError | TimeoutError
    )


async def _in_time(work: Coroutine[Any, Any, None], seconds: float) -> bool:
    try:
        await asyncio.wait_for(work, seconds)
    except TimeoutError:
        return False
    return True
