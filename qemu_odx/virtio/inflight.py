"""The in-flight area of one queue: which requests a crashed backend had begun.

Imports `wire/virtio/ring`. The bytes live in a file that QEMU keeps for the backend; the guest cannot reach
them. `virtio/queue.py` marks each request before it runs and clears it after its completion is published.

All stores go through cast views: each is one machine store, so a kill at any point leaves whole values.
(QEMU docs/interop/vhost-user.rst, "Inflight I/O tracking", split virtqueue.)
"""

from __future__ import annotations

import itertools
import time
from typing import TYPE_CHECKING, Final

from qemu_odx.wire.virtio import ring as wire

if TYPE_CHECKING:
    from collections.abc import Sequence

# Positions in 16-bit words of the head, and strides of the entries in units of each cast view.
_VERSION_WORD: Final = 4
_DESC_NUM_WORD: Final = 5
_LAST_BATCH_WORD: Final = 6
_USED_INDEX_WORD: Final = 7


_stamps = itertools.count(time.monotonic_ns())
"""Stamps of requests. No two of them are the same while the host is up: none takes a request in a nanosecond."""


class InflightArea:
    """Marks of one split virtqueue. `next` links the heads of the batch that is being completed."""

    def __init__(self, area: memoryview, entries: int) -> None:
        """Use the first bytes of `area` (16 for the head and 16 for each entry).

        Raises:
            ValueError: the area is too small for the queue.
        """
        need = wire.INFLIGHT_HEAD_SIZE + wire.INFLIGHT_ENTRY_SIZE * entries
        if area.nbytes < need:
            raise ValueError(f"in-flight area of {area.nbytes} bytes, a queue of {entries} needs {need}")
        self._entries = entries
        self._bytes = area[:need].cast("B")
        self._words = self._bytes.cast("H")
        self._quads = self._bytes.cast("Q")

    def mark(self, head: int) -> None:
        """The request at `head` is about to run."""
        self._quads[2 * head + 3] = next(_stamps)
        self._bytes[16 * head + 16] = 1

    def stamp(self, head: int) -> int:
        """What tells the request at `head`, which is marked, from all others, also when it is run again."""
        return self._quads[2 * head + 3]

    def link(self, heads: Sequence[int]) -> None:
        """The heads are about to be published: put them on the list of the last batch."""
        words = self._words
        for head in heads:
            words[8 * head + 11] = words[_LAST_BATCH_WORD]
            words[_LAST_BATCH_WORD] = head

    def run_ahead(self, used_index: int) -> None:
        """A batch of which nothing was marked is about to be published: the used ring will say `used_index`."""
        self._words[_USED_INDEX_WORD] = used_index

    def clear(self, heads: Sequence[int], used_index: int) -> None:
        """The heads are published; `used_index` is what the used ring says now."""
        for head in heads:
            self._bytes[16 * head + 16] = 0
        self._words[_USED_INDEX_WORD] = used_index

    def recover(self, used_index: int) -> list[int]:
        """Heads that had begun and were not completed, oldest first, given the ring's used index.

        An area that is new or of another queue size is set up afresh.
        """
        words = self._words
        if words[_VERSION_WORD] != wire.INFLIGHT_VERSION or words[_DESC_NUM_WORD] != self._entries:
            self._set_up(used_index)
        published = (used_index - words[_USED_INDEX_WORD]) & wire.INDEX_MASK
        if published > self._entries:  # not behind but ahead (`run_ahead`): the ring never said so
            published = 0
        self.clear(self._last_batch(published), used_index)
        begun = [(self._quads[2 * n + 3], n) for n in range(self._entries) if self._bytes[16 * n + 16]]
        # They keep their marks, and with them their order and their stamps.
        return [head for _, head in sorted(begun)]

    def _set_up(self, used_index: int) -> None:
        self._bytes[:] = bytes(len(self._bytes))
        self._words[_DESC_NUM_WORD] = self._entries
        self._words[_USED_INDEX_WORD] = used_index
        self._words[_VERSION_WORD] = wire.INFLIGHT_VERSION

    def _last_batch(self, count: int) -> list[int]:
        """The newest `count` heads of the completed list."""
        heads: list[int] = []
        head = self._words[_LAST_BATCH_WORD]
        while len(heads) < count and head < self._entries:
            heads.append(head)
            head = self._words[8 * head + 11]
        return heads
