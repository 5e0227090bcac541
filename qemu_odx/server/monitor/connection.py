"""The monitor's socket and its clients, on the event loop of the server.

Imports `server/{loop,listener,events}` and the monitor's own modules. What a client may cost is bounded: it is read
from only when it has been answered, it is dropped when it lets too many events lie, and the disks have their turn
between any two handfuls of its commands. Next: `server/monitor/conversation.py`.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from typing import TYPE_CHECKING

from qemu_odx.server.access import SocketAccess
from qemu_odx.server.listener import Listener
from qemu_odx.server.monitor.conversation import Conversation
from qemu_odx.server.monitor.schema import to_json
from qemu_odx.server.monitor.table import COMMANDS, EVENT_NAMES

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from qemu_odx.server.backend import Backend
    from qemu_odx.server.loop import Loop

log = logging.getLogger(__name__)

MAX_CLIENTS = 32
"""Clients at a time; the next one waits in the queue of the socket."""
MAX_EVENTS = 4096
"""Events that a client may leave unread."""
_READ = 1 << 16
_COMMANDS_PER_TURN = 4


class Client:
    """One connected client."""

    def __init__(self, sock: socket.socket, backend: Backend, gone: Callable[[Client], None]) -> None:
        sock.setblocking(False)
        self._socket = sock
        self._loop: Loop = backend.loop
        self._gone = gone
        self._out: deque[memoryview] = deque()
        self._events = 0
        self._open = True
        self._ending = self._paused = False
        self._watched: Callable[[], None] | None = None
        self._talk = Conversation(COMMANDS, backend, send=self._send, drop=self._drop, resume=self._serve)
        self._talk.greet()
        self._settle()

    def tell(self, event: dict[str, object]) -> None:
        """Send an event, or drop a client that does not read them."""
        if not self._talk.ready or not self._open:
            return
        self._events += 1
        if self._events > MAX_EVENTS:
            log.warning("the monitor dropped a client that left %d events unread", MAX_EVENTS)
            self.close()
            return
        self._talk.tell(event)
        self._settle()

    def close(self) -> None:
        """Hang up, whatever was still to be said. Idempotent."""
        if self._open:
            self._open = False
            self._settle()
            self._out.clear()
            self._socket.close()
            self._gone(self)

    def flush(self) -> None:
        """Send what the socket takes now."""
        try:
            while self._out:
                sent = self._socket.send(self._out[0])
                if sent < len(self._out[0]):
                    self._out[0] = self._out[0][sent:]
                    return
                self._out.popleft()
        except BlockingIOError:
            return
        except OSError:
            self.close()
            return
        self._events = 0
        if self._ending:
            self.close()

    def _send(self, data: bytes) -> None:
        if self._open:
            self._out.append(memoryview(data))
            self.flush()

    def _drop(self) -> None:
        self._ending = True
        self.flush()

    def _on_readable(self) -> None:
        try:
            data = self._socket.recv(_READ)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self.close()
            return
        self._talk.feed(data)
        self._serve()

    def _on_writable(self) -> None:
        self.flush()
        self._serve()

    def _serve(self) -> None:
        """Execute a few commands; the rest when others had their turn and the client has read its answers."""
        self._paused = False
        for _ in range(_COMMANDS_PER_TURN):
            if not self._open or self._out or self._ending or not self._talk.serve():
                self._settle()
                return
        self._paused = True
        self._settle()
        self._loop.call_soon(self._serve)

    def _settle(self) -> None:
        """Wait for what may happen next: room if something is unsent, more to read if all is answered."""
        wanted = None
        if self._open and self._out:
            wanted = self._on_writable
        elif self._open and not (self._talk.busy or self._paused):
            wanted = self._on_readable
        if wanted != self._watched:
            if self._watched:
                self._loop.unwatch(self._socket.fileno())
            if wanted:
                self._loop.watch(self._socket.fileno(), wanted, writable=bool(self._out))
            self._watched = wanted


class Monitor:
    """The listening socket and its clients.

    Args:
        path: where; private to the user.
        backend: what commands act on.

    Raises:
        ConfigError: the socket cannot be made.
    """

    def __init__(self, path: str, backend: Backend) -> None:
        self._backend = backend
        self._clients: list[Client] = []
        self._listener = Listener(path, SocketAccess(mode=0o600))
        self._closed = self._listening = False
        self._listen(on=True)
        self._unsubscribe = backend.events.subscribe(self._tell)

    def close(self) -> None:
        """Hang up on everybody, after a last attempt to say what is unsaid, and remove the socket."""
        self._closed = True
        self._unsubscribe()
        self._listen(on=False)
        self._listener.close()
        for client in tuple(self._clients):
            client.flush()
            client.close()

    def _on_client(self) -> None:
        if sock := self._listener.accept():
            self._clients.append(Client(sock, self._backend, self._gone))
            self._listen(on=len(self._clients) < MAX_CLIENTS)

    def _gone(self, client: Client) -> None:
        self._clients.remove(client)
        if not self._closed:
            self._listen(on=True)

    def _tell(self, event: object) -> None:
        if not self._clients:
            return
        seconds, nanoseconds = divmod(time.time_ns(), 1_000_000_000)
        message = {
            "event": EVENT_NAMES[type(event)],
            "data": to_json(event),
            "timestamp": {"seconds": seconds, "microseconds": nanoseconds // 1000},
        }
        for client in tuple(self._clients):
            client.tell(message)

    def _listen(self, *, on: bool) -> None:
        if on != self._listening:
            self._listening = on
            if on:
                self._backend.loop.watch(self._listener.fileno(), self._on_client)
            else:
                self._backend.loop.unwatch(self._listener.fileno())
