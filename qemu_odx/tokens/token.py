"""A token, alive and dead, and why it cannot be used.

Imports `wire/scsi`. Next: `registry.py` keeps them.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Generic, TypeVar

from qemu_odx.wire.scsi import rod_token

if TYPE_CHECKING:
    from collections.abc import Hashable

P = TypeVar("P")


class Fault(Enum):
    """Why a token cannot be used; the value is the ASCQ under ASC 23h (SPC-4 annex D)."""

    UNSUPPORTED_TYPE = 0x01
    UNKNOWN = 0x04
    CORRUPT = 0x05
    REVOKED = 0x06
    EXPIRED = 0x07
    CANCELLED = 0x08
    DELETED = 0x09
    LENGTH = 0x0A


@dataclass(slots=True, eq=False)
class Token(Generic[P]):
    """A live ROD token.

    Attributes:
        data: its 512 bytes.
        rod_type: the real type, never "any".
        length: bytes represented.
        creator: key of the logical unit it was made from.
        owner: I_T nexus it was made over (for quotas; whoever in the group holds the bytes may use them).
        group: of those who may use it; to all others it is unknown.
        payload: what it stands for (a snapshot), opaque here.
        inactivity_timeout: seconds it lives after its last use.
        deadline: clock time of its death if nothing uses it.
        end_of_life: clock time of its death in any case.
        users: copies running on it; it does not expire meanwhile.
        doomed: why it takes no new copies; it dies of that once those on it have ended.
        minted: clock time of its birth.
    """

    data: bytes
    rod_type: int
    length: int
    creator: Hashable
    owner: Hashable
    payload: P
    inactivity_timeout: float
    deadline: float
    end_of_life: float
    users: int = 0
    doomed: Fault | None = None
    group: str = ""
    minted: float = 0.0

    @property
    def identifier(self) -> int:
        """COPY MANAGER ROD TOKEN IDENTIFIER."""
        return rod_token.identifier(self.data)


@dataclass(frozen=True, slots=True)
class Tombstone:
    """A dead token: enough to recognise it, nothing of its secret (SPC-4 5.17.6.5 takes SHA-256 for a match)."""

    secret: bytes
    whole: bytes
    cause: Fault
    owner: Hashable
    group: str
    forget_at: float

    def matches(self, data: bytes) -> Fault:
        """The cause of death if these are the token's bytes."""
        if not hmac.compare_digest(self.secret, _digest(data[rod_token.SECRET_OFFSET :])):
            return Fault.UNKNOWN
        return self.cause if hmac.compare_digest(self.whole, _digest(data)) else Fault.CORRUPT


def tombstone(data: bytes, cause: Fault, owner: Hashable, group: str, forget_at: float) -> Tombstone:
    """The tombstone of the token with these 512 bytes."""
    secret, whole = _digest(data[rod_token.SECRET_OFFSET :]), _digest(data)
    return Tombstone(secret, whole, cause, owner, group, forget_at)


def _digest(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()
