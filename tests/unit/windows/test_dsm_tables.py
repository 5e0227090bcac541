"""Every structure's table drawn byte by byte: no overlap, no gap but padding, the size and alignment it claims."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import pytest

from qemu_odx.wire.dsm import build
from qemu_odx.wire.dsm.codes import COPY_OFFLOAD_PROPERTY, ControlCode, DsmAction
from qemu_odx.wire.dsm.ntstatus import NtStatus, Win32
from qemu_odx.wire.dsm.structures import (
    RECORDS,
    ZERO_TOKEN,
    DataSetRange,
    DsmInput,
    OffloadReadOutput,
    OffloadReadParameters,
    OffloadToken,
    OffloadWriteParameters,
)

if TYPE_CHECKING:
    from qemu_odx.wire.dsm.record import Record

NAMES = pytest.mark.parametrize("record", RECORDS, ids=lambda record: record.C_NAME)
PADDING = {
    "STORAGE_OFFLOAD_READ_OUTPUT": {532, 533, 534, 535},
    "STORAGE_PROPERTY_QUERY": {9, 10, 11},
}
"""Bytes that no field has: the tail of these two, padded to their alignment."""


@NAMES
def test_no_byte_belongs_to_two_fields(record: type[Record]) -> None:
    """Fields are drawn into a map of the structure; each byte is drawn once."""
    drawn: dict[int, str] = {}
    for row in record.table():
        for byte in range(row.offset, row.end):
            assert byte not in drawn, f"{row.c_name} overlaps {drawn[byte]} at byte {byte}"
            drawn[byte] = row.c_name


@NAMES
def test_the_fields_fill_the_structure(record: type[Record]) -> None:
    """Every byte but known padding belongs to a field, and no field ends behind the structure."""
    drawn = {byte for row in record.table() for byte in range(row.offset, row.end)}
    assert set(range(record.SIZE)) - drawn == PADDING.get(record.C_NAME, set())
    assert max(drawn) < record.SIZE


@NAMES
def test_each_field_is_aligned_as_c_aligns_it(record: type[Record]) -> None:
    """Offsets are multiples of the field's alignment, the size one of the largest; fields stand in memory order."""
    rows = record.table()
    assert all(row.offset % row.kind.align == 0 for row in rows)
    assert record.SIZE % record.ALIGN == 0
    assert max(row.kind.align for row in rows) <= record.ALIGN
    assert [row.offset for row in rows] == sorted(row.offset for row in rows)
    assert record.SOURCE


@NAMES
def test_what_was_packed_is_parsed(record: type[Record]) -> None:
    """A structure of which every field has its own value comes back as it was, from any place in a buffer."""
    values = {
        row.name: bytes(range(1, 256)).ljust(row.kind.size, b"!")[: row.kind.size]
        if row.kind.order is None
        else number + 1
        for number, row in enumerate(record.table())
    }
    made = record(**values)
    assert len(made.packed()) == record.SIZE
    assert record.parse(b"\xff" * 5 + made.packed(), 5) == made


@NAMES
def test_a_short_buffer_is_an_error_that_says_so(record: type[Record]) -> None:
    """One byte too few names structure and size."""
    with pytest.raises(ValueError, match=f"{record.C_NAME} needs {record.SIZE}"):
        record.parse(bytes(record.SIZE - 1))


def test_values_that_do_not_fit_are_refused() -> None:
    """A number too large and a token too short name their field."""
    with pytest.raises(ValueError, match="TokenOffset"):
        OffloadWriteParameters(token_offset=1 << 64).packed()
    with pytest.raises(ValueError, match="Token holds 512"):
        OffloadWriteParameters(token=b"short").packed()


def test_control_codes_are_microsofts_numbers() -> None:
    """The four codes and the property, as the headers have them."""
    assert {code.name: int(code) for code in ControlCode} == {
        "IOCTL_STORAGE_MANAGE_DATA_SET_ATTRIBUTES": 0x002D9404,
        "IOCTL_STORAGE_QUERY_PROPERTY": 0x002D1400,
        "FSCTL_OFFLOAD_READ": 0x00094264,
        "FSCTL_OFFLOAD_WRITE": 0x00098268,
    }
    assert COPY_OFFLOAD_PROPERTY == 13
    assert (DsmAction.OFFLOAD_READ, DsmAction.OFFLOAD_WRITE) == (0x80000003, 0x00000004)


def test_a_token_has_big_endian_numbers() -> None:
    """The zero token begins FFFF0001 0000 01F8, and its look-alikes are no zero tokens."""
    assert ZERO_TOKEN[:8].hex() == "ffff0001000001f8"
    assert OffloadToken.parse(ZERO_TOKEN).is_zero
    for byte in (0, 1, 2, 3, 6, 7):
        changed = bytearray(ZERO_TOKEN)
        changed[byte] ^= 1
        assert not OffloadToken.parse(changed).is_zero
    assert OffloadToken.parse(ZERO_TOKEN[:8] + bytes([7]) * 504).is_zero


def test_built_input_buffers_have_the_sdk_layout() -> None:
    """Read: parameters at 28, ranges at 48; write: parameters at 32, ranges at 560."""
    read = build.offload_read([(4096, 8192), (0, 512)], time_to_live=9)
    head = DsmInput.parse(read)
    assert (head.parameter_offset, head.ranges_offset, len(read)) == (28, 48, 80)
    assert OffloadReadParameters.parse(read, 28).time_to_live == 9
    assert DataSetRange.parse(read, 64) == DataSetRange(0, 512)
    write = build.offload_write(ZERO_TOKEN, [(512, 1024)], token_offset=4096)
    head = DsmInput.parse(write)
    assert (head.parameter_offset, head.ranges_offset, len(write)) == (32, 560, 576)
    assert OffloadWriteParameters.parse(write, 32).token_offset == 4096


def test_every_offload_status_has_a_win32_error_and_pairs_are_one_to_one_but_for_two() -> None:
    """No two statuses share an error, except the two that are ERROR_IO_DEVICE."""
    paired = [status for status in NtStatus if status.win32 is not None]
    shared = {s.win32 for s in paired if sum(o.win32 is s.win32 for o in paired) > 1}
    assert shared == {Win32.IO_DEVICE}
    assert {status.win32 for status in paired} == set(Win32)
    assert NtStatus.INVALID_TOKEN.win32 == 315
    assert NtStatus.SUCCESS.ok
    assert not NtStatus.DEVICE_BUSY.ok


def test_records_are_values() -> None:
    """They compare by content and cannot be changed."""
    assert OffloadReadOutput() == OffloadReadOutput()
    with pytest.raises(dataclasses.FrozenInstanceError):
        OffloadReadOutput().flags = 1  # type: ignore[misc]  # that is the test
