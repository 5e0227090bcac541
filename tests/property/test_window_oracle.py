"""Any sequence of block requests around the mailbox window does what an obvious model of `docs/mailbox.md` says.

The model: the disk is a byte array; each slot shows 8 KiB, the refusal of the last page or the last command's end.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING
from zlib import crc32

from hypothesis import given, settings
from hypothesis import strategies as st

from qemu_odx.disk.memory import memory_disk
from qemu_odx.target.manager import CopyManager
from qemu_odx.target.target import Target
from qemu_odx.testing.clock import VirtualClock
from qemu_odx.testing.driver import DriverQueue
from qemu_odx.testing.ram import GuestRam
from qemu_odx.testing.runner import InlineRunner
from qemu_odx.virtio.blk import BlkDevice
from qemu_odx.virtio.mailbox import Mailbox
from qemu_odx.wire.mailbox import Head
from qemu_odx.wire.virtio import blk as wire
from qemu_odx.wire.virtio.blk import RequestType, Status

if TYPE_CHECKING:
    from qemu_odx.disk.file import FileDisk

PLACE, LENGTH, SLOT = 16384, 278528, 16384
END = PLACE + LENGTH
SIZE = END + 16384
MAGIC, BAD_MAGIC, BAD_SEQUENCE = b"ODXQ", 1, 5
FILLED = b"full" * (SIZE // 4)
TEST_UNIT_READY = bytes(6)

_edges = st.sampled_from([PLACE, PLACE + 16384, END - SLOT, END, *range(PLACE, END, 8192)])
_offsets = st.one_of(
    st.builds(lambda edge, sectors: min(max(edge + sectors * 512, 0), SIZE), _edges, st.integers(-3, 3)),
    st.integers(0, SIZE // 512).map(lambda sector: sector * 512),
)
_lengths = st.one_of(st.integers(0, 4), st.integers(0, 40), st.integers(0, SIZE // 512)).map(
    lambda n: n * 512
)


@dataclass(frozen=True)
class Step:
    """A request; `stamp` makes its data, `sequence` that of a sound request page at its start (0: none)."""

    kind: RequestType
    offset: int
    length: int
    stamp: int
    sequence: int
    plain: bool

    def data(self) -> bytes:
        """What a write writes."""
        body = struct.pack("<I", self.stamp << 8 | 0xFF) * (self.length // 4)
        return (page(self.sequence) + body)[: self.length] if self.sequence else body


_steps = st.builds(
    Step,
    kind=st.sampled_from(
        [RequestType.IN, RequestType.OUT, RequestType.OUT, RequestType.DISCARD, RequestType.WRITE_ZEROES]
    ),
    offset=_offsets,
    length=_lengths,
    stamp=st.integers(1, 1 << 20),
    sequence=st.integers(0, 5),
    plain=st.booleans(),
)


def page(sequence: int) -> bytes:
    """A sound request without data."""
    header = bytearray(96)
    struct.pack_into("<4sHHQQI", header, 0, MAGIC, 1, 96, sequence, 7, 6)
    header[48:54] = TEST_UNIT_READY
    struct.pack_into("<I", header, 36, crc32(header))
    return bytes(header)


def response(identity: bytes, result: int) -> bytes:
    """A response area without data or sense."""
    header = bytearray(96)
    struct.pack_into("<4sHH16sI", header, 0, b"ODXA", 1, 96, identity, result)
    struct.pack_into("<I", header, 44, crc32(header))
    return bytes(header).ljust(8192, b"\0")


class Oracle:
    """Disk and window as the page has them."""

    def __init__(self, head: bytes) -> None:
        self.content = bytearray(FILLED)
        self.window = bytearray(LENGTH)
        self.window[: len(head)] = head
        self.last = [0] * 16

    def read(self, offset: int, length: int) -> bytes:
        """What a guest reads."""
        shown = self.content[:PLACE] + self.window + self.content[END:]
        return bytes(shown[offset : offset + length])

    def put(self, offset: int, data: bytes) -> None:
        """What reaches the disk of a write or discard."""
        whole = bytearray(self.content)
        whole[offset : offset + len(data)] = data
        whole[PLACE:END] = self.content[PLACE:END]
        self.content = whole

    def request(self, offset: int, data: bytes) -> None:
        """What a write does in the window."""
        slot, inside = divmod(offset - PLACE - SLOT, SLOT)
        if not data or inside or not 0 <= slot < 16:
            return
        sequence = int.from_bytes(data[8:16], "little")
        if data[:4] != MAGIC:
            result = BAD_MAGIC
        elif sequence <= self.last[slot]:
            result = BAD_SEQUENCE
        else:
            result, self.last[slot] = 0, sequence
        self.window[(slot + 1) * SLOT + 8192 : (slot + 2) * SLOT] = response(data[8:24], result)


class Device:
    """The real one."""

    def __init__(self, ram: GuestRam, disk: FileDisk) -> None:
        target = Target.on(
            {0: disk},
            CopyManager(InlineRunner()),
            InlineRunner(),
        )
        target.power_on_attention = False
        self.head = Head(PLACE, 512, target.units[0].naa, disk.serial)
        mailbox = Mailbox(target, self.head, VirtualClock())
        self.device = BlkDevice(disk, InlineRunner(), mailbox=mailbox)
        self.device.set_features(wire.F_FLUSH)
        self.queue = DriverQueue(ram, 16, kick=lambda: self.device.kick(0))
        self.device.start_queue(0, self.queue.ring(ram.memory()))

    def do(self, step: Step) -> bytes:
        """The request; what it read."""
        data, room = b"", 0
        if step.kind is RequestType.IN:
            room = step.length
        elif step.kind is RequestType.OUT:
            data = step.data()
        else:
            data = wire.SEGMENT.pack(step.offset // 512, step.length // 512, 0)
        out = wire.HEADER.pack(step.kind, 0, step.offset // 512) + data
        cuts_out, cuts_in = (
            ([16] if data else [], [room] if room else []) if step.plain else ([16, 700], [300])
        )
        request = self.queue.submit(
            out,
            room + 1,
            cuts_out=[cut for cut in cuts_out if cut < len(out)],
            cuts_in=[cut for cut in cuts_in if cut < room + 1],
        )
        self.queue.completions()
        assert request.data_in[-1] == Status.OK
        return request.data_in[:-1]


@settings(max_examples=150)
@given(st.lists(_steps, min_size=1, max_size=25))
def test_the_window_is_what_the_page_says(steps: list[Step]) -> None:
    """Reads, writes, discards of any place and length, by the express lane and not; then everything is compared."""
    ram, disk = GuestRam(4 << 20), memory_disk("d0", SIZE)
    try:
        disk.write(0, [FILLED])
        device = Device(ram, disk)
        oracle = Oracle(device.head.packed())
        for step in steps:
            length = min(step.length, SIZE - step.offset)
            bounded = Step(step.kind, step.offset, length, step.stamp, step.sequence, step.plain)
            got = device.do(bounded)
            if step.kind is RequestType.IN:
                assert got == oracle.read(step.offset, length)
            elif step.kind is RequestType.OUT:
                oracle.put(step.offset, bounded.data())
                oracle.request(step.offset, bounded.data())
            else:
                oracle.put(step.offset, bytes(length))
        everything = Step(RequestType.IN, 0, SIZE, 1, 0, plain=True)
        assert device.do(everything) == oracle.read(0, SIZE)
        image = bytearray(SIZE)
        disk.read(0, [memoryview(image)])
        assert image == oracle.content
    finally:
        disk.close()
        ram.close()
