"""Windows on our own target: large disks in memory with their default limits, a clock moved by hand."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from windows_machine import Machine

from qemu_odx.disk.memory import memory_disk

if TYPE_CHECKING:
    from collections.abc import Iterator

DISK_BYTES = 2 << 30


@pytest.fixture
def machine() -> Iterator[Machine]:
    """Units 0 and 1 with blocks of 512 bytes, unit 2 with 4096."""
    sizes = {0: 512, 1: 512, 2: 4096}
    disks = {number: memory_disk(f"w{number}", DISK_BYTES, size) for number, size in sizes.items()}
    made = Machine(disks)
    yield made
    for token in made.target.manager.tokens:
        token.payload.release()
    for disk in disks.values():
        disk.close()
