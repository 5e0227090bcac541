"""Which token of the recording is which of the replay: their bytes differ, as every token has its own secret.

Imports `wire/scsi`. A token that the guest had damaged is damaged in the same way.
"""

from __future__ import annotations

from qemu_odx.wire.scsi import rod_token
from qemu_odx.wire.scsi.rod_token import MANAGEMENT_SIZE, TOKEN_SIZE


class TokenMap:
    """Pairs of tokens, recorded and replayed."""

    def __init__(self) -> None:
        self._pairs: dict[bytes, bytes] = {}
        self._by_identifier: dict[int, bytes] = {}

    def learn(self, recorded: bytes, replayed: bytes) -> None:
        """These two mean the same."""
        if recorded not in self._pairs:
            self._pairs[recorded] = replayed
            self._by_identifier[rod_token.identifier(recorded)] = recorded

    def named(self, identifier: str) -> bytes | None:
        """The replay's token for the name that the recording gives it."""
        recorded = self._by_identifier.get(int(identifier, 16))
        return None if recorded is None else self._pairs[recorded]

    def sent(self, recorded: bytes) -> bytes | None:
        """What to send for a token that was sent; None for one that was never seen to be made."""
        if recorded in self._pairs:
            return self._pairs[recorded]
        if rod_token.is_zero_token(recorded):
            return recorded
        known = self._by_identifier.get(rod_token.identifier(recorded)) or self._nearest(recorded)
        if known is None:
            return None
        damage = int.from_bytes(known, "big") ^ int.from_bytes(recorded, "big")
        return (int.from_bytes(self._pairs[known], "big") ^ damage).to_bytes(TOKEN_SIZE, "big")

    def expected(self, data: bytes) -> bytes:
        """Recorded parameter data as the replay should bring them: with its own tokens inside."""
        for recorded, replayed in self._pairs.items():
            data = data.replace(recorded, replayed)
            data = data.replace(recorded[:MANAGEMENT_SIZE], replayed[:MANAGEMENT_SIZE])
        return data

    def _nearest(self, recorded: bytes) -> bytes | None:
        """The token with the same secret: its identifier was damaged."""
        secret = recorded[rod_token.SECRET_OFFSET :]
        return next((known for known in self._pairs if known[rod_token.SECRET_OFFSET :] == secret), None)
