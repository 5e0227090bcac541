"""The express lane's view of a batch: the descriptors of requests in the forms that nearly all have.

Imports `wire/virtio/ring`, `virtio/memory` and `disk/dispatch`. Linux and Windows send a read or write as one run
of descriptors, in order, in an indirect table or in the ring: header, data in pieces, status (virtio-blk); command,
response and data (virtio-scsi). `descriptors_of` takes these apart with one unpacking each; all else goes to
`virtio/descriptors.py`, which knows every form there is. A test compares the two.

Next: `virtio/blk_express.py` and `virtio/scsi_express.py`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from functools import cache
from struct import Struct
from typing import TYPE_CHECKING, Final, Protocol

from qemu_odx.disk.dispatch import INLINE_LIMIT, LONG_READ
from qemu_odx.virtio.descriptors import MAX_DESCRIPTORS
from qemu_odx.wire.virtio.ring import DESCRIPTOR, DESCRIPTOR_SIZE, F_INDIRECT, F_NEXT

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from qemu_odx.disk.port import Io
    from qemu_odx.virtio.memory import Window
    from qemu_odx.virtio.port import Begun, Ring

    Flat = tuple[int, ...]
    """Address, length, flags, next; address, length, flags, next; ... of the descriptors of one chain."""
    End = tuple[int, int, int, Flat]
    """How a request ends: its head, its used length, where its status goes in the window; and its descriptors."""


class Store(Protocol):
    """What does the I/O of a lane, as far as that needs not wait."""

    def try_batch(self, batch: Sequence[Io]) -> Sequence[int]:
        """As `disk/port.Disk.try_batch`."""


LIMITS: Final = (LONG_READ - 1, INLINE_LIMIT)
"""Bytes of the longest read and of the longest write that are done here: see `disk/dispatch.py`."""
TRIPLE: Final = 12
"""Numbers in the flat form of three descriptors."""
NEXT_WRITE: Final = 3
"""Flags of a writable descriptor that is not the last: VIRTQ_DESC_F_NEXT and F_WRITE (VIRTIO 2.7.5)."""
_GO_ON: Final = frozenset({F_NEXT, NEXT_WRITE})
_SMALLEST, _LARGEST = 3 * DESCRIPTOR_SIZE, MAX_DESCRIPTORS * DESCRIPTOR_SIZE


class Lane(ABC):
    """The express lane of one queue; see `virtio/queue.Express`.

    What it does not take (another form or command, whatever is wrong, whatever would wait) it returns untouched, for
    the device to handle one by one; what it takes ends as there.

    Args:
        ring: the queue's ring.
        good: what is stored where the status goes.
    """

    def __init__(self, ring: Ring, good: bytes) -> None:
        self._ring = ring
        self._good = good

    @abstractmethod
    def _parse(self, heads: Sequence[int], window: Window) -> Iterable[tuple[Store, list[Io], list[End]]]:
        """The plain requests as I/O of some disks, with the end of each.

        Everything is compared in the copy that was made: what the guest writes meanwhile changes nothing.
        """

    def _begin(self, io: Io, end: End, ram: memoryview, begun: Begun) -> bool:
        """Begin what would have to wait, if that is possible; `end` it later."""
        del io, end, ram, begun
        return False

    def __call__(self, heads: Sequence[int], done: list[int], begun: Begun) -> Sequence[int]:
        """Execute what is plain."""
        memory, good = self._ring.memory, self._good
        if memory.mark_written is not None:
            return heads
        window = memory.recent
        ram, size = window[2], len(good)
        served: set[int] = set()
        for store, batch, ends in self._parse(heads, window):
            for place in reversed(store.try_batch(batch)):
                end = ends.pop(place)
                if self._begin(batch[place], end, ram, begun):
                    served.add(end[0])
            for head, written, status, _ in ends:
                ram[status : status + size] = good
                done += (head, written)
        if len(done) == 2 * len(heads):
            return ()
        served.update(done[::2])
        return [head for head in heads if head not in served]


def descriptors_of(heads: Sequence[int], ring: Ring, window: Window) -> list[Flat | None]:
    """The descriptors of each chain, copied once; None for one that has another form or lies elsewhere.

    There are three or more of them; each but the last has the flag F_NEXT and leads to the one after it. The caller
    looks at addresses, lengths and the other flags.

    Args:
        heads: heads of chains, each below the size of the ring.
        ring: where the chains begin.
        window: the run of guest memory in which indirect tables are looked for.
    """
    base, size, ram = window
    table, unpack = ring.desc, DESCRIPTOR.unpack_from
    unpack_triple = _form(3)[0].unpack_from
    found: list[Flat | None] = []
    for head in heads:
        address, length, flags, _ = unpack(table, head * DESCRIPTOR_SIZE)
        at = address - base
        if flags != F_INDIRECT:
            found.append(_in_ring(head, ring))
        elif not (_SMALLEST <= length <= _LARGEST and 0 <= at <= size - length):
            found.append(None)
        elif length == _SMALLEST:
            flat = unpack_triple(ram, at)
            ordered = flat[3] == 1 and flat[7] == 2 and flat[2] & flat[6] & F_NEXT
            found.append(flat if ordered else None)
        else:
            found.append(_long(ram, at, length))
    return found


def _long(ram: memoryview, at: int, length: int) -> Flat | None:
    """An indirect table of many descriptors."""
    if length % DESCRIPTOR_SIZE:
        return None
    form, following = _form(length // DESCRIPTOR_SIZE)
    flat: Flat = form.unpack_from(ram, at)
    if flat[3:-1:4] != following or not _GO_ON.issuperset(flat[2:-4:4]):
        return None
    return flat


@cache
def _form(descriptors: int) -> tuple[Struct, tuple[int, ...]]:
    """What unpacks a table of so many descriptors at once, and the `next` of each but the last, in order."""
    return Struct("<" + "QIHH" * descriptors), tuple(range(1, descriptors))


def _in_ring(head: int, ring: Ring) -> Flat | None:
    """Three descriptors anywhere in the table of the ring."""
    unpack, table, size = DESCRIPTOR.unpack_from, ring.desc, ring.size
    first: Flat = unpack(table, head * DESCRIPTOR_SIZE)
    if first[2] != F_NEXT or first[3] >= size:
        return None
    second: Flat = unpack(table, first[3] * DESCRIPTOR_SIZE)
    if not second[2] & F_NEXT or second[3] >= size:
        return None
    third: Flat = unpack(table, second[3] * DESCRIPTOR_SIZE)
    return first + second + third


def gather(flat: Flat, first: int, last: int, window: Window) -> tuple[list[memoryview], int] | None:
    """The buffers of descriptors `first` to `last` (exclusive), neighbours joined, and their length together.

    None if one lies outside of the window, or is empty.
    """
    base, size, ram = window
    views: list[memoryview] = []
    start = end = flat[4 * first]
    total = 0
    for address, length in zip(
        flat[4 * first : 4 * last : 4], flat[4 * first + 1 : 4 * last : 4], strict=True
    ):
        if address != end:
            if not base <= start <= end <= base + size:
                return None
            views.append(ram[start - base : end - base])
            start = end = address
        if not length:
            return None
        end += length
        total += length
    if not base <= start <= end <= base + size:
        return None
    views.append(ram[start - base : end - base])
    return views, total
