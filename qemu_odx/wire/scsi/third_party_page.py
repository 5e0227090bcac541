"""VPD page 8Fh, third-party copy (SPC-4 7.8.17, block device limits SBC-5 6.6.9).

Imports `wire/scsi/fields`, `opcodes` and `rod_token`. Windows reads it once, at device start, and looks at the first
descriptor only: it must be type 0000h with length exactly 20h. Descriptors ascend by type.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING

from qemu_odx.wire.scsi.fields import fill_to_multiple, put16, put32, put64
from qemu_odx.wire.scsi.inquiry import page
from qemu_odx.wire.scsi.rod_token import RodType

if TYPE_CHECKING:
    from collections.abc import Iterable

    from qemu_odx.wire.scsi.opcodes import Operation

_TOKEN_OUT, _TOKEN_IN = 0x01, 0x02
_TYPES: tuple[tuple[RodType, int], ...] = (
    (RodType.POINT_IN_TIME_DEFAULT, _TOKEN_IN | _TOKEN_OUT),
    (RodType.POINT_IN_TIME_CHANGE_VULNERABLE, _TOKEN_IN | _TOKEN_OUT),
    (RodType.POINT_IN_TIME_PERSISTENT, _TOKEN_IN | _TOKEN_OUT),
    (RodType.POINT_IN_TIME_ANY, _TOKEN_OUT),
    (RodType.BLOCK_ZERO, _TOKEN_IN),
)
_NO_BLOCK_LIMIT = (1 << 64) - 1


@dataclass(frozen=True, slots=True)
class ThirdPartyCopy:
    """The values of the page.

    Attributes:
        max_ranges: MAXIMUM RANGE DESCRIPTORS.
        max_inactivity: MAXIMUM INACTIVITY TIMEOUT in seconds.
        default_inactivity: DEFAULT INACTIVITY TIMEOUT in seconds.
        max_token_blocks: MAXIMUM TOKEN TRANSFER SIZE in blocks.
        optimal_blocks: OPTIMAL TRANSFER COUNT in blocks.
        block_size: logical block length in bytes.
        max_lifetime: of a token, in seconds.
        max_cscd: CSCD descriptors in one EXTENDED COPY.
        max_segments: segment descriptors in one EXTENDED COPY.
        max_copies: copies at once.
        operations: the third-party copy commands there are.
    """

    max_ranges: int
    max_inactivity: int
    default_inactivity: int
    max_token_blocks: int
    optimal_blocks: int
    block_size: int
    max_lifetime: int
    max_cscd: int
    max_segments: int
    max_copies: int
    operations: tuple[Operation, ...]

    def packed(self) -> bytes:
        """The whole page; its PAGE LENGTH is the full one also when the data is cut later."""
        descriptors = (
            self._block_device_limits(),
            self._supported_commands(),
            self._parameter_data(),
            _descriptor(0x0008, fill_to_multiple(bytes((2, 0x02, 0xE4)), 4)),
            _descriptor(0x000C, fill_to_multiple((2).to_bytes(2, "big") + b"\xff\xff", 4)),
            self._token_features(),
            _supported_types(),
            self._general_operations(),
        )
        return page(0x8F, b"".join(descriptors))

    @property
    def max_list_length(self) -> int:
        """Longest descriptor list of EXTENDED COPY: CSCD descriptors of 32, segment descriptors of 28 bytes."""
        return 32 * self.max_cscd + 28 * self.max_segments

    def _block_device_limits(self) -> bytes:
        data = bytearray(0x20)
        put16(data, 6, self.max_ranges)
        put32(data, 8, self.max_inactivity)
        put32(data, 12, self.default_inactivity)
        put64(data, 16, self.max_token_blocks)
        put64(data, 24, self.optimal_blocks)
        return _descriptor(0x0000, bytes(data))

    def _supported_commands(self) -> bytes:
        listed = b""
        for opcode, rows in groupby(self.operations, key=lambda row: row.opcode):
            actions = bytes(sorted(row.service_action or 0 for row in rows))
            listed += bytes((opcode, len(actions))) + actions
        return _descriptor(0x0001, fill_to_multiple(bytes((len(listed),)) + listed, 4))

    def _parameter_data(self) -> bytes:
        data = bytearray(0x1C)
        put16(data, 4, self.max_cscd)
        put16(data, 6, self.max_segments)
        put32(data, 8, self.max_list_length)
        return _descriptor(0x0004, bytes(data))

    def _token_features(self) -> bytes:
        entry = bytearray(48)
        put16(entry, 2, 0x2C)
        put16(entry, 6, 8)  # optimal granularity, blocks
        most = self.max_token_blocks * self.block_size
        for at, value in ((8, most), (16, most), (24, _NO_BLOCK_LIMIT), (32, _NO_BLOCK_LIMIT)):
            put64(entry, at, value)
        data = bytearray(44)
        put32(data, 12, 1)  # minimum token lifetime
        put32(data, 16, self.max_lifetime)
        put32(data, 20, self.max_inactivity)
        put16(data, 42, len(entry))
        return _descriptor(0x0106, bytes(data + entry))

    def _general_operations(self) -> bytes:
        data = bytearray(0x20)
        put32(data, 0, self.max_copies)
        put32(data, 4, self.max_copies)
        return _descriptor(0x8001, bytes(data))


def _supported_types() -> bytes:
    entries = b"".join(kind.to_bytes(4, "big") + bytes((flags,)) + bytes(59) for kind, flags in _TYPES)
    return _descriptor(0x0108, bytes(2) + len(entries).to_bytes(2, "big") + entries)


def _descriptor(kind: int, body: bytes) -> bytes:
    return kind.to_bytes(2, "big") + len(body).to_bytes(2, "big") + body


def copy_operations(rows: Iterable[Operation]) -> tuple[Operation, ...]:
    """The commands that descriptor 0001h lists: 83h, then 84h."""
    wanted = (row for row in rows if row.opcode in {0x83, 0x84})
    return tuple(sorted(wanted, key=lambda row: (row.opcode, row.service_action or 0)))
