"""One client of the monitor, without its socket: bytes in, bytes out, in the protocol of QEMU's monitors.

Imports the monitor's other modules without a socket. Commands are executed one after another: while one waits, those
behind it wait too. Source: QEMU, `docs/interop/qmp-spec`. Fed by `server/monitor/connection.py`.
"""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING, Any

from qemu_odx.server.monitor.command import Later
from qemu_odx.server.monitor.errors import MonitorError
from qemu_odx.server.monitor.general import version
from qemu_odx.server.monitor.json_stream import JsonError, JsonStream, TooLongError
from qemu_odx.server.monitor.schema import to_json

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from qemu_odx.server.monitor.command import Command

log = logging.getLogger(__name__)

_NEGOTIATE = "qmp_capabilities"
_MEMBERS = frozenset({"execute", "arguments", "id"})


class Conversation:
    """What a client says and is told.

    Args:
        commands: by name.
        backend: what commands act on.
        send: takes bytes for the client.
        drop: the client cannot be understood any more: send what is to be sent and hang up.
        resume: a command that waited has been answered: `serve` again.

    Attributes:
        ready: capabilities are negotiated: events may be sent.
        busy: a command waits for its end.
    """

    def __init__(
        self,
        commands: Mapping[str, Command],
        backend: object,
        *,
        send: Callable[[bytes], None],
        drop: Callable[[], None],
        resume: Callable[[], None],
    ) -> None:
        self.ready = False
        self.busy = False
        self._commands = commands
        self._backend = backend
        self._write = send
        self._drop = drop
        self._resume = resume
        self._stream = JsonStream()

    def greet(self) -> None:
        """The first thing a client reads."""
        self.tell({"QMP": {"version": to_json(version()), "capabilities": []}})

    def feed(self, data: bytes) -> None:
        """Bytes from the client."""
        self._stream.feed(data)

    def serve(self) -> bool:
        """Execute the next command that is there; False if there is none, or one still waits for its end."""
        if self.busy:
            return False
        request = self._stream.take()
        if request is None:
            return False
        if isinstance(request, JsonError):
            self._fail({}, MonitorError(f"JSON parse error: {request}"))
            if isinstance(request, TooLongError):
                self._drop()
        else:
            self._execute(request)
        return True

    def tell(self, message: Mapping[str, object]) -> None:
        """Send a message."""
        self._write(json.dumps(message).encode() + b"\r\n")

    def _execute(self, request: dict[str, Any]) -> None:
        tag = {"id": request["id"]} if "id" in request else {}
        try:
            result = self._call(request)
        except MonitorError as error:
            self._fail(tag, error)
            return
        except Exception:
            log.exception("internal error: the monitor's command %s failed", request.get("execute"))
            self._fail(tag, MonitorError("internal error of the server, see its log"))
            return
        if not isinstance(result, Later):
            self._answer(tag, result)
            return
        self.busy = True
        result.begin(lambda outcome: self._over(tag, outcome))

    def _call(self, request: dict[str, Any]) -> object:
        """Find the command and call it."""
        for member in request:
            if member not in _MEMBERS:
                raise MonitorError(f"QMP input member '{member}' is unexpected")
        name: object = request.get("execute")
        arguments: object = request.get("arguments", {})
        if not isinstance(name, str):
            raise MonitorError("QMP input lacks member 'execute', a string")
        if not isinstance(arguments, dict):
            raise MonitorError("QMP input member 'arguments' must be an object")
        if not self.ready and name != _NEGOTIATE:
            raise MonitorError(f"Expecting capabilities negotiation with '{_NEGOTIATE}'", "CommandNotFound")
        if self.ready and name == _NEGOTIATE:
            raise MonitorError("Capabilities negotiation is already complete", "CommandNotFound")
        if name not in self._commands:
            raise MonitorError(
                f"The command {name} has not been found: see query-commands", "CommandNotFound"
            )
        result = self._commands[name].call(self._backend, arguments)
        self.ready = True
        return result

    def _over(self, tag: dict[str, object], outcome: object) -> None:
        self.busy = False
        if isinstance(outcome, MonitorError):
            self._fail(tag, outcome)
        else:
            self._answer(tag, outcome)
        self._resume()

    def _answer(self, tag: dict[str, object], result: object) -> None:
        self.tell({"return": {} if result is None else to_json(result), **tag})

    def _fail(self, tag: dict[str, object], error: MonitorError) -> None:
        self.tell({"error": {"class": error.error_class, "desc": str(error)}, **tag})
