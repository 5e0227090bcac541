"""The legacy SCSI packet request of virtio-blk: a command and its answer in one request.

Imports `wire/virtio/blk` and `virtio/{chain,mailbox}`. Taken only by devices with a mailbox, over whose I_T nexus the
command goes. Where the CDB ends follows from the borders of descriptors. Clause: VIRTIO 1.2, 5.2.6.5; `errors` is the
SCSI status, as QEMU's `hw/block/virtio-blk.c` and Linux' `drivers/block/virtio_blk.c` had it.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from qemu_odx.virtio.chain import fill, split
from qemu_odx.virtio.mailbox import shown_status, starved
from qemu_odx.wire.mailbox import MAX_CDB, MIN_CDB
from qemu_odx.wire.virtio import blk as wire
from qemu_odx.wire.virtio.blk import Status

if TYPE_CHECKING:
    from qemu_odx.target.port import Reply
    from qemu_odx.virtio.blk import Request
    from qemu_odx.virtio.mailbox import Mailbox


def execute(box: Mailbox, request: Request) -> None:
    """Run the command of a packet request, and complete it."""
    chain = request.chain
    room = request.data_in_length - wire.PACKET_END
    borders = chain.readable_borders()
    cdb_length = borders[1] if len(borders) > 1 and borders[0] == wire.HEADER_SIZE else 0
    both_ways = room > 0 and chain.readable_length > cdb_length
    if room < 0 or not MIN_CDB <= cdb_length <= MAX_CDB or both_ways:
        request.end(Status.IOERR)
        return
    cdb = chain.read_exact(cdb_length)
    data_in, end = split(request.data_in, room)
    ended = partial(_ended, request, end, (room, chain.readable_length))
    box.submit(cdb, chain.readable, data_in, ended, chain.stamp())


def _ended(request: Request, end: list[memoryview], lengths: tuple[int, int], reply: Reply) -> None:
    """Write sense and lengths behind the data, in one go, and complete; `lengths` are of data-in and data-out."""
    room, given_out = lengths
    if starved(reply, given_out):
        request.end(Status.IOERR)
        return
    given = room or given_out
    used = reply.data_in_length if room else min(reply.data_out_length, given)
    sense = reply.sense[: wire.PACKET_SENSE]
    fill(end, wire.PACKET.pack(sense, shown_status(reply), given, len(sense), given - used))
    everything = reply.data_in_length == room
    request.end(Status.OK, request.data_in_length if everything else reply.data_in_length)
