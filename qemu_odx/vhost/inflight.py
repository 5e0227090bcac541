"""The in-flight area: shared memory that survives our death and tells the next process what was running.

Imports `wire` and `vhost/{message,shared}.py`. The front end keeps the descriptor; `vhost/session.py` hands each
queue its part, `virtio/inflight.py` writes it. Source: vhost-user specification, "Inflight I/O tracking"; the
layout inside a part is private to the back end, its size is that of the specification's split ring layout (head
16, 16 per entry). Behind the last part stands what the device keeps for its successor.
"""

from __future__ import annotations

import fcntl
import os
from typing import TYPE_CHECKING

from qemu_odx.vhost.message import RefusedError
from qemu_odx.vhost.shared import map_shared
from qemu_odx.wire.vhost_user import MAX_RING, Inflight

if TYPE_CHECKING:
    from collections.abc import Callable

_HEAD = 16
_ENTRY = 16
_ALIGN = 64
_KEPT = 64
"""Bytes behind the parts: length of what is kept plus 1 (0: nothing was stored yet), and that."""


def part_size(queue_size: int) -> int:
    """Bytes of one queue's part: head and entries, rounded up to a cache line."""
    return -(-(_HEAD + _ENTRY * queue_size) // _ALIGN) * _ALIGN


def create_area(num_queues: int, queue_size: int) -> tuple[Inflight, int]:
    """A zeroed area in a sealed memfd, and its descriptor, owned by the caller."""
    size = num_queues * part_size(queue_size) + _KEPT
    fd = os.memfd_create("qemu-odx-inflight", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(fd, size)
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
    return Inflight(size, 0, num_queues, queue_size), fd


class InflightArea:
    """An area that the front end gave (back) to us, mapped; `lost` is told if its file becomes shorter."""

    def __init__(self, description: Inflight, fd: int, lost: Callable[[], None]) -> None:
        check_shape(description.num_queues, description.queue_size)
        needed = description.num_queues * part_size(description.queue_size) + _KEPT
        if description.mmap_size < needed:
            raise RefusedError(f"an in-flight area of {description.mmap_size} bytes, {needed} are needed")
        self._view = map_shared(fd, description.mmap_offset, needed, "the in-flight area", lost)
        self._description = description
        self._kept = self._view[needed - _KEPT :]

    def part(self, index: int, queue_size: int) -> memoryview | None:
        """The part of one queue, or None if the area was not made for it."""
        if index >= self._description.num_queues or queue_size > self._description.queue_size:
            return None
        size = part_size(self._description.queue_size)
        return self._view[index * size : (index + 1) * size]

    def keep(self, kept: bytes) -> None:
        """Store what a successor must know; the length last, so that a kill between finds all or nothing."""
        self._kept[1 : 1 + len(kept)] = kept
        self._kept[0] = len(kept) + 1

    def kept(self) -> bytes | None:
        """What was stored, None if nothing ever was."""
        length = self._kept[0] - 1
        return bytes(self._kept[1 : 1 + length]) if 0 <= length < _KEPT else None


def check_shape(num_queues: int, queue_size: int) -> None:
    """Refuse an area that no front end can need."""
    if not 0 < queue_size <= MAX_RING or num_queues == 0:
        raise RefusedError(f"an in-flight area for {num_queues} queues of {queue_size} entries")
