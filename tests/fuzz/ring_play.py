"""A virtio-blk queue under a guest that is made of a fuzzer's bytes, and what must hold whatever that guest does.

Nothing raises, nothing fails inside the device, every request taken is given back exactly once, a ring breaks at most
once in its life, and while somebody logs dirty pages no page changes unmarked. The guest may stop and start the ring,
and the back end may die with requests in flight and come back with its in-flight area.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from byte_source import ByteSource

from qemu_odx.disk.memory import memory_disk
from qemu_odx.testing.driver import DriverQueue
from qemu_odx.testing.ram import GuestRam
from qemu_odx.testing.runner import HeldRunner
from qemu_odx.virtio.blk import BlkDevice
from qemu_odx.wire.virtio import blk
from qemu_odx.wire.virtio.ring import DESCRIPTOR, F_INDIRECT, F_NEXT, F_WRITE, used_size

if TYPE_CHECKING:
    from qemu_odx.virtio.port import Ring
    from qemu_odx.virtio.queue import SplitQueue

PAGE = 4096
SIZE = 8
BASE, RAM = 0x1000, 8 * PAGE
END = BASE + RAM
DISK = 16 * PAGE
HEADERS, TABLES, DATA, STATUS = BASE + 0x1000, BASE + 0x2000, BASE + 0x3000, BASE + 0x6000
PLACES = (HEADERS, HEADERS + 8, TABLES, TABLES + 64, DATA, DATA + 100, BASE + RAM // 2 - 256, STATUS, BASE)
FAR = (0, END - 1, END - 16, END, 1 << 40, (1 << 64) - 1, (1 << 64) - 512)
LENGTHS = (0, 1, 15, 16, 17, 32, 48, 64, 512, 512, 4096, 4097, 1 << 20, 0xFFFFFFFF)
KINDS = (0, 0, 1, 1, 4, 8, 11, 13, 2, 99)
SECTORS = (0, 1, 8, 64, DISK // 512 - 1, DISK // 512, (1 << 64) - 1)
FEATURES = (0, blk.F_FLUSH, blk.F_FLUSH | blk.F_CONFIG_WCE)
MOST_STEPS = 80


class _Complaints(logging.Handler):
    """What the device logs is a failure of ours."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.texts.append(self.format(record))


class Play:
    """One guest's life."""

    def __init__(self, source: ByteSource) -> None:
        self.source = source
        self.disk = memory_disk("d", DISK)
        self.runner = HeldRunner()
        self.ram = GuestRam(RAM, pieces=2, base=BASE)
        self.memory = self.ram.memory()
        self.driver = DriverQueue(self.ram, SIZE, event_idx=source.chance(2))
        self.ram.write(HEADERS, b"\xaa" * (END - HEADERS))  # so that every store is a change
        self.disk.write(0, [bytes(range(256)) * (DISK // 256)])
        self.area = memoryview(bytearray(16 + 16 * SIZE + 64))
        self.marked: set[int] = set()
        self.broken: list[str] = []
        self.begin(self.driver.last_used)
        self.steps = (
            *(self.good, self.good, self.good, self.good),
            *(self.descriptor, self.descriptor, self.header, self.table, self.bytes_anywhere),
            *(self.offer, self.offer, self.offer, self.kick, self.kick, self.job, self.job),
            *(self.index, self.restart, self.crash, self.switches, self.log),
        )

    def begin(self, base: int) -> None:
        """A device, new or after a crash, starts the ring."""
        self.device = BlkDevice(self.disk, self.runner)
        self.device.set_features(self.source.pick(FEATURES))
        self.start(base)

    def start(self, base: int) -> None:
        """The ring, as the driver has it."""
        self.broken.clear()
        ring: Ring = self.driver.ring(self.memory, error=self.broken.append, next_avail=base)
        ring.inflight = self.area
        ring.used_log_gpa = self.driver.used_gpa
        self.act(lambda: self.device.start_queue(0, ring))

    @property
    def queue(self) -> SplitQueue:
        """The device's end."""
        return self.device._queues._started[0][0]

    def act(self, what: object) -> None:
        """Let the device do something, and look at what it did."""
        before = self.ram.read(BASE, RAM)
        what()  # type: ignore[operator]
        after = self.ram.read(BASE, RAM)
        if self.memory.mark_written is not None:
            changed = {n for n in range(RAM // PAGE) if before[n * PAGE :][:PAGE] != after[n * PAGE :][:PAGE]}
            pages = {BASE // PAGE + n for n in changed}
            # The notification fields of the used ring are the device's own business: the target writes them anew.
            assert pages - self.used_pages() <= self.marked, f"{pages - self.marked} changed unmarked"
        assert len(self.broken) <= 1, self.broken
        self.check()

    def used_pages(self) -> set[int]:
        """Where the used ring is."""
        start = self.driver.used_gpa
        return set(range(start // PAGE, (start + used_size(SIZE) - 1) // PAGE + 1))

    def check(self) -> None:
        """Every request is either in flight or given back."""
        if 0 in self.device._queues._started:
            queue = self.queue
            assert 0 <= queue.in_flight <= SIZE
            # What a crash left in flight was taken by the device before.
            assert queue.taken <= queue.completed + queue.in_flight <= queue.taken + SIZE

    # -- what the guest does -----------------------------------------------------------------------

    def place(self) -> int:
        """An address, mostly a good one."""
        source = self.source
        return source.pick(FAR) if source.chance(5) else source.pick(PLACES)

    def descriptor(self) -> None:
        """One of the ring."""
        source = self.source
        following = source.number(2) if source.chance(8) else source.below(SIZE)
        entry = self.place(), source.pick(LENGTHS), source.below(8), following
        self.driver.write_descriptor(source.below(SIZE), *entry)

    def header(self) -> None:
        """A request's head."""
        source = self.source
        place = source.pick((HEADERS, HEADERS, HEADERS + 8))
        data = blk.HEADER.pack(source.pick(KINDS), 0, source.pick(SECTORS))
        self.ram.write(
            place, data + blk.SEGMENT.pack(source.pick(SECTORS), source.below(20), source.below(3))
        )

    def table(self) -> None:
        """Some indirect descriptors."""
        source = self.source
        for slot in range(1 + source.below(4)):
            entry = DESCRIPTOR.pack(self.place(), source.pick(LENGTHS), source.below(8), source.below(6))
            self.ram.write(TABLES + 16 * slot, entry)

    def good(self) -> None:
        """A whole request, in the ring or in a table, that may even be well-formed."""
        source, slot = self.source, self.source.below(4)
        place = HEADERS + 64 * slot
        kind, sector, length = source.pick(KINDS), source.pick(SECTORS), source.pick(LENGTHS)
        segment = blk.SEGMENT.pack(source.pick(SECTORS), source.below(20), 0)
        self.ram.write(place, blk.HEADER.pack(kind, 0, sector) + segment)
        writes = 0 if kind in (1, 11, 13) else F_WRITE
        data = (place + 16, 16, F_NEXT, 2) if kind in (11, 13) else (DATA, length, F_NEXT | writes, 2)
        entries = (place, 16, F_NEXT, 1), data, (STATUS + slot, 1, F_WRITE, 0)
        if source.chance(2):
            self.ram.write(TABLES + 64 * slot, b"".join(DESCRIPTOR.pack(*entry) for entry in entries))
            self.driver.write_descriptor(slot, TABLES + 64 * slot, 48, F_INDIRECT, 0)
        else:
            for n, (gpa, size, flags, following) in enumerate(entries):
                self.driver.write_descriptor(slot + n, gpa, size, flags, slot + following if following else 0)
        self.driver.offer(slot)

    def bytes_anywhere(self) -> None:
        """Whatever there was before."""
        data = self.source.take(1 + self.source.below(40))
        self.ram.write(BASE + self.source.number(2) % (RAM - len(data)), data)

    def offer(self) -> None:
        """Heads, good ones mostly, and the index that goes with them."""
        for _ in range(1 + self.source.below(3)):
            self.driver.offer(self.source.number(2) if self.source.chance(16) else self.source.below(SIZE))
        self.driver.publish()

    def index(self) -> None:
        """Any index."""
        self.driver.set_avail_index(self.source.number(2))

    # -- what happens ------------------------------------------------------------------------------

    def kick(self) -> None:
        """The guest's, or the poller's."""
        self.act(lambda: self.device.kick(0))

    def job(self) -> None:
        """A worker has done something."""
        if self.runner:
            self.act(self.runner.step)

    def finish(self) -> int:
        """GET_VRING_BASE: everything in flight ends, then nothing is touched any more; the next index."""
        ends: list[tuple[int, bytes]] = []
        self.device.stop_queue(0, lambda base: ends.append((base, self.ram.read(BASE, RAM))))
        self.act(self.runner.run_all)
        ((base, then),) = ends
        self.device.kick(0)
        assert self.ram.read(BASE, RAM) == then, "guest memory was touched after the stop"
        return base

    def restart(self) -> None:
        """Stop and go on, or reset."""
        base = self.finish()
        if self.source.chance(2):
            self.device.reset()
            self.area[:] = bytes(len(self.area))
            base = 0
        self.start(base)

    def crash(self) -> None:
        """The back end dies, jobs not begun with it; its successor goes by the area and the used index."""
        self.runner._jobs.clear()
        self.begin(int.from_bytes(self.ram.read(self.driver.used_gpa + 2, 2), "little"))

    def switches(self) -> None:
        """Features and the write cache."""
        self.device.set_features(self.source.pick(FEATURES))
        self.device.write_config(blk.CONFIG_WCE_OFFSET, bytes([self.source.below(2)]))

    def log(self) -> None:
        """A migration begins or ends."""
        self.marked.clear()
        self.memory.mark_written = None if self.memory.mark_written else self.mark

    def mark(self, gpa: int, length: int) -> None:
        """The log."""
        self.marked |= set(range(gpa // PAGE, (gpa + max(length, 1) - 1) // PAGE + 1))

    def run(self) -> None:
        """Until the bytes are used up."""
        for _ in range(MOST_STEPS):
            if not self.source:
                break
            self.source.pick(self.steps)()
        self.finish()

    def close(self) -> None:
        """Give back what the run held."""
        self.ram.close()
        self.disk.close()


def play(data: bytes) -> None:
    """One input.

    Raises:
        AssertionError: something that must hold does not; any other exception is a failure as well.
    """
    complaints = _Complaints()
    logger = logging.getLogger("qemu_odx")
    logger.addHandler(complaints)
    life = Play(ByteSource(data))
    try:
        life.run()
    finally:
        logger.removeHandler(complaints)
        life.close()
    assert not complaints.texts, complaints.texts
