"""The hunt for silent corruption: every block that is read must be what was written last.

May import `layer.py` and the modules around the record. Put on a disk by `table.py`.

Data is taken from guest memory once, so that its checksum is that of what was written; a range that changes is held,
so that two writes at once leave one of the two and not a mixture that nobody could judge. Before a write the entries
of its blocks are forgotten, and known again after it: a server that is killed in between leaves blocks of which
nothing is known, never a false alarm. What a token shows must be what its blocks were when it was made.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Final
from zlib import crc32

from qemu_odx.disk.hostfile import total
from qemu_odx.disk.image import DiskError
from qemu_odx.disk.layers.entry_history import EntryHistory
from qemu_odx.disk.layers.finding import Finding
from qemu_odx.disk.layers.layer import Layer
from qemu_odx.disk.layers.range_lock import RangeLock
from qemu_odx.disk.layers.record import LEARNED, UNKNOWN, Record, number_in_entry
from qemu_odx.disk.layers.requests import Requests
from qemu_odx.disk.layers.verify_snapshot import VerifySnapshot

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from contextlib import AbstractContextManager

    from qemu_odx.disk.layers.record import Write
    from qemu_odx.disk.port import Around, Change, Disk, Extent, Snapshot

log = logging.getLogger(__name__)

STEP: Final = 1 << 20
ZERO_STEP: Final = 64 << 20
"""Bytes that are discarded, or zeroed, and recorded at once."""
MOST_FINDINGS: Final = 1000
_LOW: Final = 0xFFFFFFFF


class VerifyLayer(Layer):
    """A disk whose every block is checked when it is read.

    Args:
        inner: the disk below.
        record: what is known of it, which the layer owns.

    Attributes:
        requests: names of the requests that are under way.
        findings: the wrong blocks, the last thousand; each is found once.
        first: the first of all, None before.
        wrong: how many there were.
        checked: blocks compared so far.
        on_finding: called with each, on the thread that met it.
    """

    def __init__(self, inner: Disk, record: Record) -> None:
        super().__init__(inner)
        self.requests = Requests()
        self.findings: deque[Finding] = deque(maxlen=MOST_FINDINGS)
        self.first: Finding | None = None
        self.on_finding: Callable[[Finding], None] = _nobody
        self.wrong = self.checked = 0
        self.record = record
        self.history = EntryHistory(record)
        self._lock = RangeLock()
        self._counting = threading.Lock()
        self._zero = crc32(bytes(inner.block_size))

    @property
    def stalled(self) -> bool:
        """Always: checksums take time, and a write may wait for a read of the same blocks."""
        return True

    def read(self, offset: int, into: Sequence[memoryview]) -> None:
        """Fill the buffers from `offset` on, and compare. Raises OSError."""
        length = total(into)
        data = memoryview(bytearray(length))
        with self.looking([(offset, offset + length)]):
            self.inner.read(offset, [data])
            self.compare(offset, data, self.requests.naming(offset, length) or "a read")
        for view in into:
            view[:] = data[: len(view)]
            data = data[len(view) :]

    def write(self, offset: int, data: Sequence[memoryview | bytes]) -> None:
        """Write the buffers from `offset` on. Raises OSError."""
        copy = b"".join(data)
        with self._changing(offset, len(copy), "a write") as change:
            self.inner.write(offset, [copy])
            change.became(copy)

    def update(self, offset: int, length: int, change: Change, around: Around = nullcontext) -> bool:
        """Read the range, compare, and write what `change` makes of it. Raises OSError."""
        with self._changing(offset, length, "a compare and write") as changing:

            def judged(old: bytes) -> bytes | None:
                changing.put_back()
                self.compare(offset, memoryview(old), changing.write.who)
                changing.forget()
                changing.new = change(old)
                return changing.new

            written = self.inner.update(offset, length, judged, around)
            if changing.new is None:
                changing.put_back()
            else:
                changing.became(changing.new)
        return written

    def discard(self, offset: int, length: int) -> None:
        """Zeroes from now on. Raises OSError."""
        self._zeroes(offset, length, "a discard", self.inner.discard)

    def write_zeroes(self, offset: int, length: int, *, unmap: bool) -> None:
        """Zeroes from now on. Raises OSError."""

        def zero(at: int, size: int) -> None:
            self.inner.write_zeroes(at, size, unmap=unmap)

        self._zeroes(offset, length, "a write of zeroes", zero)

    def resize(self, size: int) -> None:
        """Change the capacity; what is new is zeroes that nobody wrote. Raises ValueError, OSError."""
        with self._changing(0, max(size, self.size), "a change of the size") as change:
            change.put_back()
            self.inner.resize(size)
            self.record.resize(size)

    def follow_growth(self) -> int:
        """Show the size of an image that was made larger. Raises OSError."""
        before = self.size
        actual = self.inner.follow_growth()
        if self.size > before:
            with self._lock.hold([(0, self.size)], alone=True):
                self.record.resize(self.size)
        return actual

    def snapshot(self, extents: Sequence[Extent]) -> Snapshot:
        """Freeze the extents, and what is known of them, as they are now. Raises OSError."""
        with self._lock.hold([(e.offset, e.end) for e in extents], alone=True):
            inner = self.inner.snapshot(extents)
            number = self.history.take()
        return VerifySnapshot(self, inner, number)

    def scan(self) -> int:
        """Look at the whole disk, now; how many wrong blocks that found. Raises OSError."""
        before = self.wrong
        for at in range(0, self.size, STEP):
            length = min(STEP, self.size - at)
            data = memoryview(bytearray(length))
            with self.looking([(at, at + length)]):
                self.inner.read(at, [data])
                self.compare(at, data, "a scan")
        return self.wrong - before

    def close(self) -> None:
        """Say what was found, and keep the record."""
        if self.wrong:
            log.error("disk %s: %d blocks were wrong of %d compared", self.name, self.wrong, self.checked)
        else:
            log.info("disk %s: no block was wrong of %d compared", self.name, self.checked)
        try:
            self.inner.close()
        finally:
            self.record.close()

    def looking(self, ranges: Sequence[tuple[int, int]]) -> AbstractContextManager[None]:
        """Nobody changes the ranges meanwhile."""
        return self._lock.hold(ranges, alone=False)

    def compare(self, offset: int, data: memoryview, who: str, entries: Sequence[int] | None = None) -> None:
        """Compare data with what is known of its blocks, and learn what is not; nobody changes them meanwhile.

        Args:
            offset: place of `data` on the disk, in bytes; blocks that it has only a part of are left out.
            data: what was found there.
            who: found it.
            entries: what must have been there; None: what is known now.
        """
        first, count, skipped = self._whole(offset, len(data))
        size = self.block_size
        sums = [crc32(data[at : at + size]) for at in range(skipped, skipped + count * size, size)]
        known = self.record.entries(first, count) if entries is None else entries
        learned = [UNKNOWN] * count
        for number, (entry, found) in enumerate(zip(known, sums, strict=True)):
            if entry == UNKNOWN or entry & _LOW != found:
                learned[number] = LEARNED << 32 | found
                if entry != UNKNOWN:
                    self._found(first + number, entry, found, who)
        with self._counting:
            self.checked += count
        if entries is None and any(learned):
            self.record.put(first, [new or old for new, old in zip(learned, known, strict=True)])

    def whole(self, offset: int, length: int) -> tuple[int, int]:
        """The blocks that lie in a range as a whole: the first, and how many."""
        return self._whole(offset, length)[:2]

    def _whole(self, offset: int, length: int) -> tuple[int, int, int]:
        size = self.block_size
        first = -(-offset // size)
        count = max(0, (offset + length) // size - first)
        return first, count, first * size - offset

    @contextmanager
    def _changing(self, offset: int, length: int, what: str) -> Iterator[_Change]:
        """A change of a range that is held alone; on entry nothing is known of its blocks."""
        who = self.requests.naming(offset, length) or what
        write = self.record.begin(offset, length, who, time.time())
        try:
            with self._lock.hold([(offset, offset + length)], alone=True):
                yield _Change(self, write)
        finally:
            self.record.end(write, time.time())

    def _zeroes(self, offset: int, length: int, what: str, zero: Callable[[int, int], None]) -> None:
        for at in range(offset, offset + length, ZERO_STEP):
            size = min(ZERO_STEP, offset + length - at)
            with self._changing(at, size, what) as change:
                zero(at, size)
                change.became_zeros(self._zero)

    def _found(self, block: int, entry: int, found: int, who: str) -> None:
        size = self.block_size
        written = self.record.write_of(entry)
        beside = [
            write
            for write in self.record.writes()
            if written
            and write != written
            and write.overlaps(written)
            and write.offset < (block + 1) * size
            and block * size < write.offset + write.length
        ]
        place = self.name, block, size, who, time.time()
        finding = Finding(*place, entry & _LOW, found, found == self._zero, written, tuple(beside))
        with self._counting:
            self.wrong += 1
            self.first = self.first or finding
            self.findings.append(finding)
        log.error("%s", finding)
        self.on_finding(finding)


class _Change:
    """A change under way.

    Attributes:
        write: as recorded.
        new: what an update made of the range.
    """

    def __init__(self, layer: VerifyLayer, write: Write) -> None:
        self.write = write
        self.new: bytes | None = None
        self._layer, self._record = layer, layer.record
        size = layer.block_size
        first, last = write.offset // size, -(-(write.offset + write.length) // size)
        self._touched = first, min(last, layer.size // size) - first
        if self._touched[1] > 0:
            layer.history.keep(*self._touched)
        self._before = self._record.entries(*self._touched)
        self.forget()

    def forget(self) -> None:
        """Nothing is known of the blocks it touches."""
        self._record.forget(*self._touched)

    def put_back(self) -> None:
        """Nothing was changed."""
        self._record.put(self._touched[0], self._before)

    def became(self, data: bytes) -> None:
        """The range holds these bytes now."""
        first, count, skipped = self._layer._whole(self.write.offset, len(data))  # noqa: SLF001 - its own class
        view, size = memoryview(data)[skipped:], self._layer.block_size
        number = number_in_entry(self.write) << 32
        self._record.put(first, [number | crc32(view[at : at + size]) for at in range(0, count * size, size)])

    def became_zeros(self, checksum: int) -> None:
        """The range holds zeros now."""
        first, count = self._layer.whole(self.write.offset, self.write.length)
        self._record.put(first, [number_in_entry(self.write) << 32 | checksum] * count)


def _nobody(_finding: Finding) -> None:
    """Nobody listens."""


def make(disk: Disk, options: Mapping[str, str]) -> VerifyLayer:
    """The layer with its options `record` (a file) and `scan` (on: look at everything now). Raises DiskError."""
    scan = options.get("scan", "off")
    if scan not in {"on", "off"}:
        raise DiskError(f"disk {disk.name}: verify-scan={scan} is neither 'on' nor 'off'")
    path = Path(options["record"]) if options.get("record") else None
    record = Record(path, disk.size, disk.block_size, disk.serial)
    layer = VerifyLayer(disk, record)
    if path is not None and record.fresh:
        log.info("disk %s: nothing is known of it yet: what is read first is taken to be right", disk.name)
    if scan == "on":
        try:
            layer.scan()
        except OSError as error:
            record.close()
            raise DiskError(
                f"disk {disk.name} cannot be read ({error.strerror}): see the host's log"
            ) from error
    return layer
