"""Bytes in a trace: always length and SHA-256, and the bytes themselves if they are wanted.

Imports nothing of ours. A run of one byte is written as that byte, other data as Base64, deflated if that makes it
shorter.
"""

from __future__ import annotations

import base64
import hashlib
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

INLINE: Final = 64 << 10
"""Longer data are packed by the thread that writes: hashing and deflating them takes its time."""
MOST: Final = 1 << 30
"""Longest data that are unpacked: a trace may come from anywhere."""
_WORTH_TRYING: Final = 256
"""Shorter data are not deflated."""
_BASE64_STEP: Final = 3 << 18
"""Bytes encoded at a time, a multiple of 3: other threads have their turn in between."""


class PayloadError(ValueError):
    """A record's bytes contradict each other, or are not there."""


@dataclass(frozen=True, slots=True)
class Raw:
    """Bytes that are still to be packed; `content`: not only their hash."""

    data: bytes
    content: bool

    def packed(self) -> bytes:
        """The member's JSON: that of `pack`, but made without copying the bytes through JSON."""
        members = pack(self.data, content=self.content, encode=_pieces)
        parts = [_member(name, value) for name, value in members.items()]
        return b"{" + b",".join(parts) + b"}"


def join(views: Sequence[memoryview], length: int | None = None) -> bytes:
    """The bytes of some buffers, copied; only the first `length` of them."""
    data = b"".join(views)
    return data if length is None else data[:length]


def member(data: bytes, *, content: bool) -> dict[str, Any] | Raw:
    """Bytes as a member of a record: packed, or to be packed where there is time."""
    return pack(data, content=content) if len(data) <= INLINE else Raw(data, content)


def _text(data: bytes) -> Any:
    return base64.b64encode(data).decode()


def _pieces(data: bytes) -> Any:
    return b"".join(
        base64.b64encode(data[at : at + _BASE64_STEP]) for at in range(0, len(data), _BASE64_STEP)
    )


def _member(name: str, value: int | str | bytes) -> bytes:
    text = b'"' + (value if isinstance(value, bytes) else str(value).encode()) + b'"'
    return b'"' + name.encode() + b'":' + (str(value).encode() if isinstance(value, int) else text)


def pack(data: bytes, *, content: bool, encode: Callable[[bytes], Any] = _text) -> dict[str, Any]:
    """Bytes as a member of a record; `content`: not only their hash."""
    record: dict[str, Any] = {"length": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    if not content:
        return record
    if data == data[:1] * len(data):
        record["fill"] = data[:1].hex()
        return record
    if len(data) >= _WORTH_TRYING:
        small = zlib.compress(data, 1)
        if len(small) < len(data):
            record["deflate"] = encode(small)
            return record
    record["base64"] = encode(data)
    return record


def has_content(record: dict[str, Any] | None) -> bool:
    """True if the bytes themselves are there."""
    return record is not None and bool(record.keys() & {"fill", "deflate", "base64"})


def unpack(record: dict[str, Any]) -> bytes:
    """The bytes.

    Raises:
        PayloadError: they are not there, or not those of the hash.
    """
    length: int = record["length"]
    if length > MOST:
        raise PayloadError(f"{length} bytes in one record: at most {MOST} are taken")
    data: bytes
    if "fill" in record:
        data = bytes.fromhex(record["fill"]) * length
    elif "base64" in record:
        data = base64.b64decode(record["base64"])
    elif "deflate" in record:
        data = _inflate(base64.b64decode(record["deflate"]), length)
    else:
        raise PayloadError("the bytes were not recorded: record with data=on")
    if len(data) != length or hashlib.sha256(data).hexdigest() != record["sha256"]:
        raise PayloadError(f"bytes that are not those of their hash {record['sha256']}")
    return data


def _inflate(small: bytes, length: int) -> bytes:
    """No more than is announced: a trace may come from anywhere."""
    try:
        return zlib.decompressobj().decompress(small, length + 1)
    except zlib.error as error:
        raise PayloadError(f"bytes that cannot be inflated: {error}") from error
