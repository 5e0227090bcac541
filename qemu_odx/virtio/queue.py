"""The device side of a split virtqueue.

Imports `wire/virtio/ring`, `virtio/{chain,inflight,memory,port}`. A session hands over a `Ring`; a device
takes `Chain`s from it (`drain`, or `pop` one by one) and completes them in any order, then or later.
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
from contextlib import contextmanager
from itertools import count
from threading import Lock
from typing import TYPE_CHECKING, Final

from qemu_odx.virtio.chain import Chain
from qemu_odx.virtio.inflight import InflightArea
from qemu_odx.wire.virtio import ring as wire

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from qemu_odx.virtio.port import Ring

_log = logging.getLogger(__name__)

BATCH: Final = 64
"""Most requests taken before their completions are published."""
ROUNDS: Final = 8
"""Most batches in one `drain` when the ring has `again`, so that no queue starves the others."""

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
    """

    def __init__(self, ring: Ring, *, name: str = "queue") -> None:
        self.next_avail = ring.next_avail
        self.broken = False
        self.taken = 0
        self.completed = 0
        self._ring = ring
        self._name = name
        self._size = ring.size
        self._mask = ring.size - 1
        self._avail = ring.avail[: wire.avail_size(ring.size)].cast("B").cast("H")
        self._used = ring.used[: wire.used_size(ring.size)].cast("B").cast("H")
        self._elements = ring.used[: wire.used_size(ring.size) - 2].cast("B").cast("I")
        self._used_index = self._used[wire.INDEX_WORD]
        self._open: dict[int, Chain] = {}
        self._done: list[tuple[int, int]] = []
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

        With `Ring.again`, a queue that is never empty is left after some batches, and `again` is called.
        """
        if self.broken or self._stopped is not None:
            return
        self._suppress_kicks()
        again = self._ring.again
        for _ in range(ROUNDS) if again else count():
            with self.batch():
                for chain in self._take(BATCH):
                    self._run(handle, chain)
            if self._empty():
                return
        if again:
            again()

    def _empty(self) -> bool:
        """True if there is nothing to take, and the next entry will bring a kick."""
        if self.broken or self._stopped is not None:
            return True
        return self._avail[wire.INDEX_WORD] == self.next_avail and not self.arm()

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
            chains = self._take(1)
        return chains[0] if chains else None

    # -- taking ------------------------------------------------------------------------------------

    def _take(self, limit: int) -> list[Chain]:
        """Open up to `limit` available requests; a bad head is refused or breaks the ring."""
        if self.broken or self._stopped is not None:
            return []
        available = (self._avail[wire.INDEX_WORD] - self.next_avail) & wire.INDEX_MASK
        if available > self._size:
            self._break(f"available index jumped by {available} in a ring of {self._size}")
            return []
        chains = []
        for head in self._heads(min(available, limit)):
            if head >= self._size:
                self._break(f"available entry {head} in a ring of {self._size}")
                break
            self.next_avail = (self.next_avail + 1) & wire.INDEX_MASK
            if head in self._open:
                self._refuse(head)
            else:
                chains.append(self._open_chain(head))
        return chains

    def _heads(self, most: int) -> list[int]:
        """The next entries of the available ring, copied; up to its end, the rest is the next batch's."""
        first = self.next_avail & self._mask
        last = min(first + most, self._size)
        return self._avail[wire.AVAIL_RING_WORD + first : wire.AVAIL_RING_WORD + last].tolist()

    def _open_chain(self, head: int) -> Chain:
        if self._area is not None:
            self._area.mark(head)
        chain = Chain(head, self._ring.memory, self._finish)
        self._open[head] = chain
        self.taken += 1
        chain.load(self._ring.desc, self._size)
        return chain

    def _refuse(self, head: int) -> None:
        """The same head twice: the second is given back unexecuted, the first goes on."""
        self.taken += 1
        self.completed += 1
        self._done.append((head, 0))

    def _break(self, reason: str) -> None:
        self.broken = True
        _log.error(
            "%s: %s: the queue is out of service until the guest resets the device", self._name, reason
        )
        self._ring.error()

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
        del self._open[chain.head]
        self.completed += 1
        self._done.append((chain.head, written))
        if not self._depth:
            self.publish()

    def publish(self) -> None:
        """Show the driver the completions made so far; `batch` does so at its end."""
        if not self._done:
            return
        done, self._done = self._done, []
        old = index = self._used_index
        for head, written in done:
            slot = wire.USED_RING_LONG + 2 * (index & self._mask)
            self._elements[slot] = head
            self._elements[slot + 1] = written
            index += 1
        self._used_index = new = index & wire.INDEX_MASK
        heads = [head for head, _ in done]
        if self._area is not None:
            self._area.link(heads)
        self._used[wire.INDEX_WORD] = new
        if self._area is not None:
            self._area.clear(heads, new)
        self._log_used()
        full_fence()
        if self._wants_call(old, new):
            self._ring.call()
        self._end_stop()

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
