"""The tokens of one copy manager: minted, resolved in constant time, dead and remembered.

Imports `wire/scsi`, `tokens/token` and `tokens/limits`. The clock (seconds) and the randomness are handed in.
`resolve` answers with a live token or with the reason why not, as a value; `target/commands/write_token.py` turns
that into sense.
"""

from __future__ import annotations

import heapq
import hmac
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

from qemu_odx.tokens.token import Fault, Token, Tombstone, tombstone
from qemu_odx.wire.scsi import rod_token
from qemu_odx.wire.scsi.rod_token import MINTED_TYPES, RodType, TokenHeader

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping

    from qemu_odx.tokens.journal import TokenJournal
    from qemu_odx.tokens.limits import Quotas

P = TypeVar("P")

REMEMBERED_AT_LEAST = 3600.0
"""Seconds for which the cause of a token's death is known: at least twice its life (SPC-4 5.17.6.5)."""


class Observer(Protocol[P]):
    """Who wants to know of tokens that come and go. It must not change them from inside such a call."""

    def minted(self, token: Token[P]) -> None:
        """A token was made."""

    def ended(self, token: Token[P], cause: Fault) -> None:
        """A token has died; its payload is still there, and released next."""


def _never(_payload: object) -> bool:
    """No payload is ever lost."""
    return False


def _nobody() -> None:
    """Nobody wants to know."""


def _itself(owner: Hashable) -> Hashable:
    """Every owner has a quota of its own."""
    return owner


@dataclass(slots=True)
class _Account:
    """What one I_T nexus holds."""

    tokens: int = 0
    length: int = 0
    graves: dict[int, None] = field(default_factory=dict)  # identifiers of dead tokens, oldest first


@dataclass(slots=True)
class TokenRegistry(Generic[P]):
    """All tokens of a copy manager.

    Args:
        clock: seconds, monotonic.
        random: returns that many secure random bytes.
        quotas: how many tokens and tombstones are kept.
        released: called with the payload of every token that died and is no longer in use.
        lost: whether a payload is good for nothing any more, which happens while nobody looks.
        journal: notes what a successor must know; None: nothing outlives the process.
        holder: whose quota an owner uses: a guest that resets its driver again and again stays one.

    Attributes:
        observers: told of births and deaths.
        rescheduled: called when `next_deadline` may be another.
    """

    clock: Callable[[], float]
    random: Callable[[int], bytes]
    quotas: Quotas
    released: Callable[[P], None]
    lost: Callable[[P], bool] = _never
    observers: list[Observer[P]] = field(default_factory=list)
    rescheduled: Callable[[], None] = _nobody
    _live: dict[int, Token[P]] = field(default_factory=dict)
    _accounts: dict[Hashable, _Account] = field(default_factory=dict)
    _dead: dict[int, Tombstone] = field(default_factory=dict)
    _deadlines: list[tuple[float, int]] = field(default_factory=list)
    _nonce: int = 0
    _minted: int = 0
    journal: TokenJournal[P] | None = None
    holder: Callable[[Hashable], Hashable] = _itself

    def __post_init__(self) -> None:
        # A boot nonce above the counter: a restart never gives out an identifier that was in use before.
        self._nonce = int.from_bytes(self.random(4), "big") or 1

    def restore(self, tokens: Iterable[Token[P]], graves: Mapping[int, Tombstone]) -> None:
        """Go on with a predecessor's tokens and tombstones. Once, before all else."""
        for token in tokens:
            self._enter(token)
        for identifier, grave in graves.items():
            self._dead[identifier] = grave
            heapq.heappush(self._deadlines, (grave.forget_at, identifier))
            self._account(grave.owner).graves[identifier] = None
        nonces = {identifier >> 32 for identifier in (*self._live, *self._dead)}
        while self._nonce in nonces:
            self._nonce = int.from_bytes(self.random(4), "big") or 1

    def __len__(self) -> int:
        return len(self._live)

    def __iter__(self) -> Iterator[Token[P]]:
        return iter(tuple(self._live.values()))

    def find(self, identifier: int) -> Token[P] | None:
        """The live token with this identifier, which proves nothing about who asks."""
        return self._live.get(identifier)

    def room(self, owner: Hashable, length: int) -> bool:
        """True if one more token of `length` bytes may be minted for this nexus."""
        self.expire()
        account, quotas = self._accounts.get(self.holder(owner)) or _Account(), self.quotas
        return (
            len(self._live) < quotas.tokens
            and account.tokens < quotas.tokens_per_nexus
            and account.length + length <= quotas.pinned_bytes
        )

    def next_identifier(self) -> int:
        """A COPY MANAGER ROD TOKEN IDENTIFIER not used before: boot nonce, then a counter."""
        self._minted = (self._minted + 1) & 0xFFFFFFFF
        return self._nonce << 32 | self._minted

    def mint(
        self,
        header: TokenHeader,
        payload: P,
        *,
        creator: Hashable,
        owner: Hashable,
        inactivity_timeout: float,
        lifetime: float,
        group: str = "",
    ) -> Token[P]:
        """Make a token. `header.identifier` comes from `next_identifier`."""
        now = self.clock()
        data = header.token(self.random(rod_token.SECRET_SIZE))
        token = Token(
            data,
            header.rod_type,
            header.length,
            creator,
            owner,
            payload,
            inactivity_timeout,
            now + inactivity_timeout,
            now + lifetime,
            group=group,
            minted=now,
        )
        self._enter(token)
        if self.journal:
            self.journal.minted(token)
        for observer in self.observers:
            observer.minted(token)
        if self.lost(payload):
            self.kill(token, Fault.CANCELLED)
        return token

    def _enter(self, token: Token[P]) -> None:
        self._live[token.identifier] = token
        account = self._account(token.owner)
        account.tokens += 1
        account.length += token.length
        self._schedule(token)

    def resolve(self, data: bytes, group: str = "", *, begun: bool = False) -> Token[P] | Fault:
        """The live token with exactly these 512 bytes, or why there is none (SPC-4 5.17.6.5).

        `begun` is for a copy that goes on: a doomed token is still there for it.

        Comparisons of secrets take the same time whatever differs. A token of another group is as unknown as one
        that never was, dead or alive.
        """
        self.expire()
        if rod_token.length_field(data) != rod_token.ROD_TOKEN_LENGTH:
            return Fault.LENGTH
        if rod_token.rod_type(data) not in MINTED_TYPES:
            return Fault.UNSUPPORTED_TYPE
        identifier = rod_token.identifier(data)
        token = self._live.get(identifier)
        if token is None:
            grave = self._dead.get(identifier)
            return grave.matches(data) if grave and grave.group == group else Fault.UNKNOWN
        if token.group != group or not _same_secret(token.data, data):
            return Fault.UNKNOWN
        if not hmac.compare_digest(token.data, data):
            return Fault.CORRUPT
        return token if begun else token.doomed or token

    def hold(self, token: Token[P]) -> None:
        """A copy begins to use the token: it does not expire until `let_go`."""
        token.users += 1

    def let_go(self, token: Token[P]) -> None:
        """The copy is over: the inactivity timer starts anew (SPC-4 5.17.6.5)."""
        token.users -= 1
        if token.users == 0 and token.doomed is not None:
            self._bury(token, token.doomed)
            return
        token.deadline = min(self.clock() + token.inactivity_timeout, token.end_of_life)
        self._schedule(token)
        if self.journal:
            self.journal.used(token)

    def kill(self, token: Token[P], cause: Fault) -> None:
        """End a token's life; while a copy uses it the payload stays until `let_go`."""
        if self._live.get(token.identifier) is not token:
            return
        if token.users:
            if token.doomed is None:
                token.doomed = cause
                if self.journal:
                    self.journal.doomed(token.identifier, self._grave(token, cause))
            return
        self._bury(token, cause)

    def kill_made_from(self, creator: Hashable, cause: Fault) -> int:
        """End every token made from a logical unit; how many there were."""
        doomed = [token for token in self if token.creator == creator]
        for token in doomed:
            self.kill(token, cause)
        return len(doomed)

    def cancel_lost(self) -> None:
        """End the tokens whose payload is lost: to be called after each loss."""
        for token in self:
            if self.lost(token.payload):
                self.kill(token, Fault.CANCELLED)

    def management_tokens(self, group: str = "") -> list[bytes]:
        """Bytes 0-95 of every live token of a group, oldest first: no secret among them."""
        self.expire()
        size = rod_token.MANAGEMENT_SIZE
        return [token.data[:size] for token in self._live.values() if token.group == group]

    def next_deadline(self) -> float | None:
        """Clock time at which `expire` has something to do."""
        return self._deadlines[0][0] if self._deadlines else None

    def expire(self) -> None:
        """End the tokens whose time is over; forget tombstones past theirs."""
        now = self.clock()
        while self._deadlines and self._deadlines[0][0] <= now:
            _, identifier = heapq.heappop(self._deadlines)
            token, grave = self._live.get(identifier), self._dead.get(identifier)
            if token is not None and token.users == 0 and token.deadline <= now:
                lost = self.lost(token.payload)
                self._bury(token, token.doomed or (Fault.CANCELLED if lost else Fault.EXPIRED))
            elif grave is not None and grave.forget_at <= now:
                self._forget(identifier)

    def _schedule(self, token: Token[P]) -> None:
        token.deadline = min(token.deadline, token.end_of_life)
        heapq.heappush(self._deadlines, (token.deadline, token.identifier))
        if len(self._deadlines) > 64 + 4 * (len(self._live) + len(self._dead)):
            live = [(item.deadline, key) for key, item in self._live.items()]
            self._deadlines = live + [(item.forget_at, key) for key, item in self._dead.items()]
            heapq.heapify(self._deadlines)
        self.rescheduled()

    def _bury(self, token: Token[P], cause: Fault) -> None:
        del self._live[token.identifier]
        account = self._account(token.owner)
        account.tokens -= 1
        account.length -= token.length
        self._dead[token.identifier] = grave = self._grave(token, cause)
        heapq.heappush(self._deadlines, (grave.forget_at, token.identifier))
        account.graves[token.identifier] = None
        if self.journal:
            self.journal.buried(token.identifier, grave)
        if len(account.graves) > self.quotas.tombstones:
            self._forget(next(iter(account.graves)))
        self.rescheduled()
        for observer in self.observers:
            observer.ended(token, cause)
        self.released(token.payload)

    def _grave(self, token: Token[P], cause: Fault) -> Tombstone:
        forget_at = self.clock() + max(2 * token.inactivity_timeout, REMEMBERED_AT_LEAST)
        return tombstone(token.data, cause, token.owner, token.group, forget_at)

    def _forget(self, identifier: int) -> None:
        """Drop a tombstone: past its time, or one too many of its nexus."""
        owner = self._dead.pop(identifier).owner
        if self.journal:
            self.journal.forgotten(identifier)
        account = self._account(owner)
        del account.graves[identifier]
        if not account.tokens and not account.graves:
            del self._accounts[self.holder(owner)]

    def _account(self, owner: Hashable) -> _Account:
        return self._accounts.setdefault(self.holder(owner), _Account())


def _same_secret(known: bytes, shown: bytes) -> bool:
    return hmac.compare_digest(known[rod_token.SECRET_OFFSET :], shown[rod_token.SECRET_OFFSET :])


def real_type(requested: int | None) -> RodType | None:
    """The type a token gets for a requested ROD TYPE; None if that type cannot be populated.

    No request means point in time default; "any" is answered with the persistent type (SBC-5 5.12).
    """
    if requested is None:
        return RodType.POINT_IN_TIME_DEFAULT
    if requested == RodType.POINT_IN_TIME_ANY:
        return RodType.POINT_IN_TIME_PERSISTENT
    return RodType(requested) if requested in MINTED_TYPES else None
