"""Reads VPD pages as an initiator does, for checks; says nothing about whether they are right.

Imports `wire/scsi/fields`. Part of the kit that is copied into guests.
"""

from __future__ import annotations

from qemu_odx.wire.scsi.fields import u16

_HEADER = 4


def descriptors(page: bytes) -> list[tuple[int, bytes]]:
    """Type and whole bytes of each descriptor of VPD 8Fh (SPC-4 7.8.17); a cut one comes cut."""
    found, at = [], _HEADER
    while at + _HEADER <= len(page):
        length = _HEADER + u16(page, at + 2)
        found.append((u16(page, at), page[at : at + length]))
        at += length
    return found


def find(page: bytes, kind: int) -> bytes | None:
    """The first descriptor of a type."""
    return next((data for found, data in descriptors(page) if found == kind), None)


def designators(page: bytes) -> list[bytes]:
    """The designation descriptors of VPD 83h (SPC-4 7.8.6)."""
    found, at = [], _HEADER
    while at + _HEADER <= len(page):
        length = _HEADER + page[at + 3]
        found.append(page[at : at + length])
        at += length
    return found


def commands(descriptor: bytes) -> list[tuple[int, bytes]]:
    """Operation code and service actions in the supported commands descriptor, type 0001h."""
    found, at, end = [], 5, 5 + descriptor[4]
    while at + 2 <= min(end, len(descriptor)):
        count = descriptor[at + 1]
        found.append((descriptor[at], descriptor[at + 2 : at + 2 + count]))
        at += 2 + count
    return found


def rod_types(descriptor: bytes) -> list[tuple[int, int]]:
    """ROD type and flags (bit 1 TOKEN_IN, bit 0 TOKEN_OUT) in the descriptor of type 0108h."""
    places = range(8, len(descriptor) - 63, 64)
    return [(int.from_bytes(descriptor[at : at + 4], "big"), descriptor[at + 4]) for at in places]
