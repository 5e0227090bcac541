"""Guest addresses become views, or an error; never somebody else's bytes."""

from __future__ import annotations

import gc
import mmap
import weakref

import pytest

from qemu_odx.virtio.memory import BadAddressError, GuestMemory

_UVA = 0x7F00_0000_0000


@pytest.fixture
def backing() -> list[bytearray]:
    """Bytes of three regions: 0x1000, 0x2000 (touching) and 0x8000 (after a hole), one page each."""
    return [bytearray(bytes([n]) * 0x1000) for n in (1, 2, 8)]


@pytest.fixture
def memory(backing: list[bytearray]) -> GuestMemory:
    """The three regions mapped, the middle one first."""
    memory = GuestMemory()
    for place, gpa in ((1, 0x2000), (0, 0x1000), (2, 0x8000)):
        memory.add(gpa, 0x1000, _UVA + gpa * 16, memoryview(backing[place]))
    return memory


def test_one_region(memory: GuestMemory, backing: list[bytearray]) -> None:
    """A buffer inside a region is one writable view of the shared bytes."""
    (view,) = memory.views(0x2010, 4)
    view[:] = b"abcd"
    assert backing[1][0x10:0x14] == b"abcd"


def test_across_regions(memory: GuestMemory) -> None:
    """A buffer across a border is one view for each region, in order, also right after a hit elsewhere."""
    memory.views(0x8000, 1)
    assert [bytes(view) for view in memory.views(0x1FFE, 4)] == [b"\1\1", b"\2\2"]


def test_whole_region(memory: GuestMemory) -> None:
    """The last byte of a region belongs to it."""
    assert len(memory.views(0x8000, 0x1000)[0]) == 0x1000


@pytest.mark.parametrize(
    ("gpa", "length"),
    [
        (0x0FFF, 1),
        (0x0FFF, 2),
        (0x3000, 1),
        (0x2FFF, 2),
        (0x8FFF, 2),
        (0x2000, 0x7000),
        (0x2000, 0),
        ((1 << 64) - 1, 2),
        ((1 << 64) - 0x1000, 0x3000),
        (0x2000, 0xFFFF_FFFF),
    ],
)
@pytest.mark.parametrize("hit", [0x1000, 0x2000, 0x8000])
def test_bad_range(memory: GuestMemory, hit: int, gpa: int, length: int) -> None:
    """Holes, ends, wrapping and empty ranges are errors, whichever region was used last."""
    memory.views(hit, 1)
    with pytest.raises(BadAddressError):
        memory.views(gpa, length)


def test_empty_map() -> None:
    """Without regions every address is bad."""
    with pytest.raises(BadAddressError):
        GuestMemory().views(0, 1)


def test_uva(memory: GuestMemory) -> None:
    """A ring is found by the front end's address."""
    assert bytes(memory.uva_view(_UVA + 0x80000 + 8, 2)) == b"\x08\x08"


@pytest.mark.parametrize("uva", [_UVA, _UVA + 0x80000 + 0xFFF, 0x8000])
def test_bad_uva(memory: GuestMemory, uva: int) -> None:
    """A ring must lie in one region; guest physical addresses are none of the front end's."""
    with pytest.raises(BadAddressError):
        memory.uva_view(uva, 2)


@pytest.mark.parametrize(
    ("gpa", "size"), [(0x1800, 0x1000), (0x0800, 0x1000), (0x0000, 0x9000), (0x2000, 0x1000), (0x9000, 0)]
)
def test_refused_region(memory: GuestMemory, gpa: int, size: int) -> None:
    """Regions that overlap or are empty are refused, and change nothing."""
    with pytest.raises(ValueError, match="memory region"):
        memory.add(gpa, size, 0, memoryview(bytearray(size)))
    assert [region.gpa for region in memory.regions] == [0x1000, 0x2000, 0x8000]


def test_view_of_other_length(memory: GuestMemory) -> None:
    """The mapping must be as long as the region."""
    with pytest.raises(ValueError, match="memory region"):
        memory.add(0x10000, 0x1000, 0, memoryview(bytearray(0x800)))


def test_remove(memory: GuestMemory) -> None:
    """A removed region is gone, the one used last too."""
    memory.views(0x2000, 1)
    memory.remove(0x2000, _UVA + 0x20000, 0x1000)
    with pytest.raises(BadAddressError):
        memory.views(0x2000, 1)
    assert len(memory.views(0x1000, 1)) == 1


def test_remove_needs_all_three(memory: GuestMemory) -> None:
    """A region is found by both addresses and its size."""
    with pytest.raises(KeyError, match="no memory region"):
        memory.remove(0x2000, _UVA, 0x1000)


def test_unmapped_with_its_last_view() -> None:
    """A mapping lives as long as I/O uses it, and not longer."""

    class Mapping(mmap.mmap):
        """An mmap that can be watched."""

    pages = Mapping(-1, 0x1000)
    watch = weakref.ref(pages)
    memory = GuestMemory()
    memory.add(0, 0x1000, 0, memoryview(pages))
    del pages
    (view,) = memory.views(0, 16)
    memory.remove(0, 0, 0x1000)
    view[:] = bytes(16)
    assert watch() is not None
    del view
    gc.collect()
    assert watch() is None
