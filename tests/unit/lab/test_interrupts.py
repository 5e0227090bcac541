"""Signals unwind a run once; births and clean-ups are left alone."""

from __future__ import annotations

import signal
import threading
from typing import TYPE_CHECKING

import pytest

from qemu_odx.lab.interrupts import SIGNALS, signals_end_the_run, uninterrupted

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(autouse=True)
def same_handlers_afterwards() -> Iterator[None]:
    """Without a signal the handlers are those of before, with one the process is about to end."""
    before = [signal.getsignal(number) for number in SIGNALS]
    yield
    after = [signal.getsignal(number) for number in SIGNALS]
    for number, handler in zip(SIGNALS, before, strict=True):
        signal.signal(number, handler)
    assert after in (before, [signal.SIG_IGN] * len(SIGNALS))


@pytest.mark.parametrize("number", SIGNALS)
def test_first_signal_ends_the_run_and_later_ones_do_not_disturb(number: signal.Signals) -> None:
    """The exit code is the shell's for that signal."""
    cleaned = []
    with pytest.raises(SystemExit) as caught, signals_end_the_run():  # noqa: PT012 - their order is the test
        try:
            signal.raise_signal(number)
        finally:
            for other in SIGNALS:
                signal.raise_signal(other)
            cleaned.append(True)
    assert caught.value.code == 128 + number
    assert cleaned
    signal.raise_signal(number)  # on the way to the end of the process


def test_handlers_are_put_back() -> None:
    """After a run that was not interrupted."""
    before = [signal.getsignal(number) for number in SIGNALS]
    with signals_end_the_run(), uninterrupted():
        assert signal.getsignal(signal.SIGINT) not in before
    assert [signal.getsignal(number) for number in SIGNALS] == before


def test_signal_waits_for_the_end_of_a_birth() -> None:
    """The thing is there and registered before the run ends."""
    born = []
    with pytest.raises(SystemExit), signals_end_the_run():  # noqa: PT012 - their order is the test
        with uninterrupted():
            with uninterrupted():
                signal.raise_signal(signal.SIGTERM)
            born.append(True)
        born.append(False)
    assert born == [True]


def test_long_work_is_told_to_hurry_and_its_failure_hides_no_signal() -> None:
    """A wait is broken off by its own means; whatever it raises then, the run ends for the signal."""
    hurried = []

    def work() -> None:
        with uninterrupted(lambda: hurried.append(True)):
            signal.raise_signal(signal.SIGTERM)
            raise RuntimeError("broken off")

    with pytest.raises(SystemExit) as caught, signals_end_the_run():
        work()
    assert hurried == [True]
    assert caught.value.code == 128 + signal.SIGTERM


def test_ctrl_c_outside_the_command_line_is_put_off_too() -> None:
    """A library user's KeyboardInterrupt comes at the end."""
    born = []
    with pytest.raises(KeyboardInterrupt), uninterrupted():  # noqa: PT012 - their order is the test
        signal.raise_signal(signal.SIGINT)
        born.append(True)
    assert born == [True]


def test_ignored_signal_stays_ignored() -> None:
    """`nohup qemu-odx run` outlives its terminal."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with signals_end_the_run(), uninterrupted():
            signal.raise_signal(signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before)


def test_other_threads_are_left_alone() -> None:
    """Handlers cannot be set there, and are not called there."""
    ran = []

    def work() -> None:
        with uninterrupted():
            ran.append(True)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert ran == [True]
