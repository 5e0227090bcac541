"""The device side of a split virtqueue.

Imports `wire/virtio/ring`, `virtio/{chain,inflight,memory,port}`. A session hands over a `Ring`; a device
takes `Chain`s from it (`drain`, or `pop` one by one) and completes them in any order, then or later. Before that,
its express lane (`virtio/express.py`) may have whole batches of the plainest requests done at once.
Next: `virtio/blk.py`, `virtio/scsi.py`.

Three rules of shared memory are kept here:
- Ring indices, flags and events are read and written through `memoryview.cast("H")` only: one machine load or
  store. `struct.pack_into` clears its target first and a two-byte slice can be read torn.
- Where a store must be seen before a following load (used index, then used_event; avail_event, then available
  index) stands a full fence. x86 keeps every other order by itself; other machines are not served.
- Entries behind the index are copied once. All counters the device relies on are its own, never read back.
"""

from __future__ import annotations

import logging
from array import array
from contextlib import contextmanager
from threading import Lock
from time import monotonic
from typing import TYPE_CHECKING, Final

from qemu_odx.virtio.chain import Chain
from qemu_odx.virtio.inflight import InflightArea
from qemu_odx.wire.virtio import ring as wire

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from qemu_odx.virtio.port import Begun, Ring

    Express = Callable[[Sequence[int], list[int], Begun], Sequence[int]]
    """Executes those requests (by their heads) that it can at once and appends head and bytes written of each to the
    list; some more it may only begin. Returns the other heads, in their order."""

_log = logging.getLogger(__name__)

BATCH: Final = 64
"""Most requests taken before their completions are published."""
SLICE: Final = 0.002
"""Seconds after which `drain` begins no other batch when the ring has `again`: no queue starves the others."""

_fence_lock = Lock()


def full_fence() -> None:
    """Order every store before against every load after: an atomic operation does so on x86."""
    _fence_lock.acquire()
    _fence_lock.release()


class LostCompletionError(AssertionError):
    """A queue was given up with requests that nobody completed: a bug of ours, the guest would hang."""


class SplitQueue:
    """A started queue, until `stop` calls back.

    Attributes:
        next_avail: free-running index of the next available entry to take.
        broken: the guest broke the ring's rules; nothing more is taken from it.
        taken: requests taken since the start, those refused here included.
        completed: requests given back since the start.
        emptied: see `Pollable`.
    """

    def __init__(self, ring: Ring, *, name: str = "queue", express: Express | None = None) -> None:
        self.next_avail = ring.next_avail
        self.broken = False
        self.taken = 0
        self.completed = 0
        self.emptied = 0.0
        self._ring = ring
        self._name = name
        self._size = ring.size
        self._mask = ring.size - 1
        self._avail = ring.avail[: wire.avail_size(ring.size)].cast("B").cast("H")
        self._used = ring.used[: wire.used_size(ring.size)].cast("B").cast("H")
        self._elements = ring.used[: wire.used_size(ring.size) - 2].cast("B").cast("I")
        self._used_index = self._used[wire.INDEX_WORD]
        self._open: set[int] = set()
        self._express = express
        self._done: list[int] = []  # what to publish: head, bytes written, head, bytes written, ...
        self._unmarked = False  # nothing in `_done` was ever marked in the in-flight area
        self._depth = 0
        self._stopped: Callable[[int], None] | None = None
        self._area = InflightArea(ring.inflight, ring.size) if ring.inflight is not None else None

    @property
    def in_flight(self) -> int:
        """Requests taken and not yet given back."""
        return len(self._open)

    def start(self, handle: Callable[[Chain], None]) -> None:
        """Run again what a crashed backend had begun, then everything that waits in the ring.

        The session signals the guest once after this: a completion may have lost its interrupt in the crash.
        """
        with self.batch():
            for chain in self.recover():
                self._run(handle, chain)
        self.drain(handle)

    def recover(self) -> list[Chain]:
        """Reopen what a crashed backend had begun, oldest first; once, before anything is taken."""
        heads = self._area.recover(self._used_index) if self._area else []
        if heads:
            self.next_avail = (self._used_index + len(heads)) & wire.INDEX_MASK
        return [self._open_chain(head) for head in heads]

    def drain(self, handle: Callable[[Chain], None]) -> None:
        """Give every available request to `handle`, in order, with kicks switched off meanwhile.

        With `Ring.again`, a queue that is never empty is left after some time, and `again` is called.
        """
        if self.broken or self._stopped is not None:
            return
        self._suppress_kicks()
        again, published = self._ring.again, self._used_index
        end = monotonic() + SLICE
        while again is None or monotonic() < end:
            self._serve_batch(handle)
            if self._empty(published):
                return
        again()

    def _serve_batch(self, handle: Callable[[Chain], None]) -> None:
        self._depth += 1
        try:
            for head in self._ahead(self._take(BATCH)):
                self._run(handle, self._open_chain(head))
        finally:
            self._depth -= 1
            if not self._depth:
                self.publish()

    def _empty(self, published: int) -> bool:
        """True if there is nothing to take, and the next entry will be noticed.

        If requests were completed at once (the used index is not `published` any more), new ones may follow soon.
        """
        if self.broken or self._stopped is not None:
            return True
        if self._avail[wire.INDEX_WORD] != self.next_avail:
            return False
        poll = self._ring.poll if self._used_index != published else None
        return (poll is not None and poll(self)) or not self.arm()

    def pending(self) -> bool:
        """True if there is something to take: what a poller asks, often."""
        return self._stopped is None and self._avail[wire.INDEX_WORD] != self.next_avail and not self.broken

    def _run(self, handle: Callable[[Chain], None], chain: Chain) -> None:
        try:
            handle(chain)
        except Exception:  # noqa: BLE001 - a bug of ours ends one request, not the process
            _log.exception("%s: request %d failed inside the backend", self._name, chain.head)
            if chain.open:
                chain.complete(0)

    def pop(self) -> Chain | None:
        """Take one request, if there is any; for queues whose buffers wait for the device's need."""
        with self.batch():
            heads = self._take(1)
            self._mark(heads)
            return self._open_chain(heads[0]) if heads else None

    # -- taking ------------------------------------------------------------------------------------

    def _take(self, limit: int) -> Sequence[int]:
        """Up to `limit` available heads; a bad head is refused or breaks the ring."""
        if self.broken or self._stopped is not None:
            return ()
        available = (self._avail[wire.INDEX_WORD] - self.next_avail) & wire.INDEX_MASK
        if not available:
            return ()
        if available > self._size:
            self._break(f"available index jumped by {available} in a ring of {self._size}")
            return ()
        heads = self._heads(min(available, limit))
        if max(heads) >= self._size:
            heads = self._up_to_bad(heads)
        self.next_avail = (self.next_avail + len(heads)) & wire.INDEX_MASK
        self.taken += len(heads)
        if len(set(heads)) != len(heads) or not self._open.isdisjoint(heads):
            heads = self._without_repeats(heads)
        return heads

    def _up_to_bad(self, heads: list[int]) -> list[int]:
        place, bad = next((place, head) for place, head in enumerate(heads) if head >= self._size)
        self._break(f"available entry {bad} in a ring of {self._size}")
        return heads[:place]

    def _without_repeats(self, heads: list[int]) -> list[int]:
        """The same head twice: the second is given back unexecuted, the first goes on."""
        fresh: dict[int, None] = {}
        for head in heads:
            if head in fresh or head in self._open:
                self._give_back(head, 0)
            else:
                fresh[head] = None
        return list(fresh)

    def _ahead(self, heads: Sequence[int]) -> Sequence[int]:
        """Let the express lane execute what it can; the others are marked and returned.

        What is in no one's list is executed again after a crash, from the place in the available ring that follows
        from the count of the marked. So a batch needs no marks if all of it is done before any of it is published,
        and if only one request of it is to be marked, then all are, in their order, before any is published.
        """
        if self._express is None or not heads or self._done:
            self._mark(heads)
            return heads
        try:
            rest = self._express(heads, self._done, self)
        except Exception:  # noqa: BLE001 - a bug of ours costs the lane, not the requests
            _log.exception("%s: the express lane failed and is closed", self._name)
            self._express = None
            served = set(self._done[::2])
            rest = [head for head in heads if head not in served and head not in self._open]
        self.completed += len(self._done) // 2
        self._unmarked = len(self._done) == 2 * len(heads)
        if not self._unmarked:
            self._mark(heads)
        return rest

    def begin(self, head: int) -> None:
        """See `Begun`."""
        self._open.add(head)

    def _mark(self, heads: Sequence[int]) -> None:
        if self._area is not None:
            for head in heads:
                self._area.mark(head)

    def _heads(self, most: int) -> list[int]:
        """The next entries of the available ring, copied; up to its end, the rest is the next batch's."""
        first = self.next_avail & self._mask
        last = min(first + most, self._size)
        return self._avail[wire.AVAIL_RING_WORD + first : wire.AVAIL_RING_WORD + last].tolist()

    def _open_chain(self, head: int) -> Chain:
        chain = Chain(head, self._ring.memory, self._finish, self._stamp)
        self._open.add(head)
        chain.load(self._ring.desc, self._size)
        return chain

    def _stamp(self, head: int) -> int | None:
        return self._area.stamp(head) if self._area else None

    def _break(self, reason: str) -> None:
        self.broken = True
        self._ring.error(reason)

    # -- completing --------------------------------------------------------------------------------

    @contextmanager
    def batch(self) -> Iterator[None]:
        """Publish the completions made inside together: one used index, at most one call."""
        self._depth += 1
        try:
            yield
        finally:
            self._depth -= 1
            if not self._depth:
                self.publish()

    def _finish(self, chain: Chain, written: int) -> None:
        """A chain's `complete`."""
        self.end(chain.head, written)

    def end(self, head: int, written: int) -> None:
        """See `Begun`."""
        self._open.remove(head)
        self._unmarked = False
        first = not self._done
        self._give_back(head, written)
        if self._depth:
            return
        if self._ring.later is None:
            self.publish()
        elif first:
            self._ring.later(self.publish)

    def _give_back(self, head: int, written: int) -> None:
        self.completed += 1
        self._done += (head, written)

    def publish(self) -> None:
        """Show the driver the completions made so far; a batch does so at its end."""
        if not self._done:
            return
        done, self._done = self._done, []
        old = self._used_index
        self._used_index = new = (old + len(done) // 2) & wire.INDEX_MASK
        self._write_elements(old, done)
        self._publish_index(new, done)
        self._log_used()
        full_fence()
        if self._wants_call(old, new):
            self._ring.call()
        self._end_stop()

    def _write_elements(self, index: int, done: list[int]) -> None:
        """Store used elements, in one go up to the end of the ring; nobody looks at them yet."""
        while done:
            slot = index & self._mask
            part = done[: 2 * (self._size - slot)]
            start = wire.USED_RING_LONG + 2 * slot
            self._elements[start : start + len(part)] = array("I", part)
            done = done[len(part) :]
            index += len(part) // 2

    def _publish_index(self, new: int, done: list[int]) -> None:
        """Store the used index, in step with the in-flight area."""
        area = self._area
        if area is None:
            self._used[wire.INDEX_WORD] = new
        elif self._unmarked:
            area.run_ahead(new)
            self._used[wire.INDEX_WORD] = new
        else:
            heads = done[::2]
            area.link(heads)
            self._used[wire.INDEX_WORD] = new
            area.clear(heads, new)
        self._unmarked = False

    def _wants_call(self, old: int, new: int) -> bool:
        if self._ring.event_idx:
            return wire.needs_event(self._avail[wire.used_event_word(self._size)], new, old)
        return not self._avail[wire.FLAGS_WORD] & wire.AVAIL_F_NO_INTERRUPT

    def _log_used(self) -> None:
        mark = self._ring.memory.mark_written
        if mark is not None and self._ring.used_log_gpa is not None:
            mark(self._ring.used_log_gpa, wire.used_size(self._size))

    # -- kicks -------------------------------------------------------------------------------------

    def _suppress_kicks(self) -> None:
        """With event index there is nothing to do: an avail_event left behind asks for no kick."""
        if not self._ring.event_idx:
            self._used[wire.FLAGS_WORD] = wire.USED_F_NO_NOTIFY

    def arm(self) -> bool:
        """Ask for a kick with the next entry; True if entries came meanwhile (they may bring no kick)."""
        if self.broken or self._stopped is not None:
            return False
        if self._ring.event_idx:
            self._used[wire.avail_event_word(self._size)] = self.next_avail
        else:
            self._used[wire.FLAGS_WORD] = 0
        full_fence()
        return self._avail[wire.INDEX_WORD] != self.next_avail

    # -- the end -----------------------------------------------------------------------------------

    def stop(self, stopped: Callable[[int], None]) -> None:
        """Take nothing more; `stopped(next_avail)` is called once nothing is in flight, perhaps at once.

        From that call on the queue touches no guest memory.
        """
        self._stopped = stopped
        self._end_stop()

    def _end_stop(self) -> None:
        if self._stopped is not None and not self._open and not self._done:
            stopped, self._stopped = self._stopped, _never
            stopped(self.next_avail)

    def assert_idle(self) -> None:
        """Check that every request taken was given back.

        Raises:
            LostCompletionError: some were not.
        """
        if self._open:
            raise LostCompletionError(f"{self._name}: requests {sorted(self._open)} were never completed")


def _never(_next_avail: int) -> None:
    """Stands for a stop that was reported already."""
