"""The express lane's view of a batch: requests of three plain descriptors, as nearly all are.

Imports `wire/virtio/ring` and `virtio/memory`. Linux and Windows send a read or write as header, data and status
(virtio-blk) or as three parts with the response among them (virtio-scsi): three descriptors, in an indirect table or
in the ring. `triples` takes these apart with one unpacking each; all else is `virtio/descriptors.py`'s, which knows
every form there is. A test compares the two.

Next: `virtio/blk_express.py` and `virtio/scsi_express.py`.
"""

from __future__ import annotations

from struct import Struct
from typing import TYPE_CHECKING, Final

from qemu_odx.wire.virtio.ring import DESCRIPTOR, DESCRIPTOR_SIZE, F_INDIRECT, F_NEXT

if TYPE_CHECKING:
    from collections.abc import Sequence

    from qemu_odx.virtio.memory import Window
    from qemu_odx.virtio.port import Ring

    Triple = tuple[int, ...]
    """Address, length, flags, next of each of three descriptors: twelve numbers, flags of the last two unchecked."""

_TRIPLE: Final = Struct("<QIHHQIHHQIHH")
_TABLE_SIZE: Final = 3 * DESCRIPTOR_SIZE
NEXT_WRITE: Final = 3
"""Flags of a writable descriptor that is not the last: VIRTQ_DESC_F_NEXT and F_WRITE (VIRTIO 2.7.5)."""


def triples(heads: Sequence[int], ring: Ring, window: Window) -> list[Triple | None]:
    """The descriptors of each request, copied once; None for one that has another form or lies elsewhere.

    The first of the three is readable and has a next one; the second has a next one. The caller looks at lengths,
    addresses and the other flags.

    Args:
        heads: heads of chains, each below the size of the ring.
        ring: where the chains begin.
        window: the run of guest memory in which indirect tables are looked for.
    """
    base, size, ram = window
    last = size - _TABLE_SIZE
    table = ring.desc
    unpack, unpack_triple = DESCRIPTOR.unpack_from, _TRIPLE.unpack_from
    found: list[Triple | None] = []
    for head in heads:
        address, length, flags, _ = unpack(table, head * DESCRIPTOR_SIZE)
        if flags != F_INDIRECT:
            found.append(_in_ring(head, ring))
            continue
        at = address - base
        if length == _TABLE_SIZE and 0 <= at <= last:
            triple = unpack_triple(ram, at)
            if triple[2] == F_NEXT and triple[3] == 1 and triple[6] & F_NEXT and triple[7] == 2:
                found.append(triple)
                continue
        found.append(None)
    return found


def _in_ring(head: int, ring: Ring) -> Triple | None:
    """Three descriptors anywhere in the table of the ring."""
    unpack, table, size = DESCRIPTOR.unpack_from, ring.desc, ring.size
    first: Triple = unpack(table, head * DESCRIPTOR_SIZE)
    if first[2] != F_NEXT or first[3] >= size:
        return None
    second: Triple = unpack(table, first[3] * DESCRIPTOR_SIZE)
    if not second[2] & F_NEXT or second[3] >= size:
        return None
    third: Triple = unpack(table, second[3] * DESCRIPTOR_SIZE)
    return first + second + third
