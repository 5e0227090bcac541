"""A layer whose disk fails on purpose: errors of the host, writes that tear, bits that flip on their way.

May import `port.py`, the base and the lowest disk. What goes wrong and when is decided by whoever sets `decide`
(`server/faulting/`); while it says that nothing can, everything goes straight to the disk below. What arrives at the
disk below is an ordinary write in any case: its guard keeps what tokens protect.
"""

from __future__ import annotations

import errno
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from qemu_odx.disk.file import FileDisk
from qemu_odx.disk.layers.layer import Layer, layers_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from qemu_odx.disk.port import Around, Change, Disk, Extent, Io, Snapshot


@dataclass(frozen=True, slots=True)
class Breakage:
    """What goes wrong with one access.

    Attributes:
        error: errno that it fails with, 0 for none.
        length: bytes of a write that arrive before that, None for all of them or, with an error, none.
        flip: byte and bit of a write that are turned, None for none.
    """

    error: int = 0
    length: int | None = None
    flip: tuple[int, int] | None = None


class Decide(Protocol):
    """Says what goes wrong; called from any thread."""

    @property
    def armed(self) -> bool:
        """True if anything can go wrong at all just now."""

    def breakages(self, operation: str, runs: Sequence[tuple[int, int]]) -> Sequence[Breakage]:
        """What goes wrong with an access (`disk-read`, `disk-write`, ...) to runs of bytes: offset and length."""


class FaultLayer(Layer):
    """Implements `port.Disk` around a disk.

    Attributes:
        decide: says what goes wrong; None for nothing.
    """

    def __init__(self, inner: Disk) -> None:
        super().__init__(inner)
        self.decide: Decide | None = None
        lowest = layers_of(self)[-1].inner
        if isinstance(lowest, FileDisk):
            lowest.before_keeping(self._keeping)

    @property
    def _armed(self) -> bool:
        return self.decide is not None and self.decide.armed

    @property
    def descriptor(self) -> int | None:
        """None while something can go wrong."""
        return None if self._armed else self.inner.descriptor

    def try_read(self, offset: int, into: Sequence[memoryview]) -> bool:
        """Not while something can go wrong: `read` sees every read then."""
        return not self._armed and self.inner.try_read(offset, into)

    def try_batch(self, batch: Sequence[Io]) -> Sequence[int]:
        """The same for `read` and `write`."""
        return range(len(batch)) if self._armed else self.inner.try_batch(batch)

    def read(self, offset: int, into: Sequence[memoryview]) -> None:
        """Fill the buffers. Raises OSError."""
        self._meet("disk-read", offset, sum(map(len, into)))
        self.inner.read(offset, into)

    def write(self, offset: int, data: Sequence[memoryview | bytes]) -> None:
        """Write what a breakage leaves of the data. Raises OSError."""
        for breakage in self._breakages("disk-write", offset, sum(map(len, data))):
            if breakage.length is not None:
                self.inner.write(offset, [b"".join(data)[: breakage.length]])
            _raise(breakage)
            if breakage.length is not None:
                return
            data = [_flipped(b"".join(data), breakage)]
        self.inner.write(offset, data)

    def update(self, offset: int, length: int, change: Change, around: Around = nullcontext) -> bool:
        """Change what a breakage leaves of the range. Raises OSError."""
        breakages = self._breakages("disk-write", offset, length)

        def broken(old: bytes) -> bytes | None:
            new = change(old)
            return new if new is None else _broken(old, new, breakages)

        for breakage in breakages:
            if breakage.length is None:
                _raise(breakage)
        done = self.inner.update(offset, length, broken, around)
        for breakage in breakages:
            _raise(breakage)
        return done

    def flush(self) -> None:
        """Put every completed write on stable storage. Raises OSError."""
        self._meet("disk-flush", 0, self.size)
        self.inner.flush()

    def discard(self, offset: int, length: int) -> None:
        """Give the range back. Raises OSError."""
        self._meet("disk-discard", offset, length)
        self.inner.discard(offset, length)

    def write_zeroes(self, offset: int, length: int, *, unmap: bool) -> None:
        """Zero the range. Raises OSError."""
        self._meet("disk-write-zeroes", offset, length)
        self.inner.write_zeroes(offset, length, unmap=unmap)

    def snapshot(self, extents: Sequence[Extent]) -> Snapshot:
        """Freeze the extents. Raises OSError."""
        if self.decide is not None and self.decide.armed:
            runs = [(extent.offset, extent.length) for extent in extents]
            for breakage in self.decide.breakages("disk-snapshot", runs):
                _raise(breakage)
        return self.inner.snapshot(extents)

    def _keeping(self, offset: int, length: int) -> None:
        self._meet("snapshot-keep", offset, length)

    def _meet(self, operation: str, offset: int, length: int) -> None:
        for breakage in self._breakages(operation, offset, length):
            _raise(breakage)

    def _breakages(self, operation: str, offset: int, length: int) -> Sequence[Breakage]:
        if self.decide is None or not self.decide.armed:
            return ()
        return self.decide.breakages(operation, [(offset, length)])


def _raise(breakage: Breakage) -> None:
    if breakage.error:
        raise OSError(breakage.error, f"{errno.errorcode[breakage.error]} by a fault rule")


def _broken(old: bytes, new: bytes, breakages: Sequence[Breakage]) -> bytes:
    """What arrives of the new bytes in place of the old."""
    for breakage in breakages:
        new = _flipped(new, breakage)
        if breakage.length is not None:
            new = new[: breakage.length] + old[breakage.length :]
    return new


def _flipped(data: bytes, breakage: Breakage) -> bytes:
    if breakage.flip is None or breakage.flip[0] >= len(data):
        return data
    at, bit = breakage.flip
    return data[:at] + bytes([data[at] ^ 1 << bit]) + data[at + 1 :]
