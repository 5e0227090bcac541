"""Parameter lists and data of PERSISTENT RESERVE OUT and PERSISTENT RESERVE IN (SPC-4 6.13, 6.14).

Imports `wire/scsi/fields`. Next: `target/commands/reservation.py`.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING

from qemu_odx.wire.scsi.fields import put16, put32, u64, with_length

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Self

LIST_LENGTH = 24
"""Bytes of the basic parameter list (SPC-4 6.14.3)."""
_GENERATION_SIZE = 4
_LU_SCOPE = 0x0


class Kind(IntEnum):
    """TYPE of a persistent reservation (SPC-4 6.13.3.4, table 152)."""

    WRITE_EXCLUSIVE = 0x1
    EXCLUSIVE_ACCESS = 0x3
    WRITE_EXCLUSIVE_REGISTRANTS_ONLY = 0x5
    EXCLUSIVE_ACCESS_REGISTRANTS_ONLY = 0x6
    WRITE_EXCLUSIVE_ALL_REGISTRANTS = 0x7
    EXCLUSIVE_ACCESS_ALL_REGISTRANTS = 0x8

    @property
    def exclusive_access(self) -> bool:
        """Others may not even read."""
        return self in {0x3, 0x6, 0x8}

    @property
    def for_registrants(self) -> bool:
        """Whoever is registered may read and write."""
        return self >= self.WRITE_EXCLUSIVE_REGISTRANTS_ONLY

    @property
    def all_registrants(self) -> bool:
        """Whoever is registered holds it."""
        return self >= self.WRITE_EXCLUSIVE_ALL_REGISTRANTS


_TYPE_MASK = 0xEA01
"""Every type of `Kind` is supported (SPC-4 6.13.4, table 154)."""


@dataclass(frozen=True, slots=True)
class ReserveOut:
    """The parameter list of PERSISTENT RESERVE OUT.

    Attributes:
        key: RESERVATION KEY.
        action_key: SERVICE ACTION RESERVATION KEY.
        flags: byte 20.
    """

    key: int
    action_key: int
    flags: int = 0

    @property
    def unsupported_bit(self) -> int | None:
        """The highest of SPEC_I_PT (3), ALL_TG_PT (2) and APTPL (0) that is set: none of them is offered."""
        return next((bit for bit in (3, 2, 0) if self.flags & 1 << bit), None)

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """From `LIST_LENGTH` bytes."""
        return cls(u64(data, 0), u64(data, 8), data[20])

    def packed(self) -> bytes:
        """The parameter list."""
        return (
            self.key.to_bytes(8, "big")
            + self.action_key.to_bytes(8, "big")
            + bytes((0, 0, 0, 0, self.flags, 0, 0, 0))
        )


@dataclass(frozen=True, slots=True)
class FullStatus:
    """One registration as READ FULL STATUS tells it (SPC-4 6.13.5).

    Attributes:
        key: the reservation key.
        kind: type of the reservation if this registration holds it, else None.
        initiator: a name of the initiator port.
    """

    key: int
    kind: Kind | None
    initiator: str

    def packed(self, target_port: int) -> bytes:
        """The full status descriptor."""
        data = bytearray(20)
        data[0:8] = self.key.to_bytes(8, "big")
        if self.kind is not None:
            data[12], data[13] = 0x01, _LU_SCOPE << 4 | self.kind
        put16(data, 18, target_port)
        return with_length(transport_id(self.initiator), bytes(data), 4)


def transport_id(name: str) -> bytes:
    """A TransportID of 24 bytes: virtio has none of its own, so a locally assigned SAS address made of a name.

    SPC-4 7.6.4.7; NAA 3h is for the locally assigned.
    """
    address = 0x3 << 60 | int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") >> 4
    return bytes((0x06, 0, 0, 0)) + address.to_bytes(8, "big") + bytes(12)


def read_keys(generation: int, keys: Iterable[int]) -> bytes:
    """READ KEYS (SPC-4 6.13.2)."""
    return _answer(generation, b"".join(key.to_bytes(8, "big") for key in keys))


def read_reservation(generation: int, key: int, kind: Kind | None) -> bytes:
    """READ RESERVATION (SPC-4 6.13.3); `key` is 0 for all registrants types."""
    if kind is None:
        return _answer(generation, b"")
    return _answer(generation, key.to_bytes(8, "big") + bytes((0, 0, 0, 0, 0, _LU_SCOPE << 4 | kind, 0, 0)))


def read_full_status(generation: int, registrations: Sequence[FullStatus], target_port: int) -> bytes:
    """READ FULL STATUS (SPC-4 6.13.5)."""
    return _answer(generation, b"".join(item.packed(target_port) for item in registrations))


def report_capabilities() -> bytes:
    """REPORT CAPABILITIES (SPC-4 6.13.4): CRH, TMV and every type; no SPEC_I_PT, ALL_TG_PT or APTPL."""
    data = bytearray(8)
    put16(data, 0, len(data))
    data[2] = 0x10
    data[3] = 0x80
    put16(data, 4, _TYPE_MASK)
    return bytes(data)


def _answer(generation: int, body: bytes) -> bytes:
    head = bytearray(_GENERATION_SIZE)
    put32(head, 0, generation)
    return with_length(body, bytes(head), 4)
