"""The split virtqueue and the in-flight area as bytes.

Pure layout: imports nothing of ours. Sizes are in bytes; `*_WORD` are positions in 16-bit words, because ring
indices may only be touched through 16-bit cast views (a byte-wise access can tear).
Next: `virtio/queue.py` reads and writes rings, `virtio/descriptors.py` walks descriptor tables.
Clauses are those of "Virtual I/O Device (VIRTIO) Version 1.2" (OASIS, CS01) unless named otherwise.
"""

from __future__ import annotations

from struct import Struct
from typing import Final

DESCRIPTOR: Final = Struct("<QIHH")
"""struct virtq_desc: address, length, flags, next (2.7.5)."""
DESCRIPTOR_SIZE: Final = 16
F_NEXT: Final = 1
"""VIRTQ_DESC_F_NEXT: the chain goes on at `next` (2.7.5)."""
F_WRITE: Final = 2
"""VIRTQ_DESC_F_WRITE: the device writes the buffer (2.7.5)."""
F_INDIRECT: Final = 4
"""VIRTQ_DESC_F_INDIRECT: the buffer is a table of descriptors (2.7.5.3)."""

FLAGS_WORD: Final = 0
"""Flags of the available and of the used ring (2.7.6, 2.7.8)."""
INDEX_WORD: Final = 1
"""Free-running index of the available and of the used ring (2.7.6, 2.7.8)."""
AVAIL_RING_WORD: Final = 2
"""First entry of the available ring (2.7.6)."""
USED_RING_LONG: Final = 1
"""First element of the used ring, in 32-bit words: id, length, id, length, ... (2.7.8)."""
AVAIL_F_NO_INTERRUPT: Final = 1
"""VIRTQ_AVAIL_F_NO_INTERRUPT (2.7.7)."""
USED_F_NO_NOTIFY: Final = 1
"""VIRTQ_USED_F_NO_NOTIFY (2.7.10)."""
INDEX_MASK: Final = 0xFFFF
"""Ring indices count modulo 65536 (2.7.6.1)."""
MAX_QUEUE_SIZE: Final = 32768
"""Largest queue, always a power of 2 (2.7)."""


def desc_size(entries: int) -> int:
    """Bytes of a descriptor table (2.7)."""
    return DESCRIPTOR_SIZE * entries


def avail_size(entries: int) -> int:
    """Bytes of an available ring with `used_event` (2.7)."""
    return 6 + 2 * entries


def used_size(entries: int) -> int:
    """Bytes of a used ring with `avail_event` (2.7)."""
    return 6 + 8 * entries


def used_event_word(entries: int) -> int:
    """Where the driver says which used entry is to interrupt it, in words of the available ring (2.7.7)."""
    return 2 + entries


def avail_event_word(entries: int) -> int:
    """Where the device says which available entry is to kick it, in words of the used ring (2.7.10)."""
    return 2 + 4 * entries


def needs_event(event: int, new: int, old: int) -> bool:
    """True if the index went past `event` on its way from `old` to `new` (2.7.7.2, 2.7.10)."""
    return (new - event - 1) & INDEX_MASK < (new - old) & INDEX_MASK


INFLIGHT_VERSION: Final = 1
"""Version field of an in-flight region (QEMU docs/interop/vhost-user.rst, "Inflight I/O tracking")."""
INFLIGHT_HEAD_SIZE: Final = 16
"""features u64, version u16, desc_num u16, last_batch_head u16, used_idx u16 (same)."""
INFLIGHT_ENTRY_SIZE: Final = 16
"""inflight u8, 5 bytes padding, next u16, counter u64, for each descriptor of a split ring (same)."""
