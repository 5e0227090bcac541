"""A SCSI initiator for tests: commands as methods, answers as values.

May import `wire/scsi`. What carries the commands is handed in: a target in this process, or a device.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import count
from typing import TYPE_CHECKING, Protocol

from qemu_odx.wire.scsi import sense as sense_data
from qemu_odx.wire.scsi.rod_token import TOKEN_SIZE
from qemu_odx.wire.scsi.sense import Status
from qemu_odx.wire.scsi.token_lists import (
    POPULATE_HEADER,
    RANGE_SIZE,
    WRITE_HEADER,
    PopulateToken,
    Range,
    TokenInformation,
    WriteUsingToken,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from qemu_odx.wire.scsi.sense import Sense


@dataclass(frozen=True, slots=True)
class Answer:
    """How a command ended."""

    status: int
    sense: bytes
    data: bytes

    @property
    def good(self) -> bool:
        """Status GOOD."""
        return self.status == Status.GOOD

    @property
    def fault(self) -> tuple[int, int, int] | None:
        """Sense key, ASC and ASCQ; None without sense data."""
        found = self.full_sense
        return (found.key, found.asc, found.ascq) if found else None

    @property
    def full_sense(self) -> Sense | None:
        """The sense data as a value."""
        return sense_data.parse(self.sense)


class Carrier(Protocol):
    """Carries one command to a logical unit and brings the answer back."""

    def __call__(self, lun: int, cdb: bytes, data_out: bytes) -> Answer:
        """Send and wait."""


@dataclass(slots=True)
class Initiator:
    """One I_T nexus; list identifiers count up from 0 as Windows' do."""

    carry: Carrier
    identifiers: Iterator[int] = field(default_factory=count)

    def command(self, lun: int, cdb: str | bytes, data_out: bytes = b"") -> Answer:
        """Send any CDB, given as bytes or as hex text; zeros fill it up to 16 bytes."""
        raw = bytes.fromhex(cdb) if isinstance(cdb, str) else cdb
        return self.carry(lun, raw.ljust(16, b"\0"), data_out)

    def read(self, lun: int, lba: int, blocks: int) -> Answer:
        """READ(16)."""
        return self.command(lun, _sixteen(0x88, lba, blocks))

    def write(self, lun: int, lba: int, blocks: int, data: bytes) -> Answer:
        """WRITE(16)."""
        return self.command(lun, _sixteen(0x8A, lba, blocks), data)

    def write_and_verify(self, lun: int, lba: int, blocks: int, data: bytes) -> Answer:
        """WRITE AND VERIFY(16), compared byte by byte."""
        cdb = bytearray(_sixteen(0x8E, lba, blocks))
        cdb[1] = 0x02
        return self.command(lun, bytes(cdb), data)

    def compare_and_write(self, lun: int, lba: int, blocks: int, wanted: bytes, new: bytes) -> Answer:
        """COMPARE AND WRITE."""
        cdb = bytes((0x89, 0)) + lba.to_bytes(8, "big") + bytes((0, 0, 0, blocks, 0, 0))
        return self.command(lun, cdb, wanted + new)

    def orwrite(self, lun: int, lba: int, blocks: int, data: bytes) -> Answer:
        """ORWRITE(16)."""
        return self.command(lun, _sixteen(0x8B, lba, blocks), data)

    def unmap(self, lun: int, ranges: Sequence[Range]) -> Answer:
        """UNMAP."""
        described = b"".join(item.packed() for item in ranges)
        data = (
            (len(described) + 6).to_bytes(2, "big") + len(described).to_bytes(2, "big") + bytes(4) + described
        )
        return self.command(lun, bytes((0x42,)) + bytes(6) + len(data).to_bytes(2, "big"), data)

    def write_same(self, lun: int, lba: int, blocks: int, block: bytes, *, unmap: bool = False) -> Answer:
        """WRITE SAME(16)."""
        cdb = bytearray(_sixteen(0x93, lba, blocks))
        cdb[1] = 0x08 if unmap else 0
        return self.command(lun, bytes(cdb), block)

    def populate(
        self,
        lun: int,
        ranges: Sequence[Range],
        *,
        identifier: int | None = None,
        immediate: bool = False,
        rod_type: int | None = None,
        timeout: int = 0,
    ) -> Answer:
        """POPULATE TOKEN."""
        length = len(ranges) * RANGE_SIZE
        whole = POPULATE_HEADER + length
        data = PopulateToken(whole - 2, immediate, rod_type, timeout, length, tuple(ranges)).packed()
        return self.command(lun, _originate(0x10, self._identifier(identifier), len(data)), data)

    def write_token(
        self,
        lun: int,
        token: bytes,
        ranges: Sequence[Range],
        *,
        offset: int = 0,
        identifier: int | None = None,
        immediate: bool = False,
        delete: bool = False,
    ) -> Answer:
        """WRITE USING TOKEN."""
        length = len(ranges) * RANGE_SIZE
        whole = WRITE_HEADER + length
        data = WriteUsingToken(whole - 2, delete, immediate, offset, token, length, tuple(ranges)).packed()
        return self.command(lun, _originate(0x11, self._identifier(identifier), len(data)), data)

    def information(self, lun: int, identifier: int, allocation: int = 1024) -> Answer:
        """RECEIVE ROD TOKEN INFORMATION."""
        return self.command(lun, _monitor(0x07, identifier, allocation))

    def token(self, lun: int, ranges: Sequence[Range], **options: int | bool | None) -> bytes:
        """POPULATE TOKEN and the token it made.

        Raises:
            AssertionError: any of the two commands failed.
        """
        identifier = next(self.identifiers)
        answer = self.populate(lun, ranges, identifier=identifier, **options)  # type: ignore[arg-type]
        assert answer.good, answer  # noqa: S101 - a test helper
        token = TokenInformation.parse(self.information(lun, identifier).data).token
        assert token is not None  # noqa: S101 - same
        assert len(token) == TOKEN_SIZE  # noqa: S101 - same
        return token

    def abort_copy(self, lun: int, identifier: int) -> Answer:
        """COPY OPERATION ABORT."""
        return self.command(lun, bytes((0x83, 0x1C)) + identifier.to_bytes(4, "big"))

    def _identifier(self, given: int | None) -> int:
        return next(self.identifiers) if given is None else given


def _sixteen(opcode: int, lba: int, blocks: int) -> bytes:
    return bytes((opcode, 0)) + lba.to_bytes(8, "big") + blocks.to_bytes(4, "big") + bytes(2)


def _originate(action: int, identifier: int, length: int) -> bytes:
    return (
        bytes((0x83, action))
        + bytes(4)
        + identifier.to_bytes(4, "big")
        + length.to_bytes(4, "big")
        + bytes(2)
    )


def _monitor(action: int, identifier: int, allocation: int) -> bytes:
    return (
        bytes((0x84, action))
        + identifier.to_bytes(4, "big")
        + bytes(4)
        + allocation.to_bytes(4, "big")
        + bytes(2)
    )
