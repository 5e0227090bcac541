"""One vhost-user message with its file descriptors, and the two ways in which it can be wrong.

Imports `wire` only. Made by `vhost/transport.py`, consumed by `vhost/session.py`.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field

from qemu_odx.wire.vhost_user import FLAG_NEED_REPLY, request_name


class ProtocolError(Exception):
    """The front end broke the protocol: nothing it says next can be trusted, the connection ends."""


class RefusedError(Exception):
    """A well-formed request that cannot be granted: refused by REPLY_ACK if it asked, else like the above."""


@dataclass(slots=True)
class Message:
    """A request as it came off the socket. It owns `fds` until they are taken."""

    request: int
    flags: int
    payload: bytes = b""
    fds: list[int] = field(default_factory=list)

    @property
    def name(self) -> str:
        """The request's name for messages to people."""
        return request_name(self.request)

    @property
    def wants_ack(self) -> bool:
        """The front end set need_reply."""
        return bool(self.flags & FLAG_NEED_REPLY)

    def take_fd(self) -> int:
        """Hand the next descriptor over to the caller, who closes it."""
        return self.fds.pop(0)

    def close(self) -> None:
        """Close every descriptor that nobody took."""
        while self.fds:
            os.close(self.fds.pop())
