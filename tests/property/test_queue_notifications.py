"""Kicks and calls suppressed by either side are never lost, wherever the two sides interrupt each other.

Each side only acts when it was notified (as behind eventfds). The driver may also act at the device's fences,
between a store and the following load, and between its last look at the ring and its asking for a kick.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING
from unittest import mock

from hypothesis import given, settings
from hypothesis import strategies as st

import qemu_odx.virtio.queue as queue_module
from qemu_odx.testing.driver import DriverQueue, Request
from qemu_odx.testing.ram import GuestRam
from qemu_odx.virtio.queue import SplitQueue, full_fence

if TYPE_CHECKING:
    from qemu_odx.virtio.chain import Chain

_ACTIONS = ["post", "post two", "kicked", "complete", "complete all", "called", "poll"]


class World:
    """A driver and a device that reach each other only by two event flags."""

    def __init__(self, *, event_idx: bool, start: int) -> None:
        self.ram = GuestRam(1 << 18)
        self.kicked = self.called = False
        self.posted = self.seen = 0
        self.held: deque[Chain] = deque()
        self.driver = DriverQueue(self.ram, 4, kick=self._kick, event_idx=event_idx)
        self.driver.start_at(start)
        self.driver.arm_interrupt()
        self.device = SplitQueue(self.driver.ring(self.ram.memory(), call=self._call, next_avail=start))
        self.device.start(self.held.append)

    def _kick(self) -> None:
        self.kicked = True

    def _call(self) -> None:
        self.called = True

    def act(self, action: str) -> None:
        """One action of one side; those of the device need its kick."""
        if action == "post" and self.driver.free:
            self.post(1)
        elif action == "post two" and len(self.driver.free) > 1:
            self.post(2)
        elif action == "kicked" and self.kicked:
            self.kicked = False
            self.device.drain(self.held.append)
        elif action == "complete" and self.held:
            self.held.pop().complete(0)
        elif action == "complete all":
            with self.device.batch():
                while self.held:
                    self.held.popleft().complete(0)
        elif action == "called" and self.called:
            self.called = False
            self.collect()
        elif action == "poll":
            self.driver.suppress_interrupts()
            self.collect()

    def post(self, count: int) -> None:
        """The driver posts, and kicks if the device asked for it."""
        for _ in range(count):
            self.driver.post(self.driver._out(b"x", ()))
        self.posted += count
        self.driver.publish()

    def collect(self) -> None:
        """The driver reads completions until arming finds no more."""
        done: list[Request] = self.driver.completions()
        while self.driver.arm_interrupt():
            done += self.driver.completions()
        self.seen += len(done)

    def settle(self) -> None:
        """Go on by notifications alone."""
        while self.kicked or self.called or self.held:
            self.act("kicked")
            self.act("complete all")
            self.act("called")


@settings(deadline=None, max_examples=400)
@given(
    actions=st.lists(st.sampled_from(_ACTIONS), max_size=40),
    interruptions=st.lists(st.sampled_from(["", "post", "called", "poll"]), max_size=20),
    event_idx=st.booleans(),
    start=st.sampled_from([0, 0x7FFE, 0xFFFA]),
)
def test_nothing_is_lost(
    actions: list[str], interruptions: list[str], *, event_idx: bool, start: int
) -> None:
    """When both sides rest, every request posted was taken, and every completion was seen."""
    world = World(event_idx=event_idx, start=start)
    between = deque(interruptions)

    def fence() -> None:
        full_fence()
        if between:
            world.act(between.popleft())

    arm = SplitQueue.arm

    def interrupted_arm(queue: SplitQueue) -> bool:
        if between:
            world.act(between.popleft())
        return arm(queue)

    with (
        mock.patch.object(queue_module, "full_fence", fence),
        mock.patch.object(SplitQueue, "arm", interrupted_arm),
    ):
        for action in actions:
            world.act(action)
        world.settle()
    assert world.device.taken == world.posted
    assert world.seen == world.posted
    world.ram.close()


@settings(deadline=None, max_examples=50)
@given(batch=st.integers(2, 4), start=st.sampled_from([0, 0xFFFA]))
def test_batches_save_notifications(*, batch: int, start: int) -> None:
    """With event index a batch costs one kick and one call, also where the indices wrap."""
    world = World(event_idx=True, start=start)
    kicks = world.driver.kicks
    for round_ in range(1, 8):
        world.post(batch)
        world.settle()
        assert world.driver.kicks - kicks == round_
    assert world.seen == world.posted == 7 * batch
    world.ram.close()
