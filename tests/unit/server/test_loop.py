"""The event loop and its workers."""

from __future__ import annotations

import errno
import gc
import logging
import os
import signal
import socket
import threading
import time
import weakref
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from qemu_odx.server.loop import Loop
from qemu_odx.server.workers import Workers

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def loop() -> Iterator[Loop]:
    """A loop that gives up after a minute, which fails the test."""
    loop, given_up = Loop(), []
    loop.call_later(60, lambda: (given_up.append(1), loop.stop()))
    yield loop
    loop.close()
    assert not given_up, "it was to end by itself"


def test_a_readable_descriptor_is_reported(loop: Loop) -> None:
    """As long as it is readable, until it is no longer watched."""
    fd = os.eventfd(1, os.EFD_NONBLOCK)
    seen = []

    def on_readable() -> None:
        seen.append(1)
        if len(seen) == 3:
            loop.unwatch(fd)
            loop.stop()

    loop.watch(fd, on_readable)
    loop.run()
    os.close(fd)
    assert len(seen) == 3


def test_an_event_already_fetched_is_not_delivered_after_unwatch(loop: Loop) -> None:
    """Two descriptors ready at once; whoever comes first silences the other."""
    fds = [os.eventfd(1, os.EFD_NONBLOCK) for _ in range(2)]
    seen = []

    def on_readable(mine: int, other: int) -> None:
        seen.append(mine)
        loop.unwatch(other)
        loop.stop()

    loop.watch(fds[0], lambda: on_readable(fds[0], fds[1]))
    loop.watch(fds[1], lambda: on_readable(fds[1], fds[0]))
    loop.run()
    assert len(seen) == 1
    for fd in fds:
        os.close(fd)


def test_timers_in_order_and_cancelled(loop: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    """The earlier first, whatever the order of asking; a cancelled one never."""
    seen: list[str] = []
    now = time.monotonic()
    with monkeypatch.context() as patch:
        patch.setattr(time, "monotonic", lambda: now)  # all are asked for at one moment
        loop.call_later(0.02, lambda: (seen.append("second"), loop.stop()))
        loop.call_later(0.01, lambda: seen.append("first"))
        loop.call_later(0.015, lambda: seen.append("never")).cancel()
    loop.run()
    assert seen == ["first", "second"]


def test_call_soon_wakes_a_sleeping_loop(loop: Loop) -> None:
    """From another thread, while nothing else happens."""
    thread = threading.Timer(0.05, loop.call_soon, [loop.stop])
    thread.start()
    loop.run()
    thread.join()


def test_callbacks_that_beget_callbacks_do_not_starve_descriptors(loop: Loop) -> None:
    """One round each."""
    fd = os.eventfd(0, os.EFD_NONBLOCK)
    rounds = 0

    def again() -> None:
        nonlocal rounds
        rounds += 1
        os.eventfd_write(fd, 1)
        loop.call_soon(again)

    loop.watch(fd, loop.stop)
    loop.call_soon(again)
    loop.run()
    os.close(fd)
    assert rounds <= 3


def test_a_failing_callback_is_logged_and_survived(loop: Loop, caplog: pytest.LogCaptureFixture) -> None:
    """One broken connection must not end the others."""

    def fail() -> None:
        raise RuntimeError("broken")

    loop.call_soon(fail)
    loop.call_soon(loop.stop)
    loop.run()
    assert "RuntimeError: broken" in caplog.text
    assert caplog.records[0].levelno == logging.ERROR


def test_a_signal_wakes_the_loop_and_is_restored(loop: Loop) -> None:
    """It runs on the loop, not inside whatever was running."""
    before = signal.getsignal(signal.SIGUSR1)
    loop.on_signal(signal.SIGUSR1, loop.stop)
    thread = threading.Timer(0.05, os.kill, [os.getpid(), signal.SIGUSR1])
    thread.start()
    loop.run()
    thread.join()
    other = Loop()
    other.on_signal(signal.SIGUSR1, other.stop)
    other.close()
    loop.close = lambda: None  # type: ignore[method-assign]  # closed here, to look at what it restores
    Loop.close(loop)
    assert signal.getsignal(signal.SIGUSR1) == before


def test_a_late_thread_writes_into_nothing() -> None:
    """The loop's descriptors are closed, and their numbers are other files' by now."""
    closed = Loop()
    closed.close()
    with ExitStack() as stack:
        others = [stack.enter_context(end) for _ in range(4) for end in socket.socketpair()]
        closed.call_soon(lambda: None)
        for other in others:
            with pytest.raises(BlockingIOError):
                other.recv(1, socket.MSG_DONTWAIT)


def test_workers_run_elsewhere_and_report_here(loop: Loop) -> None:
    """The job on a worker's thread, its completion on the loop's."""
    workers = Workers(loop, threads=2)
    seen: list[object] = []

    def done(result: object) -> None:
        seen.append((result, threading.current_thread() is threading.main_thread()))
        loop.stop()

    workers.run(lambda: threading.current_thread() is threading.main_thread(), done)
    loop.run()
    workers.close()
    assert seen == [(False, True)]


def test_an_exception_of_a_job_is_its_result(loop: Loop) -> None:
    """The worker lives on."""
    workers = Workers(loop, threads=1)
    seen: list[object] = []

    def fail() -> None:
        raise OSError("no disk")

    workers.run(fail, seen.append)
    workers.run(lambda: 42, lambda result: (seen.append(result), loop.stop()))
    loop.run()
    workers.close()
    assert isinstance(seen[0], OSError)
    assert seen[1] == 42


def test_close_finishes_what_was_handed_over(loop: Loop) -> None:
    """No job is forgotten."""
    workers = Workers(loop, threads=2)
    done: list[int] = []
    for number in range(20):
        workers.run(lambda number=number: (time.sleep(0.001), done.append(number)), lambda _: None)
    workers.close()
    assert sorted(done) == list(range(20))


@pytest.fixture
def no_collection() -> Iterator[None]:
    """What is in a cycle stays."""
    gc.disable()
    yield
    gc.enable()


@pytest.mark.parametrize("fails", [False, True])
def test_a_finished_job_keeps_nothing_alive(loop: Loop, no_collection: None, *, fails: bool) -> None:
    """Jobs hold guest memory: neither an idle worker nor an exception must keep it mapped."""

    class Held:
        def job(self) -> None:
            if fails:
                raise OSError(errno.EFAULT, "bad address")

    workers = Workers(loop, threads=1)
    held = Held()
    gone = weakref.ref(held)
    workers.run(held.job, lambda _: loop.stop())
    loop.run()
    del held
    deadline = time.monotonic() + 60
    while gone() is not None and time.monotonic() < deadline:
        time.sleep(0.001)
    assert gone() is None
    workers.close()
