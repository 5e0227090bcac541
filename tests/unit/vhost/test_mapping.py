"""Mapping the memory that a front end shares."""

from __future__ import annotations

import fcntl
import gc
import mmap
import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from qemu_odx.vhost.mapping import MAX_MEMORY, add_region, clear_regions, remove_region
from qemu_odx.vhost.message import RefusedError
from qemu_odx.virtio.memory import GuestMemory
from qemu_odx.wire.vhost_user import MemoryRegion

if TYPE_CHECKING:
    from collections.abc import Iterator

SIZE = 1 << 20
NAME = "odx-mapping-test"


@pytest.fixture
def ram() -> Iterator[int]:
    """A memory file of one MiB, each page filled with its number."""
    fd = os.memfd_create(NAME, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    for page in range(SIZE // 4096):
        os.write(fd, bytes([page]) * 4096)
    yield fd
    os.close(fd)
    gc.collect()
    assert mapped() == 0


def never() -> None:
    """No memory is lost here."""
    raise AssertionError


def mapped() -> int:
    """Mappings of the file in this process."""
    return Path("/proc/self/maps").read_text().count(f"/memfd:{NAME}")


def test_a_region_at_an_offset(ram: int) -> None:
    """The bytes are those from the offset on, and what is written there arrives in the file."""
    memory = GuestMemory()
    add_region(memory, MemoryRegion(0x1000, 0x2000, 0x9000, 0x3000), ram, never)
    (view,) = memory.views(0x2000, 4)
    assert bytes(view) == b"\4\4\4\4"
    view[:] = b"done"
    assert os.pread(ram, 4, 0x4000) == b"done"


def test_an_offset_inside_a_page(ram: int) -> None:
    """The mapping begins earlier, the view does not."""
    memory = GuestMemory()
    add_region(memory, MemoryRegion(0, 0x1000, 0, 0x800), ram, never)
    assert bytes(memory.views(0x7FF, 2)[0]) == b"\0\1"


@pytest.mark.parametrize(
    ("region", "text"),
    [
        (MemoryRegion(0, SIZE + 1, 0, 0), "larger than its file"),
        (MemoryRegion(0, SIZE, 0, 0x1000), "larger than its file"),
        (MemoryRegion(0, 0x1000, 0, 1 << 63), "larger than its file"),
        (MemoryRegion(0, 0, 0, 0), "is empty, wraps"),
        (MemoryRegion((1 << 64) - 1, 0x1000, 0, 0), "wraps"),
        (MemoryRegion(0, 0x1000, (1 << 64) - 1, 0), "wraps"),
    ],
)
def test_a_region_that_cannot_be_is_refused(ram: int, region: MemoryRegion, text: str) -> None:
    """Longer than its file (its pages would kill us), empty, or over the end of the address space."""
    with pytest.raises(RefusedError, match=text):
        add_region(GuestMemory(), region, ram, never)


def test_an_overlap_is_refused(ram: int) -> None:
    """Two regions cannot both be the guest's byte."""
    memory = GuestMemory()
    add_region(memory, MemoryRegion(0, 0x2000, 0x10000, 0), ram, never)
    with pytest.raises(RefusedError, match="overlaps"):
        add_region(memory, MemoryRegion(0x1000, 0x2000, 0x20000, 0), ram, never)
    clear_regions(memory)


def test_a_descriptor_that_cannot_be_mapped_is_refused() -> None:
    """A pipe has no bytes to map."""
    read, write = os.pipe()
    with pytest.raises(RefusedError):
        add_region(GuestMemory(), MemoryRegion(0, 0x1000, 0, 0), read, never)
    os.close(read)
    os.close(write)


def test_a_removed_region_is_unmapped(ram: int) -> None:
    """Found by both addresses and its size; the offset does not matter."""
    memory = GuestMemory()
    add_region(memory, MemoryRegion(0, 0x1000, 0x5000, 0x1000), ram, never)
    assert mapped() == 1
    remove_region(memory, MemoryRegion(0, 0x1000, 0x5000, 0))
    assert mapped() == 0


def test_a_region_in_use_stays_until_its_last_view_goes(ram: int) -> None:
    """RAM may be unplugged while a request is in flight there: no crash, and no leak."""
    memory = GuestMemory()
    add_region(memory, MemoryRegion(0, 0x1000, 0x5000, 0), ram, never)
    (view,) = memory.views(0, 4)
    clear_regions(memory)
    view[:] = b"safe"
    assert mapped() == 1
    del view
    assert mapped() == 0


def test_without_a_guard_unsealed_memory_is_refused(ram: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its owner could truncate it under us, and nothing would catch that."""
    monkeypatch.setattr("qemu_odx.vhost.shared.bus_guard", lambda: None)
    memory = GuestMemory()
    with pytest.raises(RefusedError, match="not sealed against shrinking"):
        add_region(memory, MemoryRegion(0, 0x1000, 0, 0), ram, never)
    fcntl.fcntl(ram, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK)
    add_region(memory, MemoryRegion(0, 0x1000, 0, 0), ram, never)
    clear_regions(memory)


def test_more_memory_than_an_address_space_can_hold_is_refused(ram: int) -> None:
    """A sparse file costs nothing, its mapping does."""
    os.ftruncate(ram, 1 << 62)
    memory = GuestMemory()
    add_region(memory, MemoryRegion(0, MAX_MEMORY - 0x1000, 0, 0), ram, never)
    with pytest.raises(RefusedError, match="more than"):
        add_region(memory, MemoryRegion(1 << 50, 0x2000, 1 << 50, 0), ram, never)
    clear_regions(memory)


def test_huge_pages(huge_pages: None) -> None:
    """They are mapped whole, whatever piece of them is a region (memory-backend-memfd,hugetlb=on)."""
    huge = os.memfd_create("huge", os.MFD_HUGETLB)
    os.ftruncate(huge, 4 << 20)
    memory = GuestMemory()
    add_region(memory, MemoryRegion(0, 0x20_0000, 0, 0x10_0000), huge, never)
    (view,) = memory.views(0x1F_FFFE, 2)
    view[:] = b"up"
    with mmap.mmap(huge, 4 << 20) as whole:
        assert whole[0x2F_FFFE:0x30_0000] == b"up"
    clear_regions(memory)
    os.close(huge)
