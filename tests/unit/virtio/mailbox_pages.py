"""The structures of `docs/mailbox.md`, field by field from its tables: an encoder that shares nothing with ours."""

from __future__ import annotations

from zlib import crc32

REQUEST, RESPONSE = b"ODXQ", b"ODXA"


def put(page: bytearray, offset: int, size: int, value: int | bytes) -> None:
    """One row of a table."""
    raw = value if isinstance(value, bytes) else value.to_bytes(size, "little")
    assert len(raw) <= size
    page[offset : offset + size] = raw.ljust(size, b"\0")


def get(page: bytes, offset: int, size: int) -> int:
    """A number in a row of a table."""
    return int.from_bytes(page[offset : offset + size], "little")


def request(
    cdb: bytes,
    data_out: bytes = b"",
    *,
    wanted: int = 0,
    sequence: int = 1,
    user: int = 0x1122334455667788,
    **changes: int | bytes,
) -> bytes:
    """A request; `changes` replace fields before the checksum is made (`checksum` replaces that)."""
    fields: dict[str, tuple[int, int, int | bytes]] = {
        "magic": (0, 4, REQUEST),
        "version": (4, 2, 1),
        "header_length": (6, 2, 96),
        "sequence": (8, 8, sequence),
        "user": (16, 8, user),
        "cdb_length": (24, 4, len(cdb)),
        "out_length": (28, 4, len(data_out)),
        "in_length": (32, 4, wanted),
        "cdb": (48, 32, cdb),
    }
    page = bytearray(96) + data_out
    for name, (offset, size, value) in fields.items():
        put(page, offset, size, changes.get(name, value))
    put(page, 36, 4, changes.get("checksum", crc32(page)))
    return bytes(page)


def response(sequence: int, user: int, result: int) -> bytes:
    """The response area after a refusal."""
    page = bytearray(96)
    put(page, 0, 4, RESPONSE)
    put(page, 4, 2, 1)
    put(page, 6, 2, 96)
    put(page, 8, 8, sequence)
    put(page, 16, 8, user)
    put(page, 24, 4, result)
    put(page, 44, 4, crc32(page))
    return bytes(page.ljust(8192, b"\0"))


def sound(page: bytes) -> bool:
    """True if a response area has the magic, version, header length and checksum that the page asks for."""
    length = 96 + get(page, 36, 4)
    blank = bytearray(page[:length])
    put(blank, 44, 4, 0)
    first = (page[:4], get(page, 4, 2), get(page, 6, 2))
    return first == (RESPONSE, 1, 96) and get(page, 44, 4) == crc32(blank)
