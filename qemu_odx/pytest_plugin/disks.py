"""A test's disk as the host sees it.

May import: lab, testing. Reads and writes are SCSI commands to the test's own server, by an export of the host's:
they keep the promises of tokens, which a write straight into the image file would break.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    import pytest

    from qemu_odx.testing.initiator import Answer, Initiator

DEFAULT_SIZE: Final = "64M"
STEP: Final = 512 << 10
"""Bytes of one READ or WRITE."""
UNITS: Final = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}


@dataclass(frozen=True, slots=True)
class DiskOrder:
    """What a marker asks for; `blk` is an export of its own, `mailbox` one with token copy in it."""

    name: str
    size: int
    blk: bool
    mailbox: bool
    options: Mapping[str, str]

    @property
    def block_size(self) -> int:
        """Bytes of a logical block."""
        return int(self.options.get("block-size", "512"))


def ordered_disks(item: pytest.Item) -> tuple[DiskOrder, ...]:
    """The disks of a test's markers from top to bottom, those of its module and class first; one without any.

    Raises:
        ValueError: a marker is not right.
    """
    marks = [*item.iter_markers("odx_disk")][::-1]
    orders = tuple(_order(*mark.args, **mark.kwargs) for mark in marks) or (_order("disk"),)
    names = [order.name for order in orders]
    if len(set(names)) < len(names):
        raise ValueError(f"two odx_disk markers have one name: {', '.join(names)}")
    return orders


def _order(
    name: str, *, size: str | int = DEFAULT_SIZE, blk: bool = False, mailbox: bool = False, **options: Any
) -> DiskOrder:
    words = {key.replace("_", "-"): _word(value) for key, value in options.items()}
    return DiskOrder(name, in_bytes(size), blk or mailbox, mailbox, words)


def _word(value: object) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    return str(value)


def in_bytes(size: str | int) -> int:
    """Bytes of "64M", "1G" or a number. Raises ValueError if it is none of these."""
    found = re.fullmatch(r"(\d+)([KMGT]?)", str(size))
    if found is None:
        raise ValueError(f"size={size!r} is no size: write 64M or 1G")
    return int(found[1]) * UNITS[found[2]]


@dataclass(frozen=True, slots=True)
class OdxDisk:
    """A disk of the test.

    Attributes:
        name: as in its marker.
        number: its logical unit number.
        serial: its serial number, by which a guest finds it.
        size: in bytes.
        block_size: bytes of a logical block.
        path: the image file. Look, but do not write: tokens would not see it.
    """

    name: str
    number: int
    serial: str
    size: int
    block_size: int
    path: Path
    initiator: Callable[[], Initiator] = field(repr=False)

    def read(self, offset: int = 0, length: int | None = None) -> bytes:
        """Bytes from `offset` on, by default to the end; whole blocks only.

        Raises:
            ValueError: offset or length are no whole blocks, or outside of the disk.
            AssertionError: the disk answered with an error.
        """
        return b"".join(self._pieces(offset, self.size - offset if length is None else length))

    def sha256(self, offset: int = 0, length: int | None = None) -> str:
        """SHA-256 of a stretch, by default of the whole disk, in hexadecimal."""
        digest = hashlib.sha256()
        for piece in self._pieces(offset, self.size - offset if length is None else length):
            digest.update(piece)
        return digest.hexdigest()

    def write(self, offset: int, data: bytes) -> None:
        """Write whole blocks; errors as those of `read`."""
        for lba, blocks, start in self._steps(offset, len(data)):
            piece = data[start : start + blocks * self.block_size]
            _good(self.initiator().write(self.number, lba, blocks, piece), f"WRITE of {self.name}")

    def _pieces(self, offset: int, length: int) -> Iterator[bytes]:
        for lba, blocks, _ in self._steps(offset, length):
            yield _good(self.initiator().read(self.number, lba, blocks), f"READ of {self.name}").data

    def _steps(self, offset: int, length: int) -> Iterator[tuple[int, int, int]]:
        """First block, number of blocks, and where that is in the whole."""
        self.check(offset, length)
        for start in range(0, length, STEP):
            share = min(STEP, length - start)
            yield (offset + start) // self.block_size, share // self.block_size, start

    def check(self, offset: int, length: int) -> None:
        """Raise ValueError unless these are whole blocks of the disk."""
        if offset % self.block_size or length % self.block_size:
            raise ValueError(f"{self.name} has blocks of {self.block_size} bytes: give whole ones")
        if not 0 <= offset <= offset + length <= self.size:
            raise ValueError(f"{self.name} has {self.size} bytes: {offset} to {offset + length} is outside")


def _good(answer: Answer, what: str) -> Answer:
    if not answer.good:
        raise AssertionError(f"{what}: status {answer.status:02X}h, {answer.full_sense}")
    return answer
