"""VERIFY, WRITE AND VERIFY, COMPARE AND WRITE, ORWRITE: what they compare, and what they leave alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from qemu_odx.target.commands.compare_write import first_difference
from qemu_odx.wire.scsi.token_lists import Range

if TYPE_CHECKING:
    from collections.abc import Callable

    Form = Callable[[int, int, int, int], bytes]

    from qemu_odx.testing.conformance.reference import ReferenceTarget
    from qemu_odx.testing.initiator import Initiator

MISCOMPARE = (0xE, 0x1D, 0)


def block(lun: int, number: int, size: int = 512) -> bytes:
    """A block of the reference target."""
    return f"L{lun}B{number:08d}".encode().ljust(size, b".")


def blocks(lun: int, first: int, count: int) -> bytes:
    """Some blocks in a row."""
    return b"".join(block(lun, first + number) for number in range(count))


def ten(opcode: int, flags: int, lba: int, count: int) -> bytes:
    """A 10-byte CDB."""
    return bytes((opcode, flags)) + lba.to_bytes(4, "big") + b"\0" + count.to_bytes(2, "big") + b"\0"


def twelve(opcode: int, flags: int, lba: int, count: int) -> bytes:
    """A 12-byte CDB."""
    return bytes((opcode, flags)) + lba.to_bytes(4, "big") + count.to_bytes(4, "big") + b"\0\0"


def sixteen(opcode: int, flags: int, lba: int, count: int) -> bytes:
    """A 16-byte CDB."""
    return bytes((opcode, flags)) + lba.to_bytes(8, "big") + count.to_bytes(4, "big") + b"\0\0"


def compare_and_write(lba: int, count: int, flags: int = 0) -> bytes:
    """NUMBER OF LOGICAL BLOCKS is byte 13 alone."""
    return bytes((0x89, flags)) + lba.to_bytes(8, "big") + bytes((0, 0, 0, count, 0, 0))


VERIFY = pytest.mark.parametrize(
    ("form", "opcode"), [(ten, 0x2F), (twelve, 0xAF), (sixteen, 0x8F)], ids=["10", "12", "16"]
)
WRITE_AND_VERIFY = pytest.mark.parametrize(
    ("form", "opcode"), [(ten, 0x2E), (twelve, 0xAE), (sixteen, 0x8E)], ids=["10", "12", "16"]
)


@VERIFY
def test_verify_without_data(initiator: Initiator, form: Form, opcode: int) -> None:
    """BYTCHK 00b: the blocks can be read."""
    assert initiator.command(0, form(opcode, 0, 0, 16384)).good


@VERIFY
def test_verify_byte_by_byte(initiator: Initiator, form: Form, opcode: int) -> None:
    """BYTCHK 01b: as many blocks of data; one byte in the last decides."""
    data = bytearray(blocks(0, 5, 3))
    assert initiator.command(0, form(opcode, 0x02, 5, 3), bytes(data)).good
    data[-1] ^= 1
    assert initiator.command(0, form(opcode, 0x02, 5, 3), bytes(data)).fault == MISCOMPARE


@VERIFY
def test_verify_against_one_block(initiator: Initiator, form: Form, opcode: int) -> None:
    """BYTCHK 11b: one block of data for all of them."""
    assert initiator.write(0, 8, 3, b"s" * 512 * 3).good
    assert initiator.command(0, form(opcode, 0x06, 8, 3), b"s" * 512).good
    assert initiator.command(0, form(opcode, 0x06, 8, 4), b"s" * 512).fault == MISCOMPARE


@VERIFY
@pytest.mark.parametrize(
    ("fields", "fault"),
    [
        ((0x04, 0, 1), (5, 0x24, 0)),
        ((0x20, 0, 1), (5, 0x24, 0)),
        ((0x00, 16384, 1), (5, 0x21, 0)),
        ((0x02, 16383, 2), (5, 0x21, 0)),
    ],
)
def test_verify_refusals(
    initiator: Initiator, form: Form, opcode: int, fields: tuple[int, int, int], fault: tuple[int, int, int]
) -> None:
    """Reserved BYTCHK, VRPROTECT, past the end: before any data is looked at."""
    assert initiator.command(0, form(opcode, *fields)).fault == fault


def test_verify_of_nothing_wants_no_data(initiator: Initiator) -> None:
    """VERIFICATION LENGTH 0 is no error."""
    assert initiator.command(0, ten(0x2F, 0x02, 0, 0)).good


def test_verify_compares_beyond_its_first_step(initiator: Initiator) -> None:
    """More than one step of a mebibyte."""
    data = bytearray(blocks(0, 0, 4096))
    assert initiator.command(0, sixteen(0x8F, 0x02, 0, 4096), bytes(data)).good
    data[(1 << 20) + 7] ^= 1
    assert initiator.command(0, sixteen(0x8F, 0x02, 0, 4096), bytes(data)).fault == MISCOMPARE


@WRITE_AND_VERIFY
@pytest.mark.parametrize("flags", [0x00, 0x02])
def test_write_and_verify_writes(
    initiator: Initiator, reference: ReferenceTarget, form: Form, opcode: int, flags: int
) -> None:
    """With and without BYTCHK."""
    assert initiator.command(0, form(opcode, flags, 4, 2), b"w" * 1024).good
    assert reference.read(0, 4, 2) == b"w" * 1024
    assert reference.read(0, 6, 1) == block(0, 6)


@WRITE_AND_VERIFY
def test_write_and_verify_refusals(
    initiator: Initiator, reference: ReferenceTarget, form: Form, opcode: int
) -> None:
    """One block for all makes no sense here; write protection and the end count."""
    assert initiator.command(0, form(opcode, 0x06, 0, 1), bytes(512)).fault == (5, 0x24, 0)
    assert initiator.command(0, form(opcode, 0, 16384, 1), bytes(512)).fault == (5, 0x21, 0)
    reference.disks[0].readonly = True
    assert initiator.command(0, form(opcode, 0, 0, 1), bytes(512)).fault == (7, 0x27, 0)


def test_write_and_verify_tells_when_the_disk_lies(
    initiator: Initiator, reference: ReferenceTarget, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What reads back wrong is a MISCOMPARE."""
    monkeypatch.setattr(type(reference.disks[0]), "write", lambda *_: None)
    assert initiator.command(0, ten(0x2E, 0x02, 0, 1), b"x" * 512).fault == MISCOMPARE
    assert initiator.command(0, ten(0x2E, 0x00, 0, 1), b"x" * 512).good


def test_compare_and_write_swaps(initiator: Initiator, reference: ReferenceTarget) -> None:
    """First half equal: the second half is written."""
    assert initiator.command(0, compare_and_write(7, 2), blocks(0, 7, 2) + b"n" * 1024).good
    assert reference.read(0, 7, 2) == b"n" * 1024


@pytest.mark.parametrize("at", [0, 511, 512, 1023])
def test_compare_and_write_tells_where_it_differs(
    initiator: Initiator, reference: ReferenceTarget, at: int
) -> None:
    """MISCOMPARE with the offset of the first byte, and nothing is written."""
    wanted = bytearray(blocks(0, 7, 2))
    wanted[at] ^= 0xFF
    answer = initiator.command(0, compare_and_write(7, 2), bytes(wanted) + b"n" * 1024)
    assert answer.fault == MISCOMPARE
    assert answer.full_sense is not None
    assert answer.full_sense.information == at
    assert answer.sense.hex() == f"f0000e{at:08x}0a000000001d0000000000"
    assert reference.read(0, 7, 2) == blocks(0, 7, 2)


def test_compare_and_write_of_nothing(initiator: Initiator) -> None:
    """0 blocks is no error."""
    assert initiator.command(0, compare_and_write(0, 0)).good


def test_compare_and_write_with_too_little_data(initiator: Initiator, reference: ReferenceTarget) -> None:
    """The front door sees that the command wanted more; nothing is written."""
    assert initiator.command(0, compare_and_write(7, 2), blocks(0, 7, 2)).good
    assert reference.read(0, 7, 2) == blocks(0, 7, 2)


def test_compare_and_write_refusals(initiator: Initiator, reference: ReferenceTarget) -> None:
    """WRPROTECT, past the end, write protection."""
    assert initiator.command(0, compare_and_write(0, 1, 0x20), bytes(1024)).fault == (5, 0x24, 0)
    assert initiator.command(0, compare_and_write(16383, 2), bytes(2048)).fault == (5, 0x21, 0)
    reference.disks[0].readonly = True
    assert initiator.command(0, compare_and_write(0, 1), bytes(1024)).fault == (7, 0x27, 0)


def test_orwrite(initiator: Initiator, reference: ReferenceTarget) -> None:
    """Bits are added, none taken away; the neighbour stays."""
    assert initiator.write(0, 2, 2, b"\x0f" * 1024).good
    assert initiator.command(0, sixteen(0x8B, 0, 2, 2), b"\xf0" * 512 + b"\x00" * 512).good
    assert reference.read(0, 2, 2) == b"\xff" * 512 + b"\x0f" * 512
    assert reference.read(0, 4, 1) == block(0, 4)


def test_orwrite_beyond_its_first_step(initiator: Initiator, reference: ReferenceTarget) -> None:
    """Steps of a mebibyte take their own part of the data."""
    before = reference.read(0, 0, 4096)
    data = bytes(1 << 20) + b"\x80" * (1 << 20)
    assert initiator.command(0, sixteen(0x8B, 0, 0, 4096), data).good
    after = reference.read(0, 0, 4096)
    assert after[: 1 << 20] == before[: 1 << 20]
    assert after[1 << 20 :] == bytes(byte | 0x80 for byte in before[1 << 20 :])


def test_orwrite_refusals(initiator: Initiator, reference: ReferenceTarget) -> None:
    """ORPROTECT, past the end, write protection."""
    assert initiator.command(0, sixteen(0x8B, 0x20, 0, 1), bytes(512)).fault == (5, 0x24, 0)
    assert initiator.command(0, sixteen(0x8B, 0, 16384, 1), bytes(512)).fault == (5, 0x21, 0)
    reference.disks[0].readonly = True
    assert initiator.command(0, sixteen(0x8B, 0, 0, 1), bytes(512)).fault == (7, 0x27, 0)


def test_a_token_keeps_what_compare_and_write_and_orwrite_change(
    initiator: Initiator, reference: ReferenceTarget
) -> None:
    """Both are writes: the old data are kept first."""
    token = initiator.token(0, [Range(7, 2)])
    assert initiator.command(0, compare_and_write(7, 1), block(0, 7) + b"n" * 512).good
    assert initiator.command(0, sixteen(0x8B, 0, 8, 1), b"\xff" * 512).good
    assert initiator.write_token(1, token, [Range(0, 2)]).good
    assert reference.read(1, 0, 2) == blocks(0, 7, 2)


@pytest.mark.parametrize("flags", [0x00, 0x08])
def test_fua_and_a_missing_write_cache_flush(
    initiator: Initiator, reference: ReferenceTarget, monkeypatch: pytest.MonkeyPatch, flags: int
) -> None:
    """FUA flushes this command, WCE=0 every one."""
    flushed: list[int] = []
    monkeypatch.setattr(type(reference.disks[0]), "flush", lambda _: flushed.append(1))
    initiator.command(0, compare_and_write(7, 1, flags), block(0, 7) + block(0, 7))
    assert len(flushed) == bool(flags)
    page = bytearray(initiator.command(0, "1a080800c0").data[4:])
    page[2] &= ~0x04
    assert initiator.command(0, "1510000018", bytes(4) + bytes(page)).good
    initiator.command(0, sixteen(0x8B, 0, 0, 1), bytes(512))
    assert len(flushed) == 1 + bool(flags)


def test_first_difference_is_the_first() -> None:
    """Of several."""
    one = bytearray(2000)
    one[1500] = one[700] = 1
    assert first_difference(bytes(one), bytes(2000)) == 700
