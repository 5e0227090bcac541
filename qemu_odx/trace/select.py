"""Which records of a trace are wanted: by export, disk, operation, token, blocks, time; errors only.

Imports `schema` and `wire/scsi/spans`. Used by `qemu-odx trace show|filter|stats` and the timeline.
"""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from qemu_odx.trace.schema import DROPPED, HEAD, TAIL, is_error
from qemu_odx.wire.scsi.spans import Span

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from qemu_odx.trace.schema import Record


@dataclass(frozen=True, slots=True)
class Selection:
    """What is wanted; each that is given must fit.

    Attributes:
        events: kinds of record.
        export: name of an export.
        disk: name of a disk.
        operation: name of an operation, with `*` and `?`; case does not matter.
        token: the first digits of a token's identifier, or "zero".
        blocks: a request that names one of these.
        errors: only what went wrong.
        since: seconds from the head of the trace on.
        until: the same.
    """

    events: frozenset[str] = frozenset()
    export: str | None = None
    disk: str | None = None
    operation: str | None = None
    token: str | None = None
    blocks: Span | None = None
    errors: bool = False
    since: float | None = None
    until: float | None = None

    def wants(self, record: Record, start: float) -> bool:
        """True if the record is wanted; `start` is `mono` of the head."""
        event, at = record["event"], record.get("mono", start) - start
        return (
            (not self.events or event in self.events)
            and (self.export is None or record.get("export") == self.export)
            and (self.disk is None or self.disk in disks_of(record))
            and (
                self.operation is None
                or fnmatchcase(str(record.get("name", "")).upper(), self.operation.upper())
            )
            and (self.token is None or any(name.startswith(self.token.lower()) for name in tokens_of(record)))
            and (self.blocks is None or self._meets(record))
            and (not self.errors or is_error(record))
            and (self.since is None or at >= self.since)
            and (self.until is None or at <= self.until)
        )

    def _meets(self, record: Record) -> bool:
        assert self.blocks is not None  # noqa: S101 - asked only then
        return any(self.blocks.meets(Span(*span)) for span in record.get("spans", ()))

    def of(self, records: Iterable[Record]) -> Iterator[Record]:
        """Those that are wanted; head, tail and notes about drops always."""
        start = 0.0
        for record in records:
            if record["event"] == HEAD:
                start = record.get("mono", 0.0)
            if record["event"] in {HEAD, TAIL, DROPPED} or self.wants(record, start):
                yield record


def disks_of(record: Record) -> tuple[str, ...]:
    """The disks that a record is about."""
    return (record["disk"],) if "disk" in record else tuple(record.get("disks", ()))


def tokens_of(record: Record) -> tuple[str, ...]:
    """The tokens that a record is about, by their identifiers."""
    places = (record, record.get("fields"), record.get("told"))
    return tuple(place["token"] for place in places if isinstance(place, dict) and "token" in place)
