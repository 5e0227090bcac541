"""What a recorder hears of besides requests: messages of front ends, lives of tokens, copies.

Imports `trace/recorder`. Attached by `server/tracing.py`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qemu_odx.server.config import BlkExport
from qemu_odx.server.news import loss_of
from qemu_odx.wire.vhost_user import BackendRequest

if TYPE_CHECKING:
    from qemu_odx.server.config import Export
    from qemu_odx.tokens.operations import Operation
    from qemu_odx.tokens.token import Fault, Token
    from qemu_odx.trace.recorder import Recorder


class Messages:
    """Records what the front ends of an export say. See `vhost/watch.Watch`."""

    def __init__(self, recorder: Recorder, config: Export) -> None:
        self._recorder = recorder
        self._export = config.id
        self._device = "blk" if isinstance(config, BlkExport) else "scsi"

    def connected(self) -> None:
        """A front end has come."""
        self._recorder.note("export", export=self._export, what="connected")

    def received(self, request: int, payload: bytes, fds: int) -> None:
        """A message."""
        self._recorder.message(self._export, self._device, request, payload, fds, reply=False)

    def sent(self, request: int, payload: bytes, fds: int) -> None:
        """An answer."""
        self._recorder.message(self._export, self._device, request, payload, fds, reply=True)

    def notified(self, request: int) -> None:
        """A message of our own."""
        name = BackendRequest(request).name
        self._recorder.note(
            "message", export=self._export, direction="out", name=name, number=request, size=0, fds=0
        )

    def refused(self, request: int, reason: str) -> None:
        """Why a message was refused."""
        self._recorder.message(self._export, self._device, request, b"", 0, reply=True, refused=reason)

    def left(self, reason: str) -> None:
        """The front end is gone, or was dropped for a reason."""
        what = "dropped" if reason else "left"
        self._recorder.note(
            "export", export=self._export, what=what, **({"reason": reason} if reason else {})
        )


class Tokens:
    """Records lives of tokens. See `tokens/registry.Observer`."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder

    def minted(self, token: Token[Any]) -> None:
        """A token was made."""
        self._recorder.minted(token)

    def ended(self, token: Token[Any], cause: Fault) -> None:
        """A token has died."""
        self._recorder.token_ended(token, cause, loss_of(token, cause))


class Copies:
    """Records copies. See `tokens/operations.Observer`."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder

    def began(self, operation: Operation) -> None:
        """A copy runs."""
        self._recorder.copy("began", operation)

    def ended(self, operation: Operation) -> None:
        """A copy is over."""
        self._recorder.copy("ended", operation)
