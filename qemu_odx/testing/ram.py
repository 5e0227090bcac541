"""Guest RAM for tests without a guest: a memfd, cut into regions as a front end would announce them.

May import anything but `lab` and `cli`. `testing/driver.py` puts rings and buffers here; a vhost-user front
end sends `regions` with `fd`, and `memory()` gives the device's view of it in the same process.
"""

from __future__ import annotations

import mmap
import os
from dataclasses import dataclass

from qemu_odx.virtio.memory import GuestMemory


@dataclass(frozen=True, slots=True)
class RamRegion:
    """What ADD_MEM_REG says: guest physical address, bytes, front-end address, offset in the file."""

    gpa: int
    size: int
    uva: int
    offset: int


class GuestRam:
    """Shared memory with an allocator.

    Args:
        size: bytes, a multiple of the page size times `pieces`.
        pieces: regions to cut it into. They join in guest physical addresses but lie in reverse order in the
            file, so that a buffer across a border is really two runs of host memory.
        base: guest physical address of the first byte.
        flags: of the memfd, besides close-on-exec: MFD_HUGETLB, MFD_ALLOW_SEALING.
    """

    _UVA = 0x7F00_0000_0000

    def __init__(
        self, size: int = 16 << 20, *, pieces: int = 1, base: int = 0x10_0000, flags: int = 0
    ) -> None:
        if size % (pieces * mmap.PAGESIZE):
            raise ValueError(f"{size} bytes cannot be cut into {pieces} regions of whole pages")
        self.fd = os.memfd_create("guest-ram", os.MFD_CLOEXEC | flags)
        os.ftruncate(self.fd, size)
        self._map = memoryview(mmap.mmap(self.fd, size))
        self.base = base
        self.size = size
        step = size // pieces
        self.regions = tuple(
            RamRegion(base + n * step, step, self._UVA + n * 2 * step, size - (n + 1) * step)
            for n in range(pieces)
        )
        self._free = [(base, size)]

    def close(self) -> None:
        """Close the file; views that are still in use stay valid."""
        os.close(self.fd)
        self._map = memoryview(b"")

    def memory(self) -> GuestMemory:
        """The device's view of all regions."""
        memory = GuestMemory()
        for region in self.regions:
            memory.add(
                region.gpa, region.size, region.uva, self._map[region.offset : region.offset + region.size]
            )
        return memory

    def allocate(self, length: int, align: int = 16) -> int:
        """Guest physical address of `length` unused bytes (they may lie across regions).

        Raises:
            MemoryError: there is no such run left.
        """
        for place, (start, size) in enumerate(self._free):
            gpa = -(-start // align) * align
            if gpa + length <= start + size:
                rests = [(start, gpa - start), (gpa + length, start + size - gpa - length)]
                self._free[place : place + 1] = [rest for rest in rests if rest[1]]
                return gpa
        raise MemoryError(f"no {length} bytes of guest RAM left")

    def free(self, gpa: int, length: int) -> None:
        """Give back what `allocate` gave."""
        if not length:
            return
        runs: list[tuple[int, int]] = []
        for start, size in sorted([*self._free, (gpa, length)]):
            if runs and sum(runs[-1]) == start:
                runs[-1] = (runs[-1][0], runs[-1][1] + size)
            else:
                runs.append((start, size))
        self._free = runs

    def uva(self, gpa: int) -> int:
        """The front end's own address of a guest physical address."""
        region = self._region(gpa)
        return region.uva + gpa - region.gpa

    def view(self, gpa: int, length: int) -> memoryview:
        """Writable view of bytes inside one region (rings)."""
        region = self._region(gpa)
        start = region.offset + gpa - region.gpa
        if gpa + length > region.gpa + region.size:
            raise ValueError(f"{length} bytes at {gpa:#x} cross the border of a region")
        return self._map[start : start + length]

    def read(self, gpa: int, length: int) -> bytes:
        """Copy bytes out, across regions."""
        return b"".join(bytes(self.view(at, size)) for at, size in self._runs(gpa, length))

    def write(self, gpa: int, data: bytes) -> None:
        """Copy bytes in, across regions."""
        done = 0
        for at, size in self._runs(gpa, len(data)):
            self.view(at, size)[:] = data[done : done + size]
            done += size

    def _region(self, gpa: int) -> RamRegion:
        for region in self.regions:
            if region.gpa <= gpa < region.gpa + region.size:
                return region
        raise ValueError(f"no guest RAM at {gpa:#x}")

    def _runs(self, gpa: int, length: int) -> list[tuple[int, int]]:
        runs = []
        while length:
            region = self._region(gpa)
            size = min(length, region.gpa + region.size - gpa)
            runs.append((gpa, size))
            gpa += size
            length -= size
        return runs
