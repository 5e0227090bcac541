"""Durations in buckets, and who counts them."""

from __future__ import annotations

import contextlib

from hypothesis import given
from hypothesis import strategies as st

from qemu_odx.disk.memory import memory_disk
from qemu_odx.server.config import BlkExport
from qemu_odx.server.devices import DeviceMaker
from qemu_odx.server.statistics.collector import Statistics
from qemu_odx.server.statistics.histogram import BUCKETS, Histogram, upper_bound
from qemu_odx.testing.driver import DriverQueue
from qemu_odx.testing.ram import GuestRam
from qemu_odx.testing.runner import InlineRunner
from qemu_odx.wire.virtio import blk as wire
from qemu_odx.wire.virtio.blk import RequestType, Status


@given(st.lists(st.tuples(st.floats(0, 1e5), st.integers(1, 9)), max_size=20))
def test_every_duration_is_in_its_bucket(durations: list[tuple[float, int]]) -> None:
    """Against the definition; the sum is kept too."""
    histogram = Histogram()
    for seconds, times in durations:
        histogram.add(seconds, times)
    expected = [0] * BUCKETS
    for seconds, times in durations:
        microseconds = int(seconds * 1e6)
        fits = (bucket for bucket in range(BUCKETS) if microseconds < upper_bound(bucket))
        expected[next(fits, BUCKETS - 1)] += times
    assert histogram.counts == expected
    assert histogram.count == sum(times for _, times in durations)
    assert abs(histogram.seconds - sum(seconds * times for seconds, times in durations)) < 1e-3


class Bench:
    """A virtio-blk export in memory, measured or not."""

    def __init__(self, ram: GuestRam, *, wanted: bool) -> None:
        self.disk = memory_disk("d0", 1 << 20)
        maker = DeviceMaker(InlineRunner())
        maker.disks["d0"] = self.disk
        self.device = maker.blk(BlkExport("b.sock", "d0", 1, id="e"))
        self.device.set_features(wire.F_FLUSH | wire.F_CONFIG_WCE)
        self.gate = maker.gates["b.sock"]
        self.statistics = Statistics()
        self.statistics.wanted = wanted
        self.statistics.add("e", self.gate, self.device)
        self.queue = DriverQueue(ram, 64, kick=lambda: self.device.kick(0))
        self.device.start_queue(0, self.queue.ring(ram.memory()))

    def request(self, kind: RequestType, *, plain: bool = True) -> None:
        """One request, in the form that the express lane takes or in another."""
        head = wire.HEADER.pack(kind, 0, 0)
        length = 512 if kind == RequestType.IN else 0
        if plain:
            request = self.queue.submit(head, length + 1, cuts_in=[length], indirect=0)
            assert self.queue.completions() == [request]
            assert request.data_in[-1] == Status.OK
        else:
            assert self.queue.execute(head, length + 1).data_in[-1] == Status.OK


def test_the_express_lane_stays_open_while_queues_are_measured() -> None:
    """A plain request counts as done in a batch; under a tap, by its name; after it, in a batch again."""
    with contextlib.closing(GuestRam(4 << 20)) as ram:
        bench = Bench(ram, wanted=True)
        for _ in range(3):
            bench.request(RequestType.IN)
        bench.request(RequestType.FLUSH, plain=False)
        numbers = bench.statistics.exports["e"]
        assert (numbers.queues[0].batched.count, numbers.queues[0].alone.count) == (2, 2), (
            "the first one shows the lane where memory is"
        )
        assert numbers.operations == {}
        bench.statistics.time_operations(on=True)
        bench.request(RequestType.IN)
        bench.request(RequestType.FLUSH, plain=False)
        assert (numbers.queues[0].batched.count, numbers.queues[0].alone.count) == (2, 4)
        assert {key: times.served.count for key, times in numbers.operations.items()} == {
            (0, "IN"): 1,
            (0, "FLUSH"): 1,
        }
        bench.statistics.time_operations(on=False)
        assert bench.gate.taps == ()
        bench.request(RequestType.IN)
        assert numbers.queues[0].batched.count == 3
        bench.statistics.reset()
        assert (numbers.queues[0].batched.count, numbers.operations) == (0, {})
        bench.request(RequestType.IN)
        assert numbers.queues[0].batched.count == 1, "a reset goes on counting"
        bench.disk.close()


def test_nobody_measures_unless_it_is_wanted() -> None:
    """Then a queue is served by what serves it, and nothing else."""
    with contextlib.closing(GuestRam(4 << 20)) as ram:
        bench = Bench(ram, wanted=False)
        bench.request(RequestType.IN)
        assert bench.statistics.exports == {}
        assert bench.device._queues.meters is None
        bench.disk.close()
