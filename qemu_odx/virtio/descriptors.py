"""Walking a descriptor chain: from its head to (address, length, flags) triples in private memory.

Imports `wire/virtio/ring` and `virtio/memory`. The guest may rewrite descriptors at any moment, so each is
copied out of shared memory once and only the copy is looked at. Next: `virtio/chain.py`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from qemu_odx.virtio.memory import BadAddressError
from qemu_odx.wire.virtio.ring import DESCRIPTOR, DESCRIPTOR_SIZE, F_INDIRECT, F_NEXT

if TYPE_CHECKING:
    from qemu_odx.virtio.memory import GuestMemory

    Descriptor = tuple[int, int, int]
    """Address, length, flags."""

MAX_DESCRIPTORS: Final = 1024
"""Longest chain taken. The standard allows as many as the queue has entries (VIRTIO 2.7.5.3.1), yet Windows'
drivers send indirect tables of up to 515 descriptors on shorter queues; 1024 is also Linux' IOV_MAX."""


class MalformedChainError(Exception):
    """The descriptors do not form a chain: nothing can be said about where its parts are."""


def walk(table: memoryview, entries: int, head: int, memory: GuestMemory) -> list[Descriptor]:
    """The descriptors of the chain that starts at `head`, the indirect ones included, in order.

    Args:
        table: the queue's descriptor table.
        entries: size of the queue; `head` is below it.
        head: index of the first descriptor.
        memory: where an indirect table is looked up.

    Raises:
        MalformedChainError: loop, index out of range, bad or nested indirect table, or too many descriptors.
    """
    found = []
    index = head
    for _ in range(entries):
        address, length, flags, following = DESCRIPTOR.unpack_from(table, index * DESCRIPTOR_SIZE)
        if flags & F_INDIRECT:
            if flags & F_NEXT:
                raise MalformedChainError("a descriptor is both INDIRECT and NEXT")
            found += _indirect(address, length, memory)
            break
        found.append((address, length, flags))
        if not flags & F_NEXT:
            break
        index = following
        if index >= entries:
            raise MalformedChainError(f"next descriptor {index} in a table of {entries}")
    else:
        raise MalformedChainError("descriptors form a loop")
    if len(found) > MAX_DESCRIPTORS:
        raise MalformedChainError(f"{len(found)} descriptors in a chain, at most {MAX_DESCRIPTORS} are taken")
    return found


def _indirect(address: int, length: int, memory: GuestMemory) -> list[Descriptor]:
    entries, odd = divmod(length, DESCRIPTOR_SIZE)
    if odd or not 0 < entries <= MAX_DESCRIPTORS:
        raise MalformedChainError(f"indirect table of {length} bytes")
    try:
        copy = b"".join(memory.views(address, length))
    except BadAddressError as bad:
        raise MalformedChainError(f"indirect table: {bad}") from None
    found = []
    index = 0
    for _ in range(entries):
        address, length, flags, following = DESCRIPTOR.unpack_from(copy, index * DESCRIPTOR_SIZE)
        if flags & F_INDIRECT:
            raise MalformedChainError("an indirect table inside an indirect table")
        found.append((address, length, flags))
        if not flags & F_NEXT:
            return found
        index = following
        if index >= entries:
            raise MalformedChainError(f"next descriptor {index} in an indirect table of {entries}")
    raise MalformedChainError("indirect descriptors form a loop")
