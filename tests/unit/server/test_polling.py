"""Looking at busy queues: only while requests keep coming, and a kick is asked for in the end."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from qemu_odx.server.polling import STEADY, WINDOW, Polling


@dataclass(eq=False)
class Queue:
    """A queue that a test fills."""

    emptied: float = 0.0
    waiting: int = 0
    comes_late: int = 0
    armed: int = 0
    served: list[int] = field(default_factory=list)

    def pending(self) -> bool:
        """See `Pollable`."""
        return self.waiting > 0

    def arm(self) -> bool:
        """See `Pollable`; requests may come at the last moment."""
        self.armed += 1
        self.waiting += self.comes_late
        return self.waiting > 0


class Rig:
    """A poller with a clock of its own."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.polling = Polling(lambda: self.now)
        self.queues = [Queue(), Queue()]

    def emptied(self, queue: Queue) -> bool:
        """The queue is empty: is it looked at?"""
        return self.polling.add(queue, lambda: self.serve(queue))

    def serve(self, queue: Queue) -> None:
        """What a kick does."""
        queue.served.append(queue.waiting)
        queue.waiting = 0
        self.emptied(queue)


@pytest.fixture
def rig() -> Rig:
    """Two queues that were just emptied twice: both are looked at."""
    rig = Rig()
    for queue in rig.queues:
        rig.emptied(queue)
    rig.now += STEADY / 2
    assert all(rig.emptied(queue) for queue in rig.queues)
    return rig


def test_a_single_request_is_not_followed_by_a_look() -> None:
    """Requests have to keep coming."""
    rig = Rig()
    assert not rig.emptied(rig.queues[0])
    rig.now += STEADY * 2
    assert not rig.emptied(rig.queues[0])
    assert not rig.polling


def test_what_comes_is_served_without_a_kick(rig: Rig) -> None:
    """All queues in turn, none waits for another to become quiet."""
    for queue in rig.queues:
        queue.waiting = 3
    rig.polling.look()
    assert [queue.served for queue in rig.queues] == [[3], [3]]
    assert rig.polling
    assert [queue.armed for queue in rig.queues] == [0, 0]


def test_a_quiet_queue_is_to_kick_again(rig: Rig) -> None:
    """Also while another is busy; what came at the last moment is served."""
    quiet, busy = rig.queues
    rig.now += WINDOW / 2
    busy.waiting = 1
    rig.polling.look()
    rig.now += WINDOW * 0.75
    quiet.comes_late = 2
    rig.polling.look()
    assert (quiet.armed, quiet.served, busy.armed) == (1, [2], 0)


def test_an_idle_server_sleeps(rig: Rig) -> None:
    """After the window nobody is looked at."""
    rig.now += WINDOW * 1.5
    rig.polling.look()
    assert not rig.polling
    assert [queue.armed for queue in rig.queues] == [1, 1]


def test_nobody_is_looked_at_while_threads_want_the_interpreter(rig: Rig) -> None:
    """Neither those looked at before, nor new ones."""
    rig.polling.jobs = 1
    rig.polling.look()
    assert not rig.polling
    assert [queue.armed for queue in rig.queues] == [1, 1]
    assert not rig.emptied(rig.queues[0])
