"""The events of the server, as values, and where those of the copy manager come from.

Imports `tokens/` and `target/`. Told through `server/events.py`; the monitor sends them to its clients under the
names of `server/monitor/table.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from qemu_odx.tokens.operations import OperationStatus
from qemu_odx.tokens.token import Fault

if TYPE_CHECKING:
    from qemu_odx.disk.port import Snapshot
    from qemu_odx.server.events import Events
    from qemu_odx.target.manager import CopyManager
    from qemu_odx.tokens.operations import Operation
    from qemu_odx.tokens.token import Token


@dataclass(frozen=True, slots=True)
class Shutdown:
    """The server ends.

    Attributes:
        guest: always false: no guest can end it.
        reason: `host-qmp-quit` or `host-signal`.
    """

    guest: bool
    reason: str


@dataclass(frozen=True, slots=True)
class FrontEndConnected:
    """A front end (a QEMU) has connected.

    Attributes:
        export: name of the export.
    """

    export: str


@dataclass(frozen=True, slots=True)
class FrontEndGone:
    """The front end has left, and nothing of it is in flight any more.

    Attributes:
        export: name of the export.
    """

    export: str


@dataclass(frozen=True, slots=True)
class DiskResized:
    """A disk shows another size.

    Attributes:
        disk: name of the disk.
        size: bytes.
    """

    disk: str
    size: int


@dataclass(frozen=True, slots=True)
class CorruptionFound:
    """A block does not hold what was written last (layer `verify`); `query-odx-corruption` has the details.

    Attributes:
        disk: name of the disk.
        block: number of the block.
        text: who found it, who wrote it, who else was at it.
    """

    disk: str
    block: int
    text: str


@dataclass(frozen=True, slots=True)
class FaultFired:
    """A fault rule has hit a request.

    Attributes:
        fault: name of the rule.
        request: the operation, and the disk that it was for.
        fired: how often the rule has hit, this one included.
        state: `armed`, or `spent` if this was the last one.
    """

    fault: str
    request: str
    fired: int
    state: str


@dataclass(frozen=True, slots=True)
class TokenCreated:
    """POPULATE TOKEN has made a token.

    Attributes:
        token: its identifier, 16 hexadecimal digits.
        disk: name of the disk it was made from.
        length: bytes it stands for.
    """

    token: str
    disk: str
    length: int


@dataclass(frozen=True, slots=True)
class TokenEnded:
    """A token is good for nothing any more.

    Attributes:
        token: its identifier, 16 hexadecimal digits.
        disk: name of the disk it was made from.
        cause: `revoked`, `expired`, `cancelled` or `deleted`.
        reason: why it was cancelled, if its old data could not be kept: what the host said.
    """

    token: str
    disk: str
    cause: str
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class CopyStarted:
    """A copy operation has begun.

    Attributes:
        copy: its number.
        disks: the disks that it reads or writes.
    """

    copy: int
    disks: list[str]


@dataclass(frozen=True, slots=True)
class CopyEnded:
    """A copy operation is over.

    Attributes:
        copy: its number.
        status: `done`, `error`, `partial` or `terminated`.
        count: TRANSFER COUNT: logical blocks of the destination, in the order of the descriptors.
    """

    copy: int
    status: str
    count: int


def token_name(token: Token[Snapshot]) -> str:
    """How the monitor calls a token: its COPY MANAGER ROD TOKEN IDENTIFIER. It is no secret."""
    return f"{token.identifier:016x}"


def loss_of(token: Token[Snapshot], cause: Fault) -> str | None:
    """Why a token's old data could not be kept, if it died of that."""
    return (cause is Fault.CANCELLED and token.payload.loss) or None


class _Tokens:
    """Tells of tokens. See `tokens/registry.Observer`."""

    def __init__(self, events: Events) -> None:
        self._events = events

    def minted(self, token: Token[Snapshot]) -> None:
        """A token was made."""
        if self._events:
            self._events.tell(TokenCreated(token_name(token), str(token.creator), token.length))

    def ended(self, token: Token[Snapshot], cause: Fault) -> None:
        """A token has died."""
        if self._events:
            about = token_name(token), str(token.creator), cause.name.lower()
            self._events.tell(TokenEnded(*about, loss_of(token, cause)))


class _Copies:
    """Tells of copies. See `tokens/operations.Observer`."""

    def __init__(self, events: Events) -> None:
        self._events = events

    def began(self, operation: Operation) -> None:
        """A copy operation runs."""
        if self._events:
            self._events.tell(CopyStarted(operation.number, sorted(map(str, operation.disks))))

    def ended(self, operation: Operation) -> None:
        """A copy operation is over."""
        if self._events:
            status = OperationStatus(operation.status).name.lower()
            self._events.tell(CopyEnded(operation.number, status, operation.count))


def forward(manager: CopyManager, events: Events) -> None:
    """Tell of everything that happens to tokens and copies."""
    manager.tokens.observers.append(_Tokens(events))
    manager.operations.observers.append(_Copies(events))
