"""The event queue of a virtio-scsi device: buffers that the driver leaves there for news.

Imports `wire/virtio/scsi` and `virtio/queue`. Owned by `virtio/scsi.py`. Buffers stay in the ring until there is
something to say, so stopping the queue has nothing to wait for. Clauses: VIRTIO 1.2, 5.6.6.3.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from qemu_odx.virtio.chain import fill
from qemu_odx.virtio.queue import SplitQueue
from qemu_odx.wire.virtio import scsi as wire

if TYPE_CHECKING:
    from collections.abc import Callable

    from qemu_odx.virtio.chain import Chain
    from qemu_odx.virtio.port import Ring


class EventQueue:
    """Sends events; one that finds no buffer is reported later as EVENTS_MISSED, with which drivers rescan."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._queue: SplitQueue | None = None
        self._missed = False

    def start(self, ring: Ring) -> None:
        """Use a ring. What a crashed backend was saying is not known any more: it was missed."""
        self._queue = SplitQueue(ring, name=f"{self._name} event queue")
        for chain in self._queue.recover():
            self._missed = True
            chain.complete(0)
        self.kick()

    def kick(self) -> None:
        """New buffers: use one if something was missed."""
        if self._missed:
            self.send(wire.Event.NO_EVENT, bytes(8), 0)

    def stop(self, stopped: Callable[[int], None]) -> None:
        """Leave the ring; later events are missed."""
        if self._queue is not None:
            queue, self._queue = self._queue, None
            queue.stop(stopped)

    def forget(self) -> None:
        """A new driver looks for itself: nothing is missed."""
        self._missed = False

    def send(self, event: int, lun: bytes, reason: int) -> bool:
        """Put an event into the next buffer; False if there was none."""
        chain = self._buffer()
        if chain is None:
            self._missed = True
            return False
        if self._missed:
            event |= wire.EVENTS_MISSED
        self._missed = False
        fill(chain.writable, wire.EVENT.pack(event, lun, reason))
        chain.complete(wire.EVENT_SIZE)
        return True

    def _buffer(self) -> Chain | None:
        """The next buffer that holds an event; useless ones are given back. Without one, a kick is asked for."""
        queue = self._queue
        while queue is not None:
            chain = queue.pop()
            if chain is None:
                if queue.arm():
                    continue
                return None
            if chain.fault is None and chain.writable_length >= wire.EVENT_SIZE:
                return chain
            chain.complete(0)
        return None
