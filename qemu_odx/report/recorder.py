"""Takes the phases of a run down while it runs, for the timeline, also of a run that fails.

Imports nothing of ours but the model: an observer of the lab is whatever has these four methods.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Protocol

from qemu_odx.report.model import Span


class Observer(Protocol):
    """Who is told how a run goes (`lab/phases.py`)."""

    def phase_began(self, name: str) -> None:
        """A phase began."""

    def detail(self, text: str) -> None:
        """What it is doing now."""

    def progress(self, done: int, total: int) -> None:
        """How much of that is done."""

    def phase_ended(self, name: str, seconds: float) -> None:
        """It ended well."""


class Recorder:
    """Passes everything on to another observer and remembers the phases.

    Attributes:
        started: when it was made.
    """

    def __init__(self, observer: Observer) -> None:
        self._observer = observer
        self.started = datetime.now(UTC).astimezone()
        self._zero = time.monotonic()
        self._open: list[tuple[str, float]] = []
        self._spans: list[Span] = []

    @property
    def seconds(self) -> float:
        """Since it was made."""
        return time.monotonic() - self._zero

    @property
    def spans(self) -> tuple[Span, ...]:
        """The phases so far; one that did not end has failed."""
        now = self.seconds
        unfinished = [Span(_words(name), name, start, now - start, failed=True) for name, start in self._open]
        return (*self._spans, *unfinished)

    def phase_began(self, name: str) -> None:
        """See `Observer`."""
        self._open.append((name, self.seconds))
        self._observer.phase_began(name)

    def detail(self, text: str) -> None:
        """See `Observer`."""
        self._observer.detail(text)

    def progress(self, done: int, total: int) -> None:
        """See `Observer`."""
        self._observer.progress(done, total)

    def phase_ended(self, name: str, seconds: float) -> None:
        """See `Observer`."""
        started = dict(self._open)[name]
        self._open.remove((name, started))
        self._spans.append(Span(_words(name), name, started, seconds))
        self._observer.phase_ended(name, seconds)


def _words(name: str) -> str:
    return name.replace("_", " ")
