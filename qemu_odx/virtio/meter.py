"""Measures how long the requests of a queue take, without looking at them: the express lane keeps its batches.

Imports `virtio/chain`. `virtio/queues.py` puts it around what serves a queue, if somebody measures. Next: the meters
of `server/statistics`.
"""

from __future__ import annotations

from time import perf_counter
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from qemu_odx.virtio.chain import Chain
    from qemu_odx.virtio.port import Begun
    from qemu_odx.virtio.queue import Express


class Meter(Protocol):
    """Takes the measurements of one queue, in seconds."""

    def express(self, requests: int, seconds: float) -> None:
        """A batch of plain requests was done: each of them took as long as the batch."""

    def single(self, seconds: float) -> None:
        """One request was done by itself."""


def timed_lane(lane: Express, meter: Meter) -> Express:
    """An express lane that is measured: two looks at the clock for each batch."""

    def measured(heads: Sequence[int], done: list[int], begun: Begun) -> Sequence[int]:
        before, start = len(done), perf_counter()
        rest = lane(heads, done, _TimedEnds(begun, meter, start))
        requests = (len(done) - before) // 2
        if requests:
            meter.express(requests, perf_counter() - start)
        return rest

    return measured


class _TimedEnds:
    """What one batch only began: each of them is measured by itself."""

    def __init__(self, begun: Begun, meter: Meter, start: float) -> None:
        self.begin = begun.begin
        self._end = begun.end
        self._meter = meter
        self._start = start

    def end(self, head: int, written: int) -> None:
        """It is done."""
        self._meter.single(perf_counter() - self._start)
        self._end(head, written)


def timed_handler(handle: Callable[[Chain], None], meter: Meter) -> Callable[[Chain], None]:
    """A handler whose requests are measured, from here to their completion."""

    def measured(chain: Chain) -> None:
        start = perf_counter()
        chain.before_end(lambda: meter.single(perf_counter() - start))
        handle(chain)

    return measured
