"""A queue of a guest that can be abused in every way, and the attacks of `test_serve_ring_attacks.py`."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING

from guests import MIB, SIZE, Blk

from qemu_odx.wire.virtio import blk
from qemu_odx.wire.virtio.ring import DESCRIPTOR, F_INDIRECT, F_NEXT, F_WRITE

if TYPE_CHECKING:
    from collections.abc import Callable

    from qemu_odx.testing.driver import DriverQueue
    from qemu_odx.testing.ram import GuestRam

READ = blk.HEADER.pack(blk.RequestType.IN, 0, 0)
WRITE = blk.HEADER.pack(blk.RequestType.OUT, 0, 8)
RAM = 16 * MIB
END = 0x10_0000 + RAM
"""Guest physical address after the last byte."""
NOWHERE = 1 << 40
UNTOUCHED = 0xEE

Entry = tuple[int, int, int, int]
"""A descriptor: address, length, flags, next."""


@dataclass
class Stage:
    """A guest's first queue, about to be abused."""

    guest: Blk
    queue: DriverQueue
    ram: GuestRam

    def __post_init__(self) -> None:
        """A header, room for data, and a status byte."""
        self.header = self.put(READ)
        self.data = self.ram.allocate(65536, 4096)
        self.status = self.put(bytes([UNTOUCHED]))

    def put(self, data: bytes) -> int:
        """Bytes somewhere in memory."""
        gpa = self.ram.allocate(len(data))
        self.ram.write(gpa, data)
        return gpa

    def chain(self, *pieces: tuple[int, int, int]) -> None:
        """An ordinary chain from descriptor 0 on: address, length, flags of each but NEXT."""
        last = len(pieces) - 1
        for slot, (gpa, length, flags) in enumerate(pieces):
            following = F_NEXT if slot < last else 0
            self.queue.write_descriptor(slot, gpa, length, flags | following, slot + 1 if following else 0)
        self.send(0)

    def table(self, *entries: Entry, flags: int = F_INDIRECT, length: int | None = None) -> None:
        """An indirect table, as told."""
        table = self.put(b"".join(DESCRIPTOR.pack(*entry) for entry in entries))
        self.queue.write_descriptor(0, table, 16 * len(entries) if length is None else length, flags, 1)
        self.send(0)

    def send(self, *heads: int) -> None:
        """Publish these heads."""
        for head in heads:
            self.queue.offer(head)
        self.queue.publish()

    def answers(self, count: int = 1) -> list[tuple[int, int]]:
        """Wait for completions: head and length of each."""
        found: list[tuple[int, int]] = []
        while len(found) < count:
            if self.queue.used_pending():
                found.append(self.queue.take_used())
            else:
                self.queue.wait()
        return found

    @property
    def whole(self) -> tuple[tuple[int, int, int], ...]:
        """A good read, piece by piece."""
        return ((self.header, 16, 0), (self.data, 4096, F_WRITE), (self.status, 1, F_WRITE))


def ended(stage: Stage, status: int) -> None:
    """It was answered, with this status."""
    ((head, _),) = stage.answers()
    assert (head, stage.ram.read(stage.status, 1)[0]) == (0, status)


Attack = tuple["Callable[[Stage], object]", int]
"""What it does, and the status that the request ends with: UNTOUCHED where none can be reached."""

IOERR, UNSUPP, OK = blk.Status.IOERR, blk.Status.UNSUPP, blk.Status.OK


def _loop(stage: Stage) -> None:
    stage.queue.write_descriptor(0, stage.header, 16, F_NEXT, 1)
    stage.queue.write_descriptor(1, stage.data, 512, F_NEXT | F_WRITE, 0)
    stage.send(0)


def _wild_next(stage: Stage) -> None:
    stage.queue.write_descriptor(0, stage.header, 16, F_NEXT, 0xFFFF)
    stage.send(0)


def _indirect_with_next(stage: Stage) -> None:
    stage.table((stage.status, 1, F_WRITE, 0), flags=F_INDIRECT | F_NEXT)


def _endless_table(stage: Stage) -> None:
    stage.table((stage.header, 16, F_NEXT, 1), (stage.data, 512, F_NEXT | F_WRITE, 0))


def _nested_table(stage: Stage) -> None:
    stage.table((stage.header, 16, F_NEXT, 1), (stage.data, 64, F_INDIRECT, 0))


def _wild_in_table(stage: Stage) -> None:
    stage.table((stage.header, 16, F_NEXT, 4000), (stage.status, 1, F_WRITE, 0))


def _table_at(gpa: int, length: int = 48) -> Callable[[Stage], None]:
    def attack(stage: Stage) -> None:
        stage.queue.write_descriptor(0, gpa, length, F_INDIRECT, 0)
        stage.send(0)

    return attack


def _table_of(length: int) -> Callable[[Stage], None]:
    return lambda stage: stage.table((stage.status, 1, F_WRITE, 0), length=length)


def _too_many(stage: Stage) -> None:
    middle = [(stage.data, 512, F_WRITE | F_NEXT, place + 2) for place in range(1023)]
    stage.table((stage.header, 16, F_NEXT, 1), *middle, (stage.status, 1, F_WRITE, 0))


def _most(stage: Stage) -> None:
    middle = [(stage.data, 512, F_WRITE | F_NEXT, place + 2) for place in range(1022)]
    stage.table((stage.header, 16, F_NEXT, 1), *middle, (stage.status, 1, F_WRITE, 0))


def _data_at(gpa: int, length: int = 4096) -> Callable[[Stage], None]:
    return lambda stage: stage.chain(
        (stage.header, 16, 0), (gpa, length, F_WRITE), (stage.status, 1, F_WRITE)
    )


def _header_of(header: bytes, *, pieces: int = 1) -> Callable[[Stage], None]:
    """A read of 512 bytes with another header, cut into pieces."""

    def attack(stage: Stage) -> None:
        gpa = stage.put(header)
        cuts = [len(header) * n // pieces for n in range(pieces + 1)]
        parts = [(gpa + a, b - a, 0) for a, b in itertools.pairwise(cuts)]
        stage.chain(*parts, (stage.data, 512, F_WRITE), (stage.status, 1, F_WRITE))

    return attack


def _out_from_writable(stage: Stage) -> None:
    stage.chain((stage.put(WRITE), 16, 0), (stage.data, 512, F_WRITE), (stage.status, 1, F_WRITE))


def _huge_request(stage: Stage) -> None:
    middle = [(0x10_0000, MIB, F_WRITE | F_NEXT, place + 2) for place in range(1022)]
    stage.table((stage.header, 16, F_NEXT, 1), *middle, (stage.status, 1, F_WRITE, 0))


def _segments(
    *segments: tuple[int, int, int], kind: int = blk.RequestType.DISCARD
) -> Callable[[Stage], None]:
    data = blk.HEADER.pack(kind, 0, 0) + b"".join(blk.SEGMENT.pack(*segment) for segment in segments)
    return lambda stage: stage.chain((stage.put(data), len(data), 0), (stage.status, 1, F_WRITE))


ONE_REQUEST: dict[str, Attack] = {
    "descriptors in a loop": (_loop, UNTOUCHED),
    "next beyond the table": (_wild_next, UNTOUCHED),
    "indirect and next": (_indirect_with_next, UNTOUCHED),
    "indirect descriptors in a loop": (_endless_table, UNTOUCHED),
    "table inside a table": (_nested_table, UNTOUCHED),
    "next beyond an indirect table": (_wild_in_table, UNTOUCHED),
    "indirect table of nothing": (_table_of(0), UNTOUCHED),
    "indirect table of 17 bytes": (_table_of(17), UNTOUCHED),
    "indirect table of 4 GiB": (_table_of(0xFFFF_FFF0), UNTOUCHED),
    "indirect table nowhere": (_table_at(NOWHERE), UNTOUCHED),
    "indirect table over the end of memory": (_table_at(END - 16), UNTOUCHED),
    "indirect table over the end of all addresses": (_table_at((1 << 64) - 16), UNTOUCHED),
    "indirect table of 1025 descriptors": (_too_many, UNTOUCHED),
    "indirect table of 1024 descriptors": (_most, OK),
    "1 GiB in one request": (_huge_request, IOERR),
    "buffer at 0": (_data_at(0), IOERR),
    "buffer nowhere": (_data_at(NOWHERE), IOERR),
    "buffer over the end of memory": (_data_at(END - 1024), IOERR),
    "buffer at the end of all addresses": (_data_at((1 << 64) - 4096), IOERR),
    "buffer that wraps": (_data_at((1 << 64) - 512), IOERR),
    "buffer of 4 GiB": (_data_at(0x10_0000, 0xFFFF_FFFF), IOERR),
    "buffer of nothing": (_data_at(NOWHERE, 0), OK),
    "buffer of half a sector": (_data_at(0x40_0000, 100), IOERR),
    "readable after writable": (
        lambda s: s.chain(
            (s.header, 16, 0), (s.data, 512, F_WRITE), (s.data, 512, 0), (s.status, 1, F_WRITE)
        ),
        IOERR,
    ),
    "read into a read-only buffer": (
        lambda s: s.chain((s.header, 16, 0), (s.data, 512, 0), (s.status, 1, F_WRITE)),
        IOERR,
    ),
    "write from a writable buffer": (_out_from_writable, IOERR),
    "no status": (lambda s: s.chain((s.header, 16, 0), (s.data, 512, 0)), UNTOUCHED),
    "no header": (lambda s: s.chain((s.data, 512, F_WRITE), (s.status, 1, F_WRITE)), UNTOUCHED),
    "nothing at all": (lambda s: s.chain((s.data, 0, 0)), UNTOUCHED),
    "header of 15 bytes": (_header_of(READ[:15]), UNTOUCHED),
    "header in 16 pieces": (_header_of(READ, pieces=16), OK),
    "header in 3 pieces": (_header_of(READ, pieces=3), OK),
    "header nowhere": (
        lambda s: s.chain((NOWHERE, 16, 0), (s.data, 512, F_WRITE), (s.status, 1, F_WRITE)),
        IOERR,
    ),
    "status nowhere": (
        lambda s: s.chain((s.header, 16, 0), (s.data, 512, F_WRITE), (NOWHERE, 1, F_WRITE)),
        UNTOUCHED,
    ),
    "unknown request": (_header_of(blk.HEADER.pack(0xFFFF_FFFF, 0, 0)), UNSUPP),
    "last sector of all": (_header_of(blk.HEADER.pack(0, 0, (1 << 64) - 1)), IOERR),
    "sector whose byte wraps": (_header_of(blk.HEADER.pack(0, 0, 1 << 55)), IOERR),
    "one sector behind the end": (_header_of(blk.HEADER.pack(0, 0, SIZE // 512)), IOERR),
    "discard beyond the end": (_segments((SIZE // 512 - 1, 2, 0)), IOERR),
    "discard of a wrapping range": (_segments(((1 << 64) - 1, 2, 0)), IOERR),
    "17 segments": (_segments(*[(0, 8, 0)] * 17), UNSUPP),
    "second of two segments bad": (_segments((0, 8, 0), (1 << 60, 8, 0)), IOERR),
    "segment flags nobody knows": (_segments((0, 8, 0xFFFF_FFFE), kind=blk.RequestType.WRITE_ZEROES), UNSUPP),
}


def _jump(by: int) -> Callable[[Stage], None]:
    def attack(stage: Stage) -> None:
        stage.queue.set_avail_index(stage.queue._published + by & 0xFFFF)
        stage.queue.kick()

    return attack


def _head_of(head: int) -> Callable[[Stage], None]:
    return lambda stage: stage.send(head)


BREAKING: dict[str, tuple[Callable[[Stage], object], str]] = {
    "index one too far": (_jump(129), "available index jumped by 129 in a ring of 128"),
    "index far away": (_jump(30000), "available index jumped by 30000"),
    "index going back": (_jump(-1), "available index jumped by 65535"),
    "head beyond the table": (_head_of(128), "available entry 128 in a ring of 128"),
    "head far beyond the table": (_head_of(0xFFFF), "available entry 65535"),
}
