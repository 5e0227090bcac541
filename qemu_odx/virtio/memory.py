"""Guest memory: from the addresses a guest writes to views of the bytes behind them.

Imports nothing of ours. A vhost-user session adds and removes regions; `virtio/descriptors.py` asks for the
views of buffers, the session for those of rings.

Nobody closes a mapping. Every view handed out keeps its mmap alive, so a region can be removed while I/O runs
in it: hand the mmap's view to `add`, keep no other reference, and the kernel mapping goes away when the last
view does (`mmap.close()` would raise `BufferError: cannot close exported pointers exist` instead).
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    Window = tuple[int, int, memoryview]
    """A run of guest memory: guest physical address of its first byte, bytes, and the bytes themselves."""


class BadAddressError(Exception):
    """The guest named an address range that is not wholly guest memory."""


@dataclass(frozen=True, slots=True)
class Region:
    """A run of guest memory.

    Attributes:
        gpa: guest physical address of its first byte.
        size: bytes.
        uva: the front end's own virtual address of its first byte.
        view: the shared bytes themselves.
    """

    gpa: int
    size: int
    uva: int
    view: memoryview


_NOWHERE = Region(0, 0, 0, memoryview(b""))


class GuestMemory:
    """The memory map of one guest.

    Attributes:
        mark_written: called with (guest physical address, length) after the device wrote there, to log dirty
            pages for a migration; None while nobody logs.
    """

    def __init__(self) -> None:
        self.mark_written: Callable[[int, int], None] | None = None
        self._regions: list[Region] = []
        self._starts: list[int] = []
        self._hit = _NOWHERE

    @property
    def recent(self) -> Window:
        """The region in which an address was found last: most likely the next one lies there too."""
        hit = self._hit
        return hit.gpa, hit.size, hit.view

    @property
    def regions(self) -> tuple[Region, ...]:
        """The regions, ascending by guest physical address."""
        return tuple(self._regions)

    def add(self, gpa: int, size: int, uva: int, view: memoryview) -> None:
        """Map `view`, bytes of `size`, at a guest physical address and at a front end's virtual address.

        Raises:
            ValueError: the region is empty, wraps, overlaps another, or the view has another length.
        """
        if size <= 0 or view.nbytes != size or max(gpa, uva) + size > 1 << 64:
            raise ValueError(
                f"memory region of {size} bytes at {gpa:#x} is empty, wraps or has no such mapping"
            )
        if any(gpa < other.gpa + other.size and other.gpa < gpa + size for other in self._regions):
            raise ValueError(f"memory region of {size} bytes at {gpa:#x} overlaps one that is already mapped")
        place = bisect_right(self._starts, gpa)
        self._regions.insert(place, Region(gpa, size, uva, view.cast("B")))
        self._starts.insert(place, gpa)

    def remove(self, gpa: int, uva: int, size: int) -> None:
        """Forget a region; views of it that are still in use stay valid.

        Raises:
            KeyError: there is no region with just these three values.
        """
        for place, region in enumerate(self._regions):
            if (region.gpa, region.uva, region.size) == (gpa, uva, size):
                del self._regions[place], self._starts[place]
                self._hit = _NOWHERE
                return
        raise KeyError(f"no memory region of {size} bytes at {gpa:#x} (front end address {uva:#x})")

    def views(self, gpa: int, length: int) -> list[memoryview]:
        """Writable views of `length` bytes from a guest physical address, one for each region touched.

        Raises:
            BadAddressError: the range is empty, leaves guest memory or wraps.
        """
        hit = self._hit
        offset = gpa - hit.gpa
        end = offset + length
        if 0 <= offset < end <= hit.size:
            return [hit.view[offset:end]]
        return self._views_across(gpa, length)

    def _views_across(self, gpa: int, length: int) -> list[memoryview]:
        if length <= 0:
            raise BadAddressError(f"a buffer of {length} bytes at {gpa:#x}")
        found = []
        at, left = gpa, length
        while left:
            region = self._region_at(at)
            offset = at - region.gpa
            piece = region.view[offset : offset + left]
            found.append(piece)
            at += len(piece)
            left -= len(piece)
        return found

    def _region_at(self, gpa: int) -> Region:
        place = bisect_right(self._starts, gpa) - 1
        if place >= 0:
            region = self._regions[place]
            if gpa - region.gpa < region.size:
                self._hit = region
                return region
        raise BadAddressError(f"no guest memory at {gpa:#x}")

    def uva_view(self, uva: int, length: int) -> memoryview:
        """One writable view of `length` bytes from a front end's virtual address (a ring lies in one region).

        Raises:
            BadAddressError: no single region holds the whole range.
        """
        for region in self._regions:
            offset = uva - region.uva
            if length > 0 and offset >= 0 and offset + length <= region.size:
                return region.view[offset : offset + length]
        raise BadAddressError(f"no single memory region holds {length} bytes at front end address {uva:#x}")
