"""The event loop: one thread, one epoll, plain callbacks.

Imports `server/polling.py`. All of a server happens here except slow disk work (`server/workers.py`), which comes
back through `call_soon`. asyncio is not used: a request costs less than one of its task switches.
"""

from __future__ import annotations

import contextlib
import heapq
import itertools
import logging
import os
import select
import signal
import time
from collections import deque
from typing import TYPE_CHECKING

from qemu_odx.server.polling import Polling

if TYPE_CHECKING:
    from collections.abc import Callable

log = logging.getLogger(__name__)

_WAKE_BYTES = 4096


class Timer:
    """A callback to come. `cancel` it any time."""

    __slots__ = ("callback",)

    def __init__(self, callback: Callable[[], None]) -> None:
        self.callback: Callable[[], None] | None = callback

    def cancel(self) -> None:
        """Never call it."""
        self.callback = None


class Loop:
    """Calls back for readable descriptors, timers, signals, and whatever other threads hand over.

    A callback that raises is logged and survived: one broken connection must not end the disks of the others.
    """

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._readers: dict[int, Callable[[], None]] = {}
        self._timers: list[tuple[float, int, Timer]] = []
        self._sequence = itertools.count()
        self._soon: deque[Callable[[], None]] = deque()
        self._at_turn_end: list[Callable[[], None]] = []
        self._woken = False
        self._running = False
        self.polling = Polling()
        # A pipe, not an eventfd: a signal that arrives just before epoll sleeps wakes it by one byte in it.
        self._wake_read, self._wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self.watch(self._wake_read, self._drain_wake)
        self._signals: dict[int, object] = {}

    def watch(self, fd: int, callback: Callable[[], None], *, writable: bool = False) -> None:
        """Call `callback` as long as `fd` is readable, or takes more data; or hung up."""
        self._epoll.register(fd, select.EPOLLOUT if writable else select.EPOLLIN)
        self._readers[fd] = callback

    def unwatch(self, fd: int) -> None:
        """Stop watching; not even an event that was already fetched is delivered."""
        del self._readers[fd]
        self._epoll.unregister(fd)

    def call_soon(self, callback: Callable[[], None]) -> None:
        """Run `callback` on the loop, in order. From any thread, or a signal handler."""
        self._soon.append(callback)
        if not self._woken:
            self._woken = True
            with contextlib.suppress(BlockingIOError, OSError):
                os.write(self._wake_write, b"\0")

    def call_later(self, delay: float, callback: Callable[[], None]) -> Timer:
        """Run `callback` once, `delay` seconds from now."""
        timer = Timer(callback)
        heapq.heappush(self._timers, (time.monotonic() + delay, next(self._sequence), timer))
        return timer

    def at_turn_end(self, callback: Callable[[], None]) -> None:
        """Run `callback` when every event of this turn has been seen to. On the loop's thread only."""
        self._at_turn_end.append(callback)

    def on_signal(self, number: int, callback: Callable[[], None]) -> None:
        """Run `callback` on the loop when the signal comes. Main thread only; undone by `close`."""
        signal.set_wakeup_fd(self._wake_write, warn_on_full_buffer=False)
        before = signal.signal(number, lambda _number, _frame: self._soon.append(callback))
        self._signals.setdefault(number, before)

    def run(self) -> None:
        """Serve until `stop`."""
        self._running = True
        while self._running:
            events = self._epoll.poll(0 if self.polling else self._wait_seconds())
            for fd, _ in events:
                if callback := self._readers.get(fd):
                    guarded(callback)
            if self.polling:
                guarded(self.polling.look)
            self._run_timers()
            self._run_soon()
            self._end_turn()

    def stop(self) -> None:
        """End `run` after the current round."""
        self._running = False

    def close(self) -> None:
        """Give back every descriptor of the loop itself, and the signals."""
        if self._signals:
            signal.set_wakeup_fd(-1)
            for number, before in self._signals.items():
                signal.signal(number, before)  # type: ignore[arg-type]  # what signal.signal returned
        self._woken = True  # a thread that is late must not write: the number may soon be another file's
        self._epoll.close()
        os.close(self._wake_read)
        os.close(self._wake_write)

    def _wait_seconds(self) -> float | None:
        if self._soon or self._at_turn_end:
            return 0
        if not self._timers:
            return None
        return max(0.0, self._timers[0][0] - time.monotonic())

    def _run_timers(self) -> None:
        now = time.monotonic()
        while self._timers and self._timers[0][0] <= now:
            timer = heapq.heappop(self._timers)[2]
            if timer.callback:
                guarded(timer.callback)

    def _run_soon(self) -> None:
        """Only what is there now: callbacks that hand over more must not starve the sockets."""
        self._woken = False  # before the count: what is not in it has seen this and wakes us again
        for _ in range(len(self._soon)):
            guarded(self._soon.popleft())

    def _end_turn(self) -> None:
        while self._at_turn_end:
            callbacks, self._at_turn_end = self._at_turn_end, []
            for callback in callbacks:
                guarded(callback)

    def _drain_wake(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(self._wake_read, _WAKE_BYTES)


def guarded(callback: Callable[[], None]) -> None:
    """Call it; log what it raises."""
    try:
        callback()
    except Exception:
        log.exception("internal error: a callback of the event loop failed")
