"""Which blocks a command names: every form of CDB, and the parameter lists."""

from __future__ import annotations

import pytest

from qemu_odx.wire.scsi import opcodes
from qemu_odx.wire.scsi.spans import Span, in_parameter_list, spans
from qemu_odx.wire.scsi.token_lists import PopulateToken, Range, WriteUsingToken

RANGES = (Range(5, 3), Range(1 << 40, 0xFFFFFFFF))
SPANS = (Span(5, 3), Span(1 << 40, 0xFFFFFFFF))


@pytest.mark.parametrize(
    ("cdb", "expected"),
    [
        ("08 1f0203 00 00", (Span(0x1F0203, 256),)),
        ("28 00 01020304 00 0506 00", (Span(0x01020304, 0x0506),)),
        ("a8 00 01020304 05060708 00 00", (Span(0x01020304, 0x05060708),)),
        ("8a 00 0102030405060708 090a0b0c 00 00", (Span(0x0102030405060708, 0x090A0B0C),)),
        ("8b 00 0000000000000009 00000001 00 00", (Span(9, 1),)),
        ("93 08 0000000000000009 00000000 00 00", (Span(9, 0),)),
        ("89 00 0000000000000009 000000 02 00 00", (Span(9, 2),)),
        ("9e 12 0000000000000009 00001000 00 00", (Span(9, 0),)),
        ("91 00 0000000000000000 00000000 00 00", (Span(0, 0),)),
        ("00 00 00 00 00 00", ()),
        ("ff 00 00 00 00 00", ()),
        ("8a 00 0102030405060708 09", ()),
    ],
)
def test_of_a_cdb(cdb: str, expected: tuple[Span, ...]) -> None:
    """By the group of the operation code; nothing for one that is cut or unknown."""
    assert spans(bytes.fromhex(cdb)) == expected


def test_of_parameter_lists() -> None:
    """POPULATE TOKEN, WRITE USING TOKEN, UNMAP; a list that is too short names nothing."""
    length = 16 * len(RANGES)
    populate = PopulateToken(16 + length - 2, False, None, 0, length, RANGES).packed()
    write = WriteUsingToken(536 + length - 2, False, False, 0, bytes(512), length, RANGES).packed()
    unmap = (6 + length).to_bytes(2, "big") + length.to_bytes(2, "big") + bytes(4) + populate[16:]
    for cdb, data, header in (("8310", populate, 16), ("8311", write, 536), ("42", unmap, 8)):
        whole = bytes.fromhex(cdb).ljust(16, b"\0")
        assert in_parameter_list(opcodes.find(whole))
        assert spans(whole, data) == SPANS
        assert spans(whole, data[:-1]) == SPANS[:1]
        assert spans(whole, data[: header - 1]) == ()


def test_spans_meet_where_they_share_a_block() -> None:
    """One of no blocks counts as its first block."""
    assert Span(5, 3).meets(Span(7, 1))
    assert not Span(5, 3).meets(Span(8, 1))
    assert Span(5, 0).meets(Span(5, 1))
    assert not Span(5, 0).meets(Span(6, 1))
