"""Guest RAM: maps the regions that a front end shares into a `GuestMemory`.

Imports `wire`, `vhost/{message,shared}.py` and `virtio/memory.py`, which keeps a region mapped while views live.
Rings are given as addresses in the front end's process ("user addresses"), descriptors in a ring as guest
physical ones (vhost-user specification, "Memory access").
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from qemu_odx.vhost.message import RefusedError
from qemu_odx.vhost.shared import map_shared
from qemu_odx.virtio.memory import BadAddressError

if TYPE_CHECKING:
    from collections.abc import Callable

    from qemu_odx.virtio.memory import GuestMemory
    from qemu_odx.wire.vhost_user import MemoryRegion

MAX_SLOTS = 512
"""What GET_MAX_MEM_SLOTS says: all that QEMU 10.0 ever uses; 7.2 takes 256. It must never shrink."""
MAX_MEMORY = 1 << 43
"""Bytes of guest RAM, 8 TiB: sixteen such front ends fill the address space of a process."""


def add_region(memory: GuestMemory, region: MemoryRegion, fd: int, lost: Callable[[], None]) -> None:
    """Map one more region; `fd` stays the caller's, `lost` is told if its file becomes shorter.

    Raises:
        RefusedError: it overlaps, is larger than its file, or cannot be mapped.
    """
    if len(memory.regions) >= MAX_SLOTS:
        raise RefusedError(f"more than {MAX_SLOTS} memory regions")
    if sum(other.size for other in memory.regions) + region.size > MAX_MEMORY:
        raise RefusedError(f"{_text(region)} makes more than {MAX_MEMORY:#x} bytes of guest memory")
    view = map_shared(fd, region.mmap_offset, region.size, _text(region), lost)
    try:
        memory.add(region.guest_address, region.size, region.user_address, view)
    except ValueError as error:
        raise RefusedError(str(error)) from error


def remove_region(memory: GuestMemory, region: MemoryRegion) -> None:
    """Forget a region, found by both addresses and its size as the specification says.

    Raises:
        RefusedError: there is no such region.
    """
    try:
        memory.remove(region.guest_address, region.user_address, region.size)
    except KeyError as error:
        raise RefusedError(str(error.args[0])) from error


def clear_regions(memory: GuestMemory) -> None:
    """Forget every region."""
    for region in memory.regions:
        memory.remove(region.gpa, region.uva, region.size)


def ring_view(memory: GuestMemory, address: int, length: int, align: int, what: str) -> memoryview:
    """One part of a ring by its front-end address.

    Raises:
        RefusedError: it is not aligned, or not wholly in one shared region.
    """
    if not memory.regions:
        raise RefusedError(
            "the front end shares no guest memory; give QEMU -object memory-backend-memfd,id=mem,size=...,share=on "
            "and -machine memory-backend=mem"
        )
    if address % align:
        raise RefusedError(f"the {what} at {address:#x} is not aligned to {align} bytes")
    try:
        return memory.uva_view(address, length)
    except BadAddressError as error:
        raise RefusedError(
            f"the {what} at {address:#x} ({length} bytes) is not in shared guest memory"
        ) from error


def _text(region: MemoryRegion) -> str:
    return f"the memory region of {region.size:#x} bytes at {region.guest_address:#x}"
