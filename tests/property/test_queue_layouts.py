"""Any sequence of block requests in any layout does to the disk what it does to a plain byte array."""

from __future__ import annotations

import random
from dataclasses import dataclass

from hypothesis import given, settings
from hypothesis import strategies as st

from qemu_odx.disk.memory import memory_disk
from qemu_odx.testing.driver import DriverQueue
from qemu_odx.testing.ram import GuestRam
from qemu_odx.testing.runner import InlineRunner
from qemu_odx.virtio.blk import BlkDevice
from qemu_odx.wire.virtio import blk as wire
from qemu_odx.wire.virtio.blk import RequestType, Status

_SECTORS = 32
_QUEUE_SIZE = 16


@dataclass(frozen=True)
class Step:
    """One request and its layout; `seed` makes its data."""

    kind: RequestType
    sector: int
    sectors: int
    seed: int
    cuts_out: tuple[float, ...]
    cuts_in: tuple[float, ...]
    indirect: int | None


_cuts = st.lists(st.floats(0, 1), max_size=5).map(tuple)
_kinds = st.sampled_from([RequestType.IN, RequestType.OUT, RequestType.DISCARD, RequestType.WRITE_ZEROES])
_steps = st.builds(
    Step,
    kind=_kinds,
    sector=st.integers(0, _SECTORS + 1),
    sectors=st.integers(0, 6),
    seed=st.integers(0, 1 << 20),
    cuts_out=_cuts,
    cuts_in=_cuts,
    indirect=st.none() | st.integers(0, 3),
)


def _at(length: int, cuts: tuple[float, ...]) -> list[int]:
    return [round(cut * length) for cut in cuts]


class Oracle:
    """The disk as a byte array."""

    def __init__(self) -> None:
        self.content = bytearray(_SECTORS * 512)

    def expect(self, step: Step, data: bytes) -> bytes:
        """Carry out a step: what its writable part must hold afterwards, as far as it is defined."""
        start, end = step.sector * 512, (step.sector + step.sectors) * 512
        if end > len(self.content):
            return bytes([Status.IOERR])
        if step.kind is RequestType.IN:
            return bytes(self.content[start:end]) + b"\0"
        self.content[start:end] = data if step.kind is RequestType.OUT else bytes(end - start)
        return b"\0"


@settings(deadline=None, max_examples=150)
@given(
    batches=st.lists(st.lists(_steps, min_size=1, max_size=4), max_size=8),
    event_idx=st.booleans(),
    start=st.sampled_from([0, 0xFFFC]),
    seed=st.integers(0, 1000),
)
def test_any_layout_gives_the_same_bytes(
    batches: list[list[Step]], *, event_idx: bool, start: int, seed: int
) -> None:
    """Cuts at any byte, indirect tables, shuffled descriptors, batches, guest RAM in pieces, wrapping indices."""
    rng = random.Random(seed)
    ram = GuestRam(1 << 20, pieces=256)
    disk = memory_disk("d", _SECTORS * 512)
    device = BlkDevice(disk, InlineRunner())
    device.set_features(wire.F_FLUSH)
    queue = DriverQueue(ram, _QUEUE_SIZE * 4, kick=lambda: device.kick(0), event_idx=event_idx)
    queue.start_at(start)
    device.start_queue(0, queue.ring(ram.memory(), next_avail=start))
    oracle = Oracle()
    for batch in batches:
        expected = []
        for step in batch:
            rng.shuffle(queue.free)
            data = random.Random(step.seed).randbytes(step.sectors * 512)
            out, in_length = _parts(step, data)
            pieces = queue._out(out, _at(len(out), step.cuts_out))
            pieces += queue._in(in_length, _at(in_length, step.cuts_in))
            # A table holds one descriptor at least: an empty one is an attack, not a layout.
            indirect = None if step.indirect is None else min(step.indirect, len(pieces) - 1)
            request = queue.post(pieces, indirect=indirect)
            expected.append((request, oracle.expect(step, data)))
        queue.publish()
        assert {id(request) for request in queue.completions()} == {id(request) for request, _ in expected}
        for request, wanted in expected:
            assert request.data_in[-len(wanted) :] == wanted
    content = bytearray(len(oracle.content))
    disk.read(0, [memoryview(content)])
    assert content == oracle.content
    disk.close()
    ram.close()


def _parts(step: Step, data: bytes) -> tuple[bytes, int]:
    """The readable part and the length of the writable one."""
    if step.kind is RequestType.IN:
        return wire.HEADER.pack(step.kind, 0, step.sector), len(data) + 1
    if step.kind is RequestType.OUT:
        return wire.HEADER.pack(step.kind, 0, step.sector) + data, 1
    return wire.HEADER.pack(step.kind, 0, 0) + wire.SEGMENT.pack(step.sector, step.sectors, 0), 1
