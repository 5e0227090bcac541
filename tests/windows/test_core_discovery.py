"""What the driver's core learns of a disk at its start, beside what the model of the class driver learns."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest

from qemu_odx.windows.discovery import Discovery, discover
from qemu_odx.windows.packets import Packets
from qemu_odx.windows.port import Completion

if TYPE_CHECKING:
    from core import Core

    from qemu_odx.windows.port import Carrier

LIST = bytes((0, 0, 0, 7, 0x00, 0x80, 0x83, 0x8F, 0xB0, 0xB1, 0xB2))
COPY = bytes((0, 0x8F, 0, 36, 0, 0, 0, 0x20)) + bytes(6)
COPY += (64).to_bytes(2, "big") + (600).to_bytes(4, "big") + (60).to_bytes(4, "big")
COPY += (1 << 31).to_bytes(8, "big") + (1 << 17).to_bytes(8, "big")
LIMITS = (
    bytes((0, 0xB0, 0, 60, 0, 0, 0, 8)) + (4096).to_bytes(4, "big") + (2048).to_bytes(4, "big") + bytes(48)
)
CAPACITY = (0xFFFF).to_bytes(8, "big") + (512).to_bytes(4, "big") + bytes(20)
GOOD = (512, 512 << 16, 1, 64, 600, 60, 1 << 31, 1 << 17, 4096, 2048, 8)
PAGES = {0x00: LIST, 0x8F: COPY, 0xB0: LIMITS}
INQUIRY, READ_CAPACITY = 0x12, 0x9E
ILLEGAL = Completion(2, bytes((0x70, 0, 5, *bytes(9), 0x24, 0, 0, 0, 0, 0)))


def disk(pages: dict[int, bytes], capacity: bytes = CAPACITY) -> Carrier:
    """A disk with these vital product data pages."""

    def carry(cdb: bytes, _data_out: bytes) -> Completion:
        if cdb[0] == INQUIRY and cdb[2] in pages:
            return Completion(0, data=pages[cdb[2]])
        return Completion(0, data=capacity) if cdb[0] == READ_CAPACITY else ILLEGAL

    return carry


def numbers(known: Discovery) -> tuple[int, ...]:
    """What the model learned, in the core's order, block size and capacity left out."""
    limits, block = known.limits, known.block_limits
    if limits is None:
        return (0,)
    of_blocks = (block.max_transfer, block.optimal_transfer, block.granularity) if block else (0, 0, 0)
    life = (limits.max_inactivity, limits.default_inactivity)
    return (1, limits.max_ranges, *life, limits.max_token_blocks, limits.optimal_blocks, *of_blocks)


def test_a_good_disk(core: Core) -> None:
    """Every field where it belongs."""
    assert core.discover(disk(PAGES)) == GOOD


@pytest.mark.parametrize("count", [250, 251, 252, 255])
def test_a_list_that_claims_to_be_longer_than_its_answer(core: Core, count: int) -> None:
    """All codes ascend up to the end of the answer; nothing behind it is looked at."""
    assert core.discover(disk({**PAGES, 0: bytes((0, 0, 0, count, *range(251)))}))[2] == 1


@pytest.mark.parametrize("size", [0, 1, 256, 513, 1 << 31])
def test_a_block_size_that_is_none(core: Core, size: int) -> None:
    """Unknown, so that requests are refused and nothing is divided by it; 2^31 is a power of two and may pass."""
    capacity = CAPACITY[:8] + size.to_bytes(4, "big") + bytes(20)
    assert core.discover(disk(PAGES, capacity))[0] == (size if size == 1 << 31 else 0)


@pytest.mark.parametrize("page", [0x00, 0x8F, 0xB0])
def test_each_byte_changed_does_to_both_the_same(core: Core, page: int) -> None:
    """One byte of one page, and pages cut short."""
    pick = random.Random(page)
    whole = PAGES[page]
    spoiled = [whole[:length] for length in range(len(whole))]
    for at in range(min(len(whole), 48)):
        values = sorted({0, 1, 0xFF, pick.randrange(256)})
        spoiled += [whole[:at] + bytes((value,)) + whole[at + 1 :] for value in values]
    for content in spoiled:
        pages = {**PAGES, page: content}
        expected = numbers(discover(Packets(disk(pages), lambda _: None)))
        assert core.discover(disk(pages))[2 : 2 + len(expected)] == expected, content.hex()
