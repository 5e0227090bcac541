"""The mailbox's structures as bytes, against literals laid out by hand from `docs/mailbox.md`."""

from __future__ import annotations

from dataclasses import replace
from zlib import crc32

import pytest

from qemu_odx.wire import mailbox as wire
from qemu_odx.wire.mailbox import Head, MailboxFormatError, Request, Response, Result

NAA = bytes.fromhex("6525400000000000000000000000000a")
HEAD = Head(524288, 512, NAA, "SERIAL0")
HEAD_BYTES = bytes.fromhex(
    "51454d552d4f44582d4d41494c424f58"  # magic
    "01000000 10000000 00400000 00400000"  # version, slots, slot size, slot 0
    "00200000 a01f0000 a01f0000 00020000"  # response area, most out, most in, block size
    "0000080000000000 0040040000000000"  # place, length
    "6525400000000000000000000000000a"  # NAA
    "53455249414c3000000000000000000000000000"  # serial
    "0000000000000000000000000000000000000000"  # reserved
    "1e000000"  # lease
)

REQUEST = Request(7, 0x1122334455667788, bytes.fromhex("120180001400"), b"\xab\xcd", 20)
REQUEST_BYTES = bytes.fromhex(
    "4f445851 0100 6000 0700000000000000 8877665544332211"  # magic, version, header, sequence, user
    "06000000 02000000 14000000 00000000 0000000000000000"  # CDB, out, in, checksum, reserved
    "1201800014000000000000000000000000000000000000000000000000000000"  # CDB
    "00000000000000000000000000000000 abcd"  # reserved, data-out
)

RESPONSE = Response(7, 0x1122334455667788, 0, 2, bytes.fromhex("70000600"), b"\x01\x02\x03", 9)
RESPONSE_BYTES = bytes.fromhex(
    "4f445841 0100 6000 0700000000000000 8877665544332211"  # magic, version, header, sequence, user
    "00000000 02000000 04000000 03000000 09000000 00000000"  # result, status, sense, in, offered, checksum
    "7000060000000000000000000000000000000000000000000000000000000000"  # sense
    "00000000000000000000000000000000 010203"  # reserved, data-in
)


def with_checksum(message: bytes, at: int) -> bytes:
    """The CRC-32 of the message with that field 0, put there."""
    return message[:at] + crc32(message).to_bytes(4, "little") + message[at + 4 :]


def test_the_window_is_as_long_as_the_page_says() -> None:
    """16 slots and the head page."""
    assert wire.WINDOW == 278528


def test_head_page() -> None:
    """Every field in its place, both ways."""
    golden = HEAD_BYTES + crc32(HEAD_BYTES).to_bytes(4, "little")
    assert len(golden) == 128
    assert HEAD.packed() == golden
    assert Head.parse(golden + bytes(384)) == HEAD


@pytest.mark.parametrize(
    ("at", "reason"), [(0, "no mailbox"), (16, "checksum"), (80, "checksum"), (127, "checksum")]
)
def test_a_damaged_head_is_none(at: int, reason: str) -> None:
    """Plain data, or a damaged page, is not taken for a mailbox."""
    damaged = bytearray(HEAD.packed())
    damaged[at] ^= 1
    with pytest.raises(MailboxFormatError, match=reason):
        Head.parse(bytes(damaged))


@pytest.mark.parametrize("at", [16, 20, 24, 28, 32, 36, 40, 56, 120])
def test_a_head_of_another_kind_is_not_understood(at: int) -> None:
    """Another version or geometry with a right checksum: a driver of version 1 leaves it alone."""
    other = bytearray(HEAD_BYTES)
    other[at] ^= 4
    with pytest.raises(MailboxFormatError, match="is not known"):
        Head.parse(bytes(other) + crc32(other).to_bytes(4, "little"))


def test_request() -> None:
    """Every field in its place, both ways; what stands behind the data-out does not matter."""
    golden = with_checksum(REQUEST_BYTES, 36)
    assert REQUEST.packed() == golden
    assert wire.fault(golden.ljust(512, b"\xee")) is Result.EXECUTED
    assert Request.parse(golden.ljust(512, b"\xee")) == REQUEST
    assert wire.identity(golden) == (7, 0x1122334455667788)


def test_response() -> None:
    """Every field in its place, both ways."""
    golden = with_checksum(RESPONSE_BYTES, 44)
    assert RESPONSE.packed() == golden
    assert Response.parse(golden.ljust(512, b"\xee")) == RESPONSE


@pytest.mark.parametrize("at", [8, 16, 24, 28, 40, 48, 96, 98])
def test_a_damaged_response_is_none(at: int) -> None:
    """Any byte under the checksum."""
    damaged = bytearray(RESPONSE.packed())
    damaged[at] ^= 1
    with pytest.raises(MailboxFormatError, match="checksum"):
        Response.parse(bytes(damaged))


@pytest.mark.parametrize(
    ("response", "reason"),
    [
        (bytes(512), "no response"),
        (b"ODXA", "no response"),
        (with_checksum(RESPONSE_BYTES[:4] + b"\2" + RESPONSE_BYTES[5:], 44), "impossible"),
        (replace(RESPONSE, data_in=b"x" * 8096).packed()[:512], "impossible"),
    ],
    ids=["never used", "short", "version", "length"],
)
def test_a_response_that_is_none(response: bytes, reason: str) -> None:
    """It says what is wrong."""
    with pytest.raises(MailboxFormatError, match=reason):
        Response.parse(response)
