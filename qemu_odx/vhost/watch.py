"""Who wants to see the messages of an export's front ends: traces.

Imports nothing of ours. Asked by `vhost/session.py` and `server/export.py`; with nobody there that is one look at an
empty list for each message, none for a request.
"""

from __future__ import annotations

from typing import Protocol


class Watch(Protocol):
    """Sees every message; all calls come on the event loop's thread."""

    def connected(self) -> None:
        """A front end has come."""

    def received(self, request: int, payload: bytes, fds: int) -> None:
        """It sent a message with so many descriptors; nothing was done about it yet."""

    def sent(self, request: int, payload: bytes, fds: int) -> None:
        """We answered, or acknowledged."""

    def notified(self, request: int) -> None:
        """We sent a message of our own on the back-end socket (`wire/vhost_user.BackendRequest`)."""

    def refused(self, request: int, reason: str) -> None:
        """A message was refused."""

    def left(self, reason: str) -> None:
        """The front end is gone; `reason` is "" if it left by itself. Its requests may still be in flight."""
