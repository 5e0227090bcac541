"""Big-endian fields of SCSI structures.

Imports nothing of ours. All offsets are bytes from the start of the structure, as the standards count.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import TypeAlias

    Buffer: TypeAlias = bytes | bytearray | memoryview

_U16 = struct.Struct(">H")
_U32 = struct.Struct(">I")
_U64 = struct.Struct(">Q")


def u16(data: Buffer, at: int) -> int:
    """The 16-bit field at byte `at`."""
    value: int = _U16.unpack_from(data, at)[0]
    return value


def u24(data: Buffer, at: int) -> int:
    """The 24-bit field at byte `at`."""
    return int.from_bytes(data[at : at + 3], "big")


def u32(data: Buffer, at: int) -> int:
    """The 32-bit field at byte `at`."""
    value: int = _U32.unpack_from(data, at)[0]
    return value


def u64(data: Buffer, at: int) -> int:
    """The 64-bit field at byte `at`."""
    value: int = _U64.unpack_from(data, at)[0]
    return value


def put16(data: bytearray, at: int, value: int) -> None:
    """Store a 16-bit field."""
    _U16.pack_into(data, at, value)


def put32(data: bytearray, at: int, value: int) -> None:
    """Store a 32-bit field."""
    _U32.pack_into(data, at, value)


def put64(data: bytearray, at: int, value: int) -> None:
    """Store a 64-bit field."""
    _U64.pack_into(data, at, value)


def padded(text: str, width: int) -> bytes:
    """An ASCII field: left-aligned, space-filled, cut at `width` bytes (SPC-4 4.3.1)."""
    return text.encode("ascii", "replace")[:width].ljust(width)


def with_length(body: bytes, head: bytes, width: int = 2) -> bytes:
    """`head`, then the length of `body` in `width` bytes, then `body`."""
    return head + len(body).to_bytes(width, "big") + body


def fill_to_multiple(data: bytes, multiple: int) -> bytes:
    """`data` followed by as many zero bytes as make its length a multiple of `multiple`."""
    return data + bytes(-len(data) % multiple)
