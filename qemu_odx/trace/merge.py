"""One trace out of several: records of a server, and what `odx.exe` printed in a guest, in the order of time.

Imports the readers beside it. What a guest saw has no `mono` of the server: it gets one from the wall clock, by the
head of the first trace.
"""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING

from qemu_odx.trace import windows
from qemu_odx.trace.reading import TraceError
from qemu_odx.trace.schema import HEAD, TAIL

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from qemu_odx.trace.reading import Trace
    from qemu_odx.trace.schema import Record


def merge(trace: Trace, others: Sequence[Iterable[Record]]) -> Iterator[Record]:
    """The records of a trace, with others among them by their wall time; head first and tail last."""
    shift = trace.head["mono"] - trace.head["wall"]
    tail: list[Record] = []

    def own() -> Iterator[Record]:
        for record in trace:
            if record["event"] == TAIL:
                tail.append(record)
            elif record["event"] != HEAD:
                yield record

    def timed(records: Iterable[Record]) -> Iterator[Record]:
        for record in records:
            yield {"mono": record["wall"] + shift, **record}

    yield trace.head
    yield from heapq.merge(own(), *map(timed, others), key=lambda record: record.get("wall", 0.0))
    yield from tail


def from_windows(path: Path, *, offset: float = 0.0) -> list[Record]:
    """The calls in a file of lines from `odx.exe`, by their time.

    Raises:
        TraceError: it cannot be read, or a line is none of the tool's.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise TraceError(f"{path}: {error}") from error
    found = [record for line in lines if line.strip() for record in windows.records(line, offset=offset)]
    return sorted(found, key=lambda record: float(record["wall"]))
