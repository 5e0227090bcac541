"""Kicks and calls: suppressed when nobody waits for them, never lost."""

from __future__ import annotations

import mmap
import struct
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import qemu_odx.virtio.queue as queue_module
from qemu_odx.testing.driver import DriverQueue
from qemu_odx.testing.ram import GuestRam
from qemu_odx.wire.virtio import ring as wire

if TYPE_CHECKING:
    from collections.abc import Callable

    from conftest import Pair

    from qemu_odx.virtio.chain import Chain

    MakePair = Callable[..., Pair]


@pytest.mark.parametrize("event_idx", [False, True])
def test_no_kicks_while_draining(make_pair: MakePair, event_idx: bool) -> None:
    """A request posted while the queue drains needs no kick, and is taken all the same."""
    pair = make_pair(inline=True, event_idx=event_idx)

    def post_more(chain: Chain) -> None:
        pair.take(chain)
        if pair.device.taken < 3:
            pair.driver.submit(b"more")

    pair.handle = post_more
    pair.driver.submit(b"first")
    assert pair.device.completed == 3
    assert pair.driver.kicks == 1


@pytest.mark.parametrize("event_idx", [False, True])
def test_kicks_after_draining(make_pair: MakePair, event_idx: bool) -> None:
    """Each request to a queue at rest brings a kick."""
    pair = make_pair(inline=True, event_idx=event_idx)
    for count in (1, 2, 3):
        pair.driver.submit(b"x")
        assert pair.driver.kicks == pair.device.completed == count


@pytest.mark.parametrize("event_idx", [False, True])
def test_recheck_after_arming(make_pair: MakePair, event_idx: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """A request that slips in just before the queue asks for kicks is found without one."""
    pair = make_pair(inline=True, event_idx=event_idx)
    fence = queue_module.full_fence
    slipped: list[int] = []

    def slip_in() -> None:
        if pair.device.completed == 1 and not slipped:
            slipped.append(1)
            pair.driver.offer(pair.driver.free[-1])
            pair.driver.set_avail_index(pair.driver._next)
        fence()

    pair.driver.write_descriptor(pair.driver.free[-1], pair.ram.allocate(16), 16)
    pair.driver.write_descriptor(pair.driver.free[-2], pair.ram.allocate(16), 16)
    monkeypatch.setattr(queue_module, "full_fence", slip_in)
    pair.driver.submit(b"x")
    assert pair.device.completed == 2


def test_no_call_when_suppressed(make_pair: MakePair) -> None:
    """NO_INTERRUPT keeps the device silent; without it every batch calls."""
    pair = make_pair(inline=True)
    pair.driver.suppress_interrupts()
    pair.driver.submit(b"x")
    assert pair.calls == 0
    pair.driver.arm_interrupt()
    pair.driver.submit(b"x")
    assert pair.calls == 1


def test_call_at_used_event(make_pair: MakePair) -> None:
    """With event index the guest is called when the index passes used_event, not before and not again."""
    pair = make_pair(inline=True, event_idx=True)
    pair.driver._avail[wire.used_event_word(8)] = 2
    calls = []
    for _ in range(5):
        pair.driver.submit(b"x")
        calls.append(pair.calls)
    assert calls == [0, 0, 1, 1, 1]


def test_fence_between_index_and_event(make_pair: MakePair, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both places where a store must not be passed by a load have the fence."""
    pair = make_pair(event_idx=True)
    trace: list[str] = []

    class Watched:
        """A ring part that notes who touches its event and index words."""

        def __init__(self, words: memoryview, name: str) -> None:
            self.words, self.name = words, name

        def __getitem__(self, at: int | slice) -> int | memoryview:
            if isinstance(at, int):
                trace.append(f"load {self.name}[{at}]")
            return self.words[at]

        def __setitem__(self, at: int, value: int) -> None:
            trace.append(f"store {self.name}[{at}]")
            self.words[at] = value

    pair.driver.submit(b"x")
    monkeypatch.setattr(pair.device, "_avail", Watched(pair.device._avail, "avail"))
    monkeypatch.setattr(pair.device, "_used", Watched(pair.device._used, "used"))
    monkeypatch.setattr(queue_module, "full_fence", lambda: trace.append("fence"))
    pair.held[0].complete(0)
    assert trace == ["store used[1]", "fence", "load avail[10]"]
    trace.clear()
    pair.device.arm()
    assert trace == ["store used[34]", "fence", "load avail[1]"]


def test_no_packing_into_shared_memory() -> None:
    """`struct.pack_into` clears its target before it writes: the device side does not use it."""
    for path in Path(queue_module.__file__).parent.glob("*.py"):
        code = "\n".join(line for line in path.read_text().splitlines() if "`struct.pack_into`" not in line)
        assert "pack_into" not in code, path


_SAMPLER = """
import mmap, sys, time
words = memoryview(mmap.mmap(int(sys.argv[1]), 0)).cast("H")
at, report, limit = map(int, sys.argv[2:])
print("ready", flush=True)
last, bad = 0, 0
end = time.monotonic() + 100
while last < limit and not bad and time.monotonic() < end:
    for _ in range(1000):
        now = words[at]
        if now != last:
            bad += now < last
            words[report] = last = max(last, now)
print(bad, last)
"""
_LATEST = 30000  # the sampler tells there, as a word of guest memory, what it has seen last


def sampler(ram: GuestRam, word: int, limit: int) -> subprocess.Popen[str]:
    """A process that reads a word until that has reached a limit, or has once become smaller."""
    process = subprocess.Popen(
        [sys.executable, "-c", _SAMPLER, *map(str, (ram.fd, word, _LATEST, limit))],
        pass_fds=[ram.fd],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def verdict(process: subprocess.Popen[str]) -> tuple[int, int]:
    """How often the word became smaller, and the largest value."""
    bad, last = map(int, process.communicate()[0].split())
    return bad, last


@pytest.mark.parametrize("where", ["used index", "avail_event"])
def test_indices_do_not_tear(where: str) -> None:
    """Another process that reads an index all the time sees it only grow, never a half-written value."""
    ram = GuestRam(1 << 20)
    driver = DriverQueue(ram, 4, event_idx=True)
    device = queue_module.SplitQueue(driver.ring(ram.memory()))
    driver.kick = lambda: device.drain(lambda chain: chain.complete(0))
    gpa = driver.used_gpa + (2 if where == "used index" else 2 * wire.avail_event_word(4))
    word, limit, step = (gpa - ram.base) // 2, 60000, 500
    head = driver.free[-1]
    driver.write_descriptor(head, ram.allocate(16), 16)
    with sampler(ram, word, limit) as process:
        for number in range(1, limit + 2):
            driver.offer(head)
            driver.publish()
            while number % step == 0 and process.poll() is None and seen(ram) < number - step:
                time.sleep(0.001)  # it has to look on, however busy the machine is
        bad, last = verdict(process)
    ram.close()
    assert (bad, last >= limit) == (0, True)


def seen(ram: GuestRam) -> int:
    """What the sampler has seen last."""
    return int.from_bytes(ram.read(ram.base + 2 * _LATEST, 2), "little")


def test_sampling_would_find_torn_indices() -> None:
    """The check above can fail: `struct.pack_into` is seen to show a zero in between, sooner or later."""
    ram = GuestRam(1 << 16)
    pages = mmap.mmap(ram.fd, 0)
    with sampler(ram, 0, 65536) as process:
        while process.poll() is None:
            for _ in range(10_000):
                struct.pack_into("<H", pages, 0, 60000)
        bad, _ = verdict(process)
    ram.close()
    assert bad > 0
