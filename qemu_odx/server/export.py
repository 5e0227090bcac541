"""An export: a listening socket, and the one front end at a time that it serves.

Imports `vhost/`, `virtio/port.py` and the rest of `server/`. Front ends come one after another: the
next one is let in only when nothing of its predecessor is in flight, so that no old write overtakes a new one.
"""

from __future__ import annotations

import logging
from functools import partial
from typing import TYPE_CHECKING

from qemu_odx.server.access import AS_MADE, SocketAccess
from qemu_odx.server.listener import Listener
from qemu_odx.vhost.bus_guard import bus_guard
from qemu_odx.vhost.message import ProtocolError
from qemu_odx.vhost.session import Session
from qemu_odx.vhost.transport import Channel, HangupError

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Sequence

    from qemu_odx.server.loop import Loop
    from qemu_odx.vhost.watch import Watch
    from qemu_odx.virtio.port import Device, Pollable

log = logging.getLogger(__name__)

_MESSAGES_PER_TURN = 64
"""A front end that floods us gets this many messages in before others have their turn."""


class Connection:
    """One front end: its socket, its session, and the `Link` between them.

    Attributes:
        session: what was negotiated, and the rings.
    """

    def __init__(
        self,
        name: str,
        sock: socket.socket,
        loop: Loop,
        device: Device,
        gone: Callable[[], None],
        *,
        watches: Sequence[Watch] = (),
    ) -> None:
        self._name = name
        self._loop = loop
        self._gone = gone
        self._open = True
        self._reading = False
        self._channel = Channel(sock)
        self._watches = watches
        self.session = Session(device, self, watches)
        self._read(on=True)

    @property
    def left(self) -> bool:
        """True from the end of the connection on; requests may still be in flight."""
        return not self._open

    def serve(self) -> None:
        """Take in messages while there are any and none waits for its answer."""
        try:
            for _ in range(_MESSAGES_PER_TURN):
                if self.session.busy or not self._open:
                    break
                message = self._channel.receive()
                if message is None:
                    break
                self.session.receive(message)
        except ProtocolError as error:
            self.drop(str(error))
        except HangupError:
            self.leave()
        except Exception:
            log.exception("%s: internal error, the front end is dropped", self._name)
            self.leave()
        self._read(on=self._open and not self.session.busy)

    def notice_hangup(self) -> None:
        """Find out now whether the front end has left, also while one of its messages waits."""
        self.serve()
        if self._open and self._channel.hung_up():
            self.leave()

    def resized(self) -> None:
        """A disk may show another size."""
        self.session.config_may_have_changed()

    def watch(self, fd: int, callback: Callable[[], None]) -> None:
        """See `Watcher`."""
        self._loop.watch(fd, callback)

    def unwatch(self, fd: int) -> None:
        """See `Watcher`."""
        self._loop.unwatch(fd)

    def call_soon(self, callback: Callable[[], None]) -> None:
        """See `Watcher`."""
        self._loop.call_soon(callback)

    def at_turn_end(self, callback: Callable[[], None]) -> None:
        """See `Watcher`."""
        self._loop.at_turn_end(callback)

    def poll(self, queue: Pollable, serve: Callable[[], None]) -> bool:
        """See `Watcher`."""
        return self._loop.polling.add(queue, serve)

    def broken(self, index: int, reason: str) -> None:
        """See `Watcher`."""
        self._loop.call_soon(partial(self._log_broken, index, reason))

    def send(self, request: int, payload: bytes, fds: Sequence[int]) -> None:
        """See `Link`."""
        try:
            self._channel.send(request, payload, fds)
        except (HangupError, ProtocolError) as error:
            self.drop(str(error))

    def resume(self) -> None:
        """See `Link`."""
        self._read(on=self._open)

    def drop(self, reason: str) -> None:
        """See `Link`."""
        if self._open:
            log.warning("%s: the front end was dropped: %s", self._name, reason)
            self.leave(reason)

    def leave(self, reason: str = "") -> None:
        """End the connection; `gone` is called when nothing is in flight any more. Idempotent."""
        if self._open:
            self._open = False
            for watch in self._watches:
                watch.left(reason)
            self._read(on=False)
            self._channel.close()
            self.session.close(self._gone)

    def _log_broken(self, index: int, reason: str) -> None:
        """Say that a ring is out of service, unless its memory has gone: then the connection goes too."""
        if guard := bus_guard():
            guard.report()
        if self._open:
            log.error("%s: queue %d is out of service until the guest resets: %s", self._name, index, reason)

    def _read(self, *, on: bool) -> None:
        if on != self._reading:
            self._reading = on
            if on:
                self._loop.watch(self._channel.fileno(), self.serve)
            else:
                self._loop.unwatch(self._channel.fileno())


class Export:
    """A socket on which a device is served, to one front end at a time.

    Attributes:
        watches: who sees the messages of its front ends.
        on_front_end: called with True when one connects and with False when it is gone.

    Raises:
        ConfigError: the socket cannot be made.
    """

    def __init__(
        self,
        path: str,
        loop: Loop,
        device: Device,
        access: SocketAccess = AS_MADE,
    ) -> None:
        self.path = path
        self.watches: list[Watch] = []
        self._loop = loop
        self._device = device
        self.on_front_end: Callable[[bool], None] = _unheard
        self._connection: Connection | None = None
        self._closed: Callable[[], None] | None = None
        self._listening = False
        self._listener = Listener(path, access)
        self._listen(on=True)

    def close(self, closed: Callable[[], None]) -> None:
        """Take no more front ends, drop the present one, and call `closed` once it has drained."""
        self._listen(on=False)
        self._listener.close()
        if self._connection is None:
            closed()
        else:
            self._closed = closed
            self._connection.leave()

    @property
    def session(self) -> Session | None:
        """What was negotiated with the present front end, None without one."""
        connection = self._connection
        return connection.session if connection is not None and not connection.left else None

    def drop(self) -> None:
        """Close the connection of the front end that is there, as a crash of ours would; it may come again."""
        if self._connection is not None:
            self._connection.drop("a fault rule says so")

    def resized(self, disk_name: str) -> None:
        """A disk, of this export or not, may show another size: tell the guest."""
        self._device.resized(disk_name)
        if self._connection is not None:
            self._connection.resized()

    def _on_front_end(self) -> None:
        if self._connection is not None:
            self._connection.notice_hangup()
        if self._connection is not None and self._connection.left:
            self._listen(on=False)  # The newcomer waits in the queue of the socket until all is drained.
        elif sock := self._listener.accept():
            self._welcome(sock)

    def _welcome(self, sock: socket.socket) -> None:
        if self._connection is not None:
            log.warning("%s: a second front end was refused: one at a time is served", self.path)
            sock.close()
            return
        log.info("%s: a front end connected", self.path)
        for watch in self.watches:
            watch.connected()
        self._connection = Connection(
            self.path, sock, self._loop, self._device, self._on_gone, watches=self.watches
        )
        self.on_front_end(True)

    def _on_gone(self) -> None:
        log.info("%s: the front end left", self.path)
        self._connection = None
        self.on_front_end(False)
        if self._closed:
            self._closed()
        else:
            self._listen(on=True)

    def _listen(self, *, on: bool) -> None:
        if on != self._listening:
            self._listening = on
            if on:
                self._loop.watch(self._listener.fileno(), self._on_front_end)
            else:
                self._loop.unwatch(self._listener.fileno())


def _unheard(_here: bool) -> None:
    """Nobody wants to know."""
