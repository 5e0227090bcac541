"""The vhost-user stream: cuts what a front end sends into messages, with the descriptors that came along.

Imports `wire` and `vhost/message.py`. Nothing else touches the socket. Next: `vhost/session.py`.
"""

from __future__ import annotations

import array
import os
import socket
from typing import TYPE_CHECKING

from qemu_odx.vhost.message import Message, ProtocolError
from qemu_odx.wire.vhost_user import (
    FLAG_REPLY,
    HEADER,
    MAX_FDS,
    MAX_PAYLOAD,
    REPLY_FLAGS,
    VERSION,
    VERSION_MASK,
    request_name,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

_FD_SIZE = array.array("i").itemsize
_ANCILLARY = socket.CMSG_SPACE((MAX_FDS + 1) * _FD_SIZE)


class HangupError(Exception):
    """The front end closed the connection."""


class Channel:
    """A front end's socket as a sequence of messages.

    Reads never go beyond the end of a message, so that descriptors are never credited to its neighbour:
    the kernel joins stream data of several sends but stops after one that carries descriptors.
    """

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self._socket = sock
        self._data = bytearray()
        self._fds: list[int] = []

    def fileno(self) -> int:
        """For the event loop."""
        return self._socket.fileno()

    def receive(self) -> Message | None:
        """The next message, or None while it is incomplete.

        Raises:
            HangupError: the front end is gone.
            ProtocolError: the header cannot be followed.
        """
        while (missing := self._missing()) > 0:
            if not self._read(missing):
                return None
        request, flags, _ = HEADER.unpack_from(self._data)
        message = Message(request, flags, bytes(self._data[HEADER.size :]), self._fds)
        self._data, self._fds = bytearray(), []
        return message

    def send(self, request: int, payload: bytes, fds: Sequence[int] = ()) -> None:
        """Send a reply.

        Raises:
            HangupError: the front end is gone.
            ProtocolError: it does not read its replies.
        """
        data = HEADER.pack(request, REPLY_FLAGS, len(payload)) + payload
        try:
            sent = socket.send_fds(self._socket, [data], list(fds))
        except BlockingIOError:
            sent = 0
        except OSError as error:
            raise HangupError(error.strerror) from error
        if sent != len(data):
            raise ProtocolError("it does not read its replies")

    def hung_up(self) -> bool:
        """True if the peer has closed and nothing is left to read."""
        try:
            return self._socket.recv(1, socket.MSG_PEEK) == b""
        except BlockingIOError:
            return False
        except OSError:
            return True

    def close(self) -> None:
        """Close the socket and every descriptor of a message that never became complete."""
        self._socket.close()
        while self._fds:
            os.close(self._fds.pop())

    def _missing(self) -> int:
        """Bytes to read before there is a whole message; the header is judged as soon as it is there."""
        have = len(self._data)
        if have < HEADER.size:
            return HEADER.size - have
        request, flags, size = HEADER.unpack_from(self._data)
        if flags & (VERSION_MASK | FLAG_REPLY) != VERSION:
            raise ProtocolError(f"{request_name(request)} has flags {flags:#x}: not a request of version 1")
        if size > MAX_PAYLOAD:
            raise ProtocolError(f"{request_name(request)} announces {size} bytes, {MAX_PAYLOAD} at most")
        return HEADER.size + int(size) - have

    def _read(self, count: int) -> bool:
        """Read up to `count` bytes; False if there is nothing now."""
        try:
            data, ancillary, flags, _ = self._socket.recvmsg(count, _ANCILLARY, socket.MSG_CMSG_CLOEXEC)
        except BlockingIOError:
            return False
        except OSError as error:
            raise HangupError(error.strerror) from error
        for level, kind, content in ancillary:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                self._fds.extend(_descriptors(content))
        if flags & socket.MSG_CTRUNC or len(self._fds) > MAX_FDS:
            raise ProtocolError(f"a message brought more than {MAX_FDS} file descriptors")
        if not data:
            raise HangupError("closed by the front end")
        self._data += data
        return True


def _descriptors(content: bytes) -> list[int]:
    """The descriptors of one SCM_RIGHTS control message."""
    fds = array.array("i")
    fds.frombytes(content[: len(content) - len(content) % _FD_SIZE])
    return list(fds)
