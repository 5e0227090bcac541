"""Guest RAM: maps the regions that a front end shares into a `GuestMemory`.

Imports `wire`, `vhost/message.py` and `virtio/memory.py`, which keeps a region mapped while views live.
Rings are given as addresses in the front end's process ("user addresses"), descriptors in a ring as guest
physical ones (vhost-user specification, "Memory access").
"""

from __future__ import annotations

import fcntl
import logging
import mmap
import os
from typing import TYPE_CHECKING

from qemu_odx.vhost.message import RefusedError
from qemu_odx.virtio.memory import BadAddressError

if TYPE_CHECKING:
    from qemu_odx.virtio.memory import GuestMemory
    from qemu_odx.wire.vhost_user import MemoryRegion

log = logging.getLogger(__name__)

MAX_SLOTS = 512
"""What GET_MAX_MEM_SLOTS says: all that QEMU 10.0 ever uses; 7.2 takes 256. It must never shrink."""


def add_region(memory: GuestMemory, region: MemoryRegion, fd: int) -> None:
    """Map one more region; `fd` stays the caller's.

    Raises:
        RefusedError: it overlaps, is larger than its file, or cannot be mapped.
    """
    if len(memory.regions) >= MAX_SLOTS:
        raise RefusedError(f"more than {MAX_SLOTS} memory regions")
    view = _map(region, fd)
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


def _map(region: MemoryRegion, fd: int) -> memoryview:
    """The bytes of a region: the mapping may begin before it and end after it."""
    status = os.fstat(fd)
    if region.mmap_offset + region.size > status.st_size:
        raise RefusedError(f"{_text(region)} is larger than its file of {status.st_size} bytes")
    _note_if_shrinkable(region, fd)
    # Huge pages (hugetlbfs reports their size as the block size) can only be mapped whole.
    align = max(mmap.ALLOCATIONGRANULARITY, status.st_blksize)
    start = region.mmap_offset // align * align
    end = min(-(-(region.mmap_offset + region.size) // align) * align, status.st_size)
    try:
        pages = mmap.mmap(fd, end - start, offset=start)
    except (OSError, ValueError, OverflowError) as error:
        raise RefusedError(f"{_text(region)} cannot be mapped: {error}") from error
    skip = region.mmap_offset - start
    return memoryview(pages)[skip : skip + region.size]


def _note_if_shrinkable(region: MemoryRegion, fd: int) -> None:
    """A file that its owner may truncate under us ends this process by SIGBUS: say so where it can be found.

    QEMU's memory-backend-memfd seals its file unless told `seal=off`; memory-backend-file cannot.
    """
    try:
        sealed = fcntl.fcntl(fd, fcntl.F_GET_SEALS) & fcntl.F_SEAL_SHRINK
    except OSError:
        sealed = 0
    if not sealed:
        log.debug("%s is not sealed against shrinking: do not truncate its file while in use", _text(region))


def _text(region: MemoryRegion) -> str:
    return f"the memory region of {region.size:#x} bytes at {region.guest_address:#x}"
