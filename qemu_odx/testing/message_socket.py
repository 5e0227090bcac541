"""The socket of a vhost-user front end: messages out, replies in, and every rule broken if asked to.

May import anything but `lab` and `cli`. Next: `testing/frontend.py` says what QEMU says over it.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
from typing import TYPE_CHECKING

from qemu_odx.wire.vhost_user import HEADER, REPLY_FLAGS, U64, VERSION, request_name

if TYPE_CHECKING:
    from collections.abc import Sequence

PATIENCE = 60.0
"""Seconds to wait for an answer or a completion; a loaded machine is slow, a hang is for ever."""


class MessageSocket:
    """A front end's connection; `path` is the back end's socket."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = os.fspath(path)
        self._socket: socket.socket | None = None

    def open(self) -> None:
        """Connect."""
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(PATIENCE)
        self._socket.connect(self.path)

    def lose(self) -> None:
        """Drop the connection without a word, as a killed QEMU does."""
        if self._socket:
            self._socket.close()
            self._socket = None

    def send(self, request: int, payload: bytes = b"", fds: Sequence[int] = (), flags: int = VERSION) -> None:
        """Send one message and wait for nothing."""
        self.send_bytes(HEADER.pack(request, flags, len(payload)) + payload, fds)

    def send_bytes(self, data: bytes, fds: Sequence[int] = ()) -> None:
        """Send anything at all."""
        socket.send_fds(self._connected(), [data], list(fds))

    def request(self, request: int, payload: bytes = b"") -> bytes:
        """Send a message that has a reply of its own; the reply's payload."""
        self.send(request, payload)
        return self.reply(request)[0]

    def ask(self, request: int) -> int:
        """Send a message whose reply is one number."""
        (number,) = U64.unpack(self.request(request))
        return int(number)

    def reply(self, request: int) -> tuple[bytes, list[int]]:
        """Wait for the reply to `request`: its payload and descriptors.

        Raises:
            ConnectionError: the back end closed the connection.
            AssertionError: what came is no reply to it, as QEMU judges.
        """
        head, fds = self._read(HEADER.size)
        number, flags, size = HEADER.unpack(head)
        if (number, flags) != (request, REPLY_FLAGS):
            raise AssertionError(
                f"{request_name(request)} was answered by {request_name(number)}, flags {flags:#x}"
            )
        payload, more = self._read(size) if size else (b"", [])
        return payload, fds + more

    def closed_by_back_end(self) -> bool:
        """Wait until the back end closes the connection; False if it does not."""
        with contextlib.suppress(TimeoutError):
            try:
                return self._connected().recv(1) == b""
            except ConnectionError:
                return True
        return False

    def _read(self, size: int) -> tuple[bytes, list[int]]:
        data, fds = b"", []
        while len(data) < size:
            piece, more, _, _ = socket.recv_fds(self._connected(), size - len(data), 8)
            fds += more
            if not piece:
                raise ConnectionError("the back end closed the connection")
            data += piece
        return data, fds

    def _connected(self) -> socket.socket:
        if self._socket is None:
            raise ConnectionError("the front end is not connected")
        return self._socket


def wait_for(eventfd: int, patience: float = PATIENCE) -> None:
    """Wait until an event descriptor was signalled, and take the signal.

    Raises:
        TimeoutError: it was not.
    """
    readable, _, _ = select.select([eventfd], [], [], patience)
    if not readable:
        raise TimeoutError(f"no signal from the back end in {patience} seconds")
    os.eventfd_read(eventfd)
