"""Looking at busy queues instead of sleeping until their next kick: saves the guest's kick and our waking up.

Imports the seam `virtio/port.py`. `server/loop.py` asks for a look between two looks at its descriptors. A queue is
looked at only while requests keep coming, and for a short while after the last: an idle server sleeps.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from qemu_odx.virtio.port import Pollable

WINDOW = 50e-6
"""Seconds to go on looking after the last request: about what falling asleep and waking up cost."""
STEADY = 200e-6
"""A queue that emptied twice within so many seconds is looked at: its requests keep coming."""
LOOKS = 16
"""Looks at the queues between two at the descriptors; each takes a fraction of a microsecond."""


class Polling:
    """The queues that are looked at now.

    Attributes:
        jobs: of threads, ours or the kernel's, not yet ended. While there are any, nobody looks: of ours, one that
            wants the interpreter would wait for it until its patience ends (`sys.getswitchinterval`), not a moment;
            one of the kernel's wants a processor.
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self._queues: dict[Pollable, Callable[[], None]] = {}
        self.jobs = 0

    def __bool__(self) -> bool:
        return bool(self._queues)

    def add(self, queue: Pollable, serve: Callable[[], None]) -> bool:
        """A queue has just been emptied: look at it from now on, if its requests keep coming; False if not."""
        now = self._clock()
        steady = now - queue.emptied < STEADY and not self.jobs
        queue.emptied = now
        if steady:
            self._queues[queue] = serve
        return steady

    def look(self) -> None:
        """Serve what is there, all queues in turn; those without requests for a while are to kick again."""
        queues = list(self._queues.items())
        for _ in range(LOOKS):
            waiting = [serve for queue, serve in queues if queue.pending()]
            if waiting:
                for serve in waiting:
                    serve()
                break
        now = self._clock()
        for queue, serve in queues:
            if self.jobs or now - queue.emptied > WINDOW:
                del self._queues[queue]
                if queue.arm():
                    serve()
