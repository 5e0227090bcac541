"""A queue with both of its ends in one process."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest
from mailbox_bench import Bench as MailboxBench

from qemu_odx.disk.memory import memory_disk
from qemu_odx.testing.driver import DriverQueue
from qemu_odx.testing.ram import GuestRam
from qemu_odx.virtio.queue import SplitQueue

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from qemu_odx.virtio.chain import Chain
    from qemu_odx.virtio.port import Ring


@dataclass
class Pair:
    """A driver queue and the device queue on the same ring.

    Requests go to `handle`, by default `take`: they end up in `held`; with `inline`, they are completed at once
    with their readable length.
    """

    ram: GuestRam
    driver: DriverQueue
    ring: Ring = field(init=False)
    device: SplitQueue = field(init=False)
    held: list[Chain] = field(default_factory=list)
    inline: bool = False
    calls: int = 0
    errors: list[str] = field(default_factory=list)
    handle: Callable[[Chain], None] = field(init=False)

    def __post_init__(self) -> None:
        self.handle = self.take

    def start(self, inflight: memoryview | None = None, next_avail: int = 0) -> None:
        """Start the device's end."""
        self.ring = self.driver.ring(
            self.ram.memory(), call=self._call, error=self._error, inflight=inflight, next_avail=next_avail
        )
        self.device = SplitQueue(self.ring)
        self.driver.kick = self.kick
        self.device.start(self.handle)

    def kick(self) -> None:
        """What the kick eventfd does."""
        self.device.drain(self.handle)

    def take(self, chain: Chain) -> None:
        """What a device does with a request."""
        if self.inline:
            chain.complete(chain.readable_length)
        else:
            self.held.append(chain)

    def _call(self) -> None:
        self.calls += 1

    def _error(self, reason: str) -> None:
        self.errors.append(reason)


@pytest.fixture
def ram() -> Iterator[GuestRam]:
    """Four regions of guest RAM that touch each other."""
    ram = GuestRam(4 << 20, pieces=4)
    yield ram
    ram.close()


@pytest.fixture
def make_pair(ram: GuestRam) -> Callable[..., Pair]:
    """Make a started pair of a given size; further keywords are the pair's."""

    def make(size: int = 8, *, event_idx: bool = False, inline: bool = False, start: bool = True) -> Pair:
        pair = Pair(ram, DriverQueue(ram, size, event_idx=event_idx), inline=inline)
        if start:
            pair.start()
        return pair

    return make


@pytest.fixture
def mailbox(ram: GuestRam) -> Iterator[MailboxBench]:
    """A device with a mailbox at the default place of a disk of 1 MiB."""
    disk = memory_disk("d0", 1 << 20)
    yield MailboxBench(ram, disk)
    disk.close()
