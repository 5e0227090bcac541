"""Signals that end a run: unwound once, not in the middle of a birth, not during the clean-up.

Imports nothing of ours. `process.py` and `run_folder.py` make things inside `uninterrupted`, so that whatever exists
has somebody who ends it; the command line wraps its work in `signals_end_the_run`.
"""

from __future__ import annotations

import signal
import sys
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextmanager
def signals_end_the_run() -> Iterator[None]:
    """Ctrl-C, SIGTERM and SIGHUP unwind the stack, so that everything started is ended.

    The first one raises SystemExit with 128 + its number. From then on they are ignored, to the end of the process:
    the clean-up is under way.
    """

    def leave(number: int, _: FrameType | None) -> None:
        let_nothing_interrupt()
        sys.exit(128 + number)

    with _handled_by(leave):
        yield


def let_nothing_interrupt() -> None:
    """Ignore these signals from here to the end of the process: the work is done, or being undone."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


@contextmanager
def uninterrupted(hurry: Callable[[], object] = lambda: None) -> Iterator[None]:
    """Put off signals that arrive inside until its end.

    For what must not be torn in the middle: short stretches, or one that ends soon once `hurry` is called, by the
    signal's handler.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # Python's handlers run on the main thread only
        return
    arrived: list[int] = []

    def remember(number: int, _: FrameType | None) -> None:
        arrived.append(number)
        hurry()

    try:
        with _handled_by(remember):
            yield
    finally:
        if arrived:
            signal.raise_signal(arrived[0])


@contextmanager
def _handled_by(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Replace the handlers; a signal that is ignored (nohup) stays ignored."""
    before = {number: signal.getsignal(number) for number in SIGNALS}
    replaced = {number: old for number, old in before.items() if old not in {signal.SIG_IGN, None}}
    try:
        for number in replaced:
            signal.signal(number, handler)
        yield
    finally:
        for number, old in replaced.items():
            if signal.getsignal(number) is handler:
                signal.signal(number, old)
