"""Where the records of a trace go: a file, written beside the event loop.

Imports `schema` and `payload`. A record becomes a line of bytes at once, on the caller's thread; lines are gathered
and handed to a thread that writes them, and does what takes its time: long data are hashed and deflated there. What
waits is bounded: records that come too fast are dropped and counted, and the trace says so where they are missing.
"""

from __future__ import annotations

import json
import logging
import os
from dataclasses import dataclass
from queue import SimpleQueue
from threading import Thread
from typing import TYPE_CHECKING, Final

from qemu_odx.trace.payload import Raw
from qemu_odx.trace.schema import DROPPED

if TYPE_CHECKING:
    from pathlib import Path

    from qemu_odx.tap.decision import Later
    from qemu_odx.trace.schema import Record

log = logging.getLogger(__name__)

CHUNK: Final = 64 << 10
"""Bytes that are gathered before they are handed over."""
LIMIT: Final = 128 << 20
"""Bytes that may wait for the file system."""
LINGER: Final = 0.2
"""Seconds after which less is handed over too: a trace can be followed by `tail -f`."""
_RAW: Final = ("data_out", "data_in", "data")
"""Members that may be `Raw`."""
_encode: Final = json.JSONEncoder(separators=(",", ":"), check_circular=False).encode


@dataclass(frozen=True, slots=True)
class _Line:
    """A record as JSON, and what is still to be packed into it."""

    text: bytes
    raw: dict[str, Raw]

    def whole(self) -> bytes:
        """The line."""
        if not self.raw:
            return self.text + b"\n"
        members = [b',"' + name.encode() + b'":' + item.packed() for name, item in self.raw.items()]
        return b"".join([self.text[:-1], *members, b"}\n"])


class Sink:
    """A trace file. Only its owner may read it: with `data=on` it holds tokens and data.

    Args:
        path: made or emptied.
        later: calls back on the owner's thread, in real time; None: nothing is written before a chunk is full.
        limit: bytes that may wait.

    Raises:
        OSError: the file cannot be made.

    Attributes:
        records: how many were taken.
        dropped: how many were not, since the beginning.
        failure: why nothing can be written any more, None if all is well.
    """

    def __init__(self, path: Path, later: Later | None = None, *, limit: int = LIMIT) -> None:
        self.path = path
        self.records = 0
        self.dropped = 0
        self.failure: str | None = None
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        self._later = later
        self._limit = limit
        self._lines: list[_Line] = []
        self._gathered = self._handed = self._written = 0
        self._missing = 0
        self._lingering = False
        self._chunks: SimpleQueue[tuple[list[_Line], int] | None] = SimpleQueue()
        self._thread = Thread(target=self._write_all, name="odx-trace", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """Bytes that are not written yet."""
        return self._gathered + self._handed - self._written

    def write(self, record: Record) -> None:
        """Take a record. Never waits."""
        raw = {name: record.pop(name) for name in _RAW if isinstance(record.get(name), Raw)}
        line = _encode(record).encode()
        size = len(line) + sum(len(item.data) for item in raw.values())
        if self.failure is not None or self.waiting + size > self._limit:
            self.dropped += 1
            self._missing += 1
            return
        if self._missing:
            self._note_missing(record)
        self.records += 1
        self._gather(_Line(line, raw), size)

    def close(self, timeout: float = 60.0) -> None:
        """Write what waits, and close. Waits for the file system, but not longer than `timeout` seconds."""
        self.flush()
        self._chunks.put(None)
        self._thread.join(timeout)

    def flush(self) -> None:
        """Hand over what was gathered."""
        self._lingering = False
        if self._lines:
            self._chunks.put((self._lines, self._gathered))
            self._handed += self._gathered
            self._gathered = 0
            self._lines = []

    def _gather(self, line: _Line, size: int) -> None:
        self._lines.append(line)
        self._gathered += size
        if self._gathered >= CHUNK:
            self.flush()
        elif self._later is not None and not self._lingering:
            self._lingering = True
            self._later(LINGER, self.flush)

    def _note_missing(self, next_record: Record) -> None:
        times = {name: next_record[name] for name in ("mono", "wall") if name in next_record}
        line = _encode({"event": DROPPED, **times, "count": self._missing}).encode()
        self._gather(_Line(line, {}), len(line))
        self._missing = 0

    # -- the thread --------------------------------------------------------------------------------

    def _write_all(self) -> None:
        while (chunk := self._chunks.get()) is not None:
            lines, size = chunk
            self._write(b"".join(line.whole() for line in lines))
            self._written += size
        os.close(self._fd)

    def _write(self, chunk: bytes) -> None:
        rest = memoryview(chunk)
        while rest and self.failure is None:
            try:
                rest = rest[os.write(self._fd, rest) :]
            except OSError as error:
                self.failure = error.strerror or str(error)
                log.error("%s: the trace ends here: %s", self.path, self.failure)  # noqa: TRY400 - no bug of ours
