"""One request taken from a queue: its bytes, and the duty to complete it exactly once.

Imports `virtio/descriptors` and `virtio/memory`. Made by `virtio/queue.py`, used by the devices: they read
the request from the readable part, write their answer to the writable part and call `complete`.

A chain can be at fault (`fault` says why): then its views are not to be used, but the device may still reach
single bytes by `patch`, to tell the guest so in a status field.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from qemu_odx.virtio.descriptors import MalformedChainError, walk
from qemu_odx.virtio.memory import BadAddressError
from qemu_odx.wire.virtio.ring import F_WRITE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from qemu_odx.virtio.descriptors import Descriptor
    from qemu_odx.virtio.memory import GuestMemory

MAX_REQUEST_BYTES: Final = 64 << 20
"""Longest request taken: above the 32 MiB that virtio-scsi's max_sectors of FFFFh allows."""


class DoubleCompletionError(AssertionError):
    """A request was completed twice: a bug of ours, which would hand the guest a foreign completion."""


class Chain:
    """A descriptor chain, split into what the device may read and what it may write.

    Attributes:
        head: the chain's identity in the queue.
        readable: views of the readable part not yet consumed, none of them empty.
        writable: views of the writable part, none of them empty.
        readable_length: bytes in `readable`.
        writable_length: bytes of the writable part.
        fault: why the request cannot be executed, or None.
    """

    __slots__ = (
        "_descriptors",
        "_finish",
        "_memory",
        "_stamp",
        "fault",
        "head",
        "readable",
        "readable_length",
        "writable",
        "writable_length",
    )

    def __init__(
        self,
        head: int,
        memory: GuestMemory,
        finish: Callable[[Chain, int], None],
        stamp: Callable[[int], int | None] | None = None,
    ) -> None:
        self.head = head
        self.readable: list[memoryview] = []
        self.writable: list[memoryview] = []
        self.readable_length = 0
        self.writable_length = 0
        self.fault: str | None = None
        self._memory = memory
        self._finish: Callable[[Chain, int], None] | None = finish
        self._stamp = stamp
        self._descriptors: list[Descriptor] = []

    def stamp(self) -> bytes | None:
        """What tells the request from all others, also when another process runs it again; None: nothing does."""
        stamp = self._stamp(self.head) if self._stamp else None
        return None if stamp is None else stamp.to_bytes(8, "big")

    def before_end(self, call: Callable[[], None]) -> None:
        """Call once more, just before it is given back."""
        finish = self._finish

        def both(chain: Chain, written: int) -> None:
            call()
            if finish is not None:
                finish(chain, written)

        self._finish = both

    def load(self, table: memoryview, entries: int) -> None:
        """Fill the views from the descriptors; what is wrong with them ends up in `fault`."""
        try:
            self._descriptors = walk(table, entries, self.head, self._memory)
            self._translate()
        except (MalformedChainError, BadAddressError) as bad:
            self.fault = str(bad)
            self.readable, self.writable = [], []
            self.readable_length = 0
            self.writable_length = sum(length for _, length in self._targets())

    def _translate(self) -> None:
        readable, writable, views_of = self.readable, self.writable, self._memory.views
        read_length = write_length = 0
        for address, length, flags in self._descriptors:
            if not length:
                continue
            if flags & F_WRITE:
                writable += views_of(address, length)
                write_length += length
            elif writable:
                raise MalformedChainError("a readable descriptor after a writable one")
            else:
                readable += views_of(address, length)
                read_length += length
        if read_length + write_length > MAX_REQUEST_BYTES:
            raise MalformedChainError(f"more than {MAX_REQUEST_BYTES} bytes in one request")
        self.readable_length, self.writable_length = read_length, write_length

    def _targets(self) -> Iterator[tuple[int, int]]:
        """Address and length of the buffers that the device may write."""
        return ((address, length) for address, length, flags in self._descriptors if flags & F_WRITE)

    def readable_borders(self) -> list[int]:
        """Lengths of the readable descriptors: framing that only legacy SCSI packets have (VIRTIO 1.2, 5.2.6.5)."""
        return [length for _, length, flags in self._descriptors if length and not flags & F_WRITE]

    def shape(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Lengths of the descriptors as the guest made them: of those it fills, of those the device fills."""
        out = tuple(length for _, length, flags in self._descriptors if not flags & F_WRITE)
        return out, tuple(length for _, length in self._targets())

    def read_exact(self, length: int) -> bytes:
        """Consume `length` bytes of the readable part: a private copy, made once, whatever the borders.

        Raises:
            ValueError: there are not that many (see `readable_length`).
        """
        if length > self.readable_length:
            raise ValueError(f"{length} bytes wanted, {self.readable_length} are readable")
        first, self.readable = split(self.readable, length)
        self.readable_length -= length
        return b"".join(first)

    def write(self, offset: int, data: bytes) -> None:
        """Write `data` at `offset` of the writable part.

        Raises:
            ValueError: it does not fit.
        """
        if not 0 <= offset <= self.writable_length - len(data):
            raise ValueError(f"{len(data)} bytes at {offset} of {self.writable_length} writable ones")
        fill(split(self.writable, offset)[1], data)

    def patch(self, offset: int, data: bytes) -> bool:
        """Write `data` at `offset` (negative: from the end) of the writable part of a chain that is at fault.

        Returns:
            False if those bytes are not there or not guest memory; then nothing was written.
        """
        start = offset if offset >= 0 else self.writable_length + offset
        end = start + len(data)
        if not 0 <= start < end <= self.writable_length:
            return False
        spans = list(self._spans(start, end))
        try:
            views = [view for address, length in spans for view in self._memory.views(address, length)]
        except BadAddressError:
            return False
        fill(views, data)
        self._log(spans)
        return True

    def _spans(self, start: int, end: int) -> Iterator[tuple[int, int]]:
        """Address and length of the parts of writable descriptors between two offsets."""
        position = 0
        for address, length in self._targets():
            first, last = max(start, position), min(end, position + length)
            if first < last:
                yield address + first - position, last - first
            position += length

    def complete(self, written: int) -> None:
        """Give the request back, having written `written` bytes from the start of the writable part.

        Raises:
            DoubleCompletionError: it was given back before.
        """
        finish, self._finish = self._finish, None
        if finish is None:
            raise DoubleCompletionError(f"request {self.head} completed twice")
        if self._memory.mark_written is not None and self.fault is None:
            # The whole writable part: marking more than was written is harmless, marking less is not.
            self._log(self._targets())
        self.readable = self.writable = []
        finish(self, written)

    @property
    def open(self) -> bool:
        """True until `complete` was called."""
        return self._finish is not None

    def _log(self, spans: Iterable[tuple[int, int]]) -> None:
        mark = self._memory.mark_written
        if mark is not None:
            for address, length in spans:
                mark(address, length)


def split(views: list[memoryview], length: int) -> tuple[list[memoryview], list[memoryview]]:
    """Cut views after `length` bytes: (those before, those after), none of them empty."""
    for place, view in enumerate(views):
        size = len(view)
        if length < size:
            if not length:
                return views[:place], views[place:]
            return [*views[:place], view[:length]], [view[length:], *views[place + 1 :]]
        length -= size
    return views, []


def fill(views: list[memoryview], data: bytes) -> int:
    """Copy `data` into the views from their start, as far as both go; the number of bytes copied."""
    at = 0
    for view in views:
        piece = data[at : at + len(view)]
        view[: len(piece)] = piece
        at += len(piece)
        if at == len(data):
            break
    return at
