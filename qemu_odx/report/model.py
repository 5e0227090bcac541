"""A run as plain data: all that a report can show.

Imports nothing of ours. Who ran something fills a `Report`; `write.py` makes the files of it.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

Outcome = Literal["passed", "failed", "error", "skipped"]
Kind = Literal["phase", "command", "token", "fault"]


@dataclass(frozen=True, slots=True)
class Case:
    """One thing that was checked.

    Attributes:
        name: what should be true, in a few words.
        outcome: as JUnit has it: "failed" is a wrong result, "error" is none at all.
        seconds: how long it took.
        message: one line: why it is not passed.
        details: more lines on that.
    """

    name: str
    outcome: Outcome = "passed"
    seconds: float = 0.0
    message: str = ""
    details: str = ""


@dataclass(frozen=True, slots=True)
class Suite:
    """What was checked with one guest, and what that guest was."""

    name: str
    cases: tuple[Case, ...]
    properties: Mapping[str, str] = field(default_factory=dict)

    def count(self, *outcomes: Outcome) -> int:
        """How many cases ended like that."""
        return sum(case.outcome in outcomes for case in self.cases)


@dataclass(frozen=True, slots=True)
class Span:
    """A stretch of the timeline.

    Attributes:
        lane: the row it is drawn in.
        name: what happened.
        start: seconds since the start of the run.
        seconds: how long it took.
        kind: what sort of thing it is, which decides its colour.
        detail: shown with the name when pointed at.
        failed: it did not end well.
    """

    lane: str
    name: str
    start: float
    seconds: float
    kind: Kind = "phase"
    detail: str = ""
    failed: bool = False


@dataclass(frozen=True, slots=True)
class Sample:
    """One request that was timed: operation, bytes that it moved, seconds."""

    operation: str
    bytes: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Way:
    """One way of copying: what it moved, in how many seconds, and data bytes that crossed the ring for it."""

    name: str
    bytes: int
    seconds: float
    ring_bytes: int | None = None
    samples: tuple[Sample, ...] = ()

    @property
    def rate(self) -> float:
        """Bytes per second."""
        return self.bytes / self.seconds if self.seconds > 0 else 0.0


@dataclass(frozen=True, slots=True)
class Digest:
    """A SHA-256 and whose it is."""

    name: str
    sha256: str


@dataclass(frozen=True, slots=True)
class Log:
    """A log file's name and text."""

    name: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """A whole run.

    Attributes:
        title: what was run.
        verdict: one sentence on how it ended.
        started: when, with a time zone.
        seconds: how long it took.
        suites: what was checked, by guest.
        spans: the timeline, in any order.
        ways: token copy against plain copy, the token's way first.
        digests: hashes of data; equal ones are marked as equal.
        environment: what it ran on, by name.
        logs: what was written meanwhile.
    """

    title: str
    verdict: str
    started: datetime
    seconds: float
    suites: tuple[Suite, ...]
    spans: tuple[Span, ...] = ()
    ways: tuple[Way, ...] = ()
    digests: tuple[Digest, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    logs: tuple[Log, ...] = ()

    @property
    def ok(self) -> bool:
        """Nothing failed, and something was checked that was not skipped."""
        return any(suite.count("passed") for suite in self.suites) and not any(
            suite.count("failed", "error") for suite in self.suites
        )

    def as_json(self) -> dict[str, Any]:
        """The object in `report.json`: the same names, `started` in ISO 8601, and `ok`."""
        return {"ok": self.ok, **asdict(self), "started": self.started.isoformat(timespec="seconds")}
