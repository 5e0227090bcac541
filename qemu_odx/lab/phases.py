"""What the lab is doing, and how long each part took.

Imports nothing of ours. The command line draws it; the report keeps the seconds.
"""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator


class Observer(Protocol):
    """Someone who wants to know how a run goes."""

    def phase_began(self, name: str) -> None:
        """A phase began; `name` is one word of the report."""

    def detail(self, text: str) -> None:
        """What the phase is doing now."""

    def progress(self, done: int, total: int) -> None:
        """How much of that is done."""

    def phase_ended(self, name: str, seconds: float) -> None:
        """A phase ended well."""


class Silent:
    """An observer that shows nothing."""

    def phase_began(self, name: str) -> None:
        """See `Observer`."""

    def detail(self, text: str) -> None:
        """See `Observer`."""

    def progress(self, done: int, total: int) -> None:
        """See `Observer`."""

    def phase_ended(self, name: str, seconds: float) -> None:
        """See `Observer`."""


class Phases:
    """Named stretches of a run.

    Attributes:
        seconds: how long each finished phase took, in the order of the run.
    """

    def __init__(self, observer: Observer) -> None:
        self.observer = observer
        self.seconds: dict[str, float] = {}

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Time what happens inside; a phase that raises is not counted."""
        self.observer.phase_began(name)
        started = time.monotonic()
        yield
        self.seconds[name] = time.monotonic() - started
        self.observer.phase_ended(name, self.seconds[name])
