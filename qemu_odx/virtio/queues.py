"""The started queues of one device, each with what it does with a request.

Imports `virtio/{queue,chain,meter,port}`. Used by `virtio/blk.py` and `virtio/scsi.py` to be a `Device`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from qemu_odx.virtio.meter import timed_handler, timed_lane
from qemu_odx.virtio.port import NO_LOAD, Load
from qemu_odx.virtio.queue import SplitQueue

if TYPE_CHECKING:
    from collections.abc import Callable

    from qemu_odx.virtio.chain import Chain
    from qemu_odx.virtio.meter import Meter
    from qemu_odx.virtio.port import Ring
    from qemu_odx.virtio.queue import Express


class Queues:
    """Queues by index; `name` is for messages.

    Attributes:
        meters: makes what measures a queue, by its index; None: nobody measures.
    """

    def __init__(self, name: str) -> None:
        self.meters: Callable[[int], Meter] | None = None
        self._name = name
        self._started: dict[int, tuple[SplitQueue, Callable[[Chain], None]]] = {}

    def start(
        self, index: int, ring: Ring, handle: Callable[[Chain], None], express: Express | None = None
    ) -> None:
        """Start a queue; `handle` gets each request that `express` did not take."""
        if self.meters is not None:
            meter = self.meters(index)
            handle, express = timed_handler(handle, meter), express and timed_lane(express, meter)
        queue = SplitQueue(ring, name=f"{self._name} queue {index}", express=express)
        self._started[index] = queue, handle
        queue.start(handle)

    def kick(self, index: int) -> None:
        """Process what is available; a queue that is not started is left alone (any guest can kick any)."""
        if index in self._started:
            queue, handle = self._started[index]
            queue.drain(handle)

    def stop(self, index: int, stopped: Callable[[int], None]) -> None:
        """Stop a started queue, and forget it once it is idle."""

        def idle(next_avail: int) -> None:
            del self._started[index]
            stopped(next_avail)

        self._started[index][0].stop(idle)

    def load(self, index: int) -> Load:
        """What a queue has to do; nothing if it is not started."""
        if index not in self._started:
            return NO_LOAD
        queue, _ = self._started[index]
        return Load(queue.taken - queue.completed, queue.taken, queue.completed)

    def publish(self) -> None:
        """Make every completion visible to the driver, also those of a batch that is being made."""
        for queue, _ in self._started.values():
            queue.publish()

    @property
    def in_flight(self) -> int:
        """Requests of all queues that are not yet completed."""
        return sum(queue.in_flight for queue, _ in self._started.values())
