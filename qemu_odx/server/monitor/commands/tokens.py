"""Commands on tokens.

Imports `tokens/` and `server/news.py` for their names. The 512 bytes of a token are a secret and never told.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

from qemu_odx.server.monitor.errors import MonitorError, not_found
from qemu_odx.server.news import token_name
from qemu_odx.target.port import LoginNexus
from qemu_odx.tokens.token import Fault
from qemu_odx.wire.scsi.rod_token import RodType

if TYPE_CHECKING:
    from collections.abc import Hashable

    from qemu_odx.disk.port import Snapshot
    from qemu_odx.server.backend import Backend
    from qemu_odx.tokens.token import Token

MOST_EXTENTS = 16
"""Extents of a token that are told; the rest is counted."""
MOST_TOKENS = 1000


@dataclass(frozen=True, slots=True)
class ExtentInfo:
    """A run of bytes of a disk.

    Attributes:
        offset: first byte.
        length: bytes.
    """

    offset: int
    length: int


@dataclass(frozen=True, slots=True)
class TokenInfo:
    """A live token.

    Attributes:
        token: its identifier, 16 hexadecimal digits: COPY MANAGER ROD TOKEN IDENTIFIER.
        disk: the disk that it was made from.
        type: its ROD type: `point-in-time-default`, `point-in-time-change-vulnerable` or `point-in-time-persistent`.
        length: bytes it stands for.
        extents: where these bytes were, in their order; 16 of them at most.
        extent_count: how many extents there are.
        age: seconds since it was made, or taken over by a restarted server.
        expires_in: seconds until it ends if nothing uses it.
        users: copies that run on it now.
        snapshot: how the old data is held: `reflink` or `copy-before-write`.
        pinned_bytes: bytes of old data that are kept for it alone.
        lost: its old data could not be kept: it is cancelled, once the copies that run on it have ended.
        owner: the I_T nexus it was made over: the socket, and which driver's life there.
        group: exports of that group know it; empty if no export names a group.
        doomed: why it takes no new copies while one still runs: `revoked`, `cancelled` or `deleted`.
    """

    token: str
    disk: str
    type: str
    length: int
    extents: list[ExtentInfo]
    extent_count: int
    age: float
    expires_in: float
    users: int
    snapshot: str
    pinned_bytes: int
    lost: bool
    owner: str
    group: str
    doomed: str | None = None


def query(
    backend: Backend,
    token: str | None = None,
    disk: str | None = None,
    after: str | None = None,
    limit: int = 100,
) -> list[TokenInfo]:
    """Live tokens by their identifiers, which count up as long as the server runs.

    What makes a token good for a copy is not told.

    Args:
        token: only this one.
        disk: only those made from this disk.
        after: only those with a larger identifier than this one: for the next page.
        limit: how many at most, up to 1000.

    Example:
        -> {"execute": "query-odx-tokens"}
        <- {"return": [{"token": "5e1f00a200000001", "disk": "d0", "type": "point-in-time-default",
                        "length": 1048576, "extents": [{"offset": 0, "length": 1048576}],
                        "extent-count": 1, "age": 1.5, "expires-in": 58.5, "users": 0,
                        "snapshot": "copy-before-write", "pinned-bytes": 65536, "lost": false,
                        "owner": "s.sock#0", "group": ""}]}
    """
    if not 1 <= limit <= MOST_TOKENS:
        raise MonitorError(f"'limit' must be from 1 to {MOST_TOKENS}: ask for more with 'after'")
    if disk is not None and disk not in backend.disks:
        raise not_found("disk", disk, list(backend.disks))
    backend.manager.tokens.expire()
    if token is not None:
        return [_info(backend, find(backend, token))]
    first = 0 if after is None else _identifier(after) + 1
    chosen = (
        item
        for item in backend.manager.tokens
        if item.identifier >= first and (disk is None or item.creator == disk)
    )
    page = heapq.nsmallest(limit, chosen, key=lambda item: item.identifier)
    return [_info(backend, item) for item in page]


def revoke(backend: Backend, token: str) -> None:
    """Ends a token: from now on who uses it is told 23/06 (INVALID TOKEN OPERATION, TOKEN REVOKED).

    A copy that already runs on it goes on to its end.

    Args:
        token: its identifier, as `query-odx-tokens` tells it.

    Example:
        -> {"execute": "odx-token-revoke", "arguments": {"token": "5e1f00a200000001"}}
        <- {"return": {}}
    """
    backend.manager.tokens.kill(find(backend, token), Fault.REVOKED)


def find(backend: Backend, name: str) -> Token[Snapshot]:
    """A live token by its identifier. Raises MonitorError."""
    tokens = backend.manager.tokens
    tokens.expire()
    found = tokens.find(_identifier(name))
    if found is None:
        raise not_found("live token", name, [token_name(item) for item in islice(tokens, 16)])
    return found


def owner_name(nexus: Hashable) -> str:
    """An I_T nexus for people: the socket, and which life of a driver there."""
    return f"{nexus.port}#{nexus.life}" if isinstance(nexus, LoginNexus) else str(nexus)


def _identifier(name: str) -> int:
    try:
        return int(name, 16)
    except ValueError:
        raise MonitorError(f"'{name}' is no token's identifier: it has 16 hexadecimal digits") from None


def _info(backend: Backend, token: Token[Snapshot]) -> TokenInfo:
    now, payload = backend.manager.clock(), token.payload
    return TokenInfo(
        token=token_name(token),
        disk=str(token.creator),
        type=RodType(token.rod_type).name.lower().replace("_", "-"),
        length=token.length,
        extents=[ExtentInfo(item.offset, item.length) for item in payload.extents[:MOST_EXTENTS]],
        extent_count=len(payload.extents),
        age=now - token.minted,
        expires_in=max(0.0, token.deadline - now),
        users=token.users,
        snapshot=payload.method,
        pinned_bytes=payload.held_bytes(),
        lost=payload.lost,
        owner=owner_name(token.owner),
        group=token.group,
        doomed=token.doomed.name.lower() if token.doomed else None,
    )
