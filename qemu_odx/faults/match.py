"""Which requests a rule is about, and which of those in turn it hits.

Imports `event`. Pure; the randomness of `Turns` comes from its seed alone, so a run can be repeated.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from qemu_odx.faults.event import Event, Level


@dataclass(frozen=True, slots=True)
class Match:
    """Which requests.

    Attributes:
        operations: standard names; empty for all but task management, which has to be named.
        disk: `id=` of the disk, "" for any.
        export: id of the export, its socket path or the last part of that, "" for any.
        cdb: bytes at the start of the CDB, b"" for any.
        mask: which of their bits are compared; as long as `cdb`.
        lba: first and last logical block of a range that the request must touch, None for any.
    """

    operations: frozenset[str] = frozenset()
    disk: str = ""
    export: str = ""
    cdb: bytes = b""
    mask: bytes = b""
    lba: tuple[int, int] | None = None

    def hits(self, event: Event, levels: frozenset[Level]) -> bool:
        """True if the request is one of these."""
        return (
            event.level in levels
            and self._names(event)
            and self.disk in {"", event.disk}
            and (not self.export or self.export in event.exports)
            and self._has_cdb(event.cdb)
            and self._touches(event)
        )

    def _names(self, event: Event) -> bool:
        if not self.operations:
            return event.level is not Level.CONTROL
        return event.operation in self.operations

    def _has_cdb(self, cdb: bytes) -> bool:
        if len(cdb) < len(self.cdb):
            return False
        return all(
            mine & mask == its & mask for mine, its, mask in zip(self.cdb, cdb, self.mask, strict=False)
        )

    def _touches(self, event: Event) -> bool:
        if self.lba is None:
            return True
        first, end = self.lba[0] * event.block_size, (self.lba[1] + 1) * event.block_size
        return any(length and offset < end and first < offset + length for offset, length in event.runs)


@dataclass(frozen=True, slots=True)
class When:
    """Which of the requests in turn, counted from the arming of the rule.

    Attributes:
        after: the first so many are let by.
        nth: only this one of the rest, counted from 1.
        every: only each so-manieth of the rest.
        count: so many are hit, then the rule is spent.
        probability: chance of each that is still left.
        seed: of that chance.
    """

    after: int = 0
    nth: int | None = None
    every: int = 1
    count: int | None = None
    probability: float = 1.0
    seed: int = 0


@dataclass(slots=True)
class Turns:
    """Counts the requests of an armed rule.

    Attributes:
        seen: requests that matched since the rule was armed.
        hits: those of them that were hit.
    """

    when: When
    seen: int = 0
    hits: int = 0
    _random: random.Random = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._random = random.Random(self.when.seed)  # noqa: S311  # to be repeated, not to be secret

    @property
    def spent(self) -> bool:
        """True if none will be hit any more."""
        when = self.when
        if when.count is not None and self.hits >= when.count:
            return True
        return when.nth is not None and self.seen >= when.after + when.nth

    def next(self) -> bool:
        """One more has matched; True if it is hit."""
        when = self.when
        self.seen += 1
        place = self.seen - when.after
        if place < 1 or place % when.every or (when.nth is not None and place != when.nth):
            return False
        if when.probability < 1.0 and self._random.random() >= when.probability:
            return False
        self.hits += 1
        return True

    def pick(self, below: int) -> int:
        """A number from 0 up to `below`, by the same seed."""
        return self._random.randrange(below)
