"""Commands on the trace: begin to record, end it.

Imports `server/tracing.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias

from qemu_odx.server.monitor.command import Later
from qemu_odx.server.monitor.errors import MonitorError
from qemu_odx.server.options import ConfigError
from qemu_odx.server.trace_options import TraceConfig
from qemu_odx.trace.schema import EVENTS

if TYPE_CHECKING:
    from collections.abc import Callable

    from qemu_odx.server.backend import Backend
    from qemu_odx.trace.sink import Sink

TraceData: TypeAlias = Literal["off", "on", "full"]
TraceEvent: TypeAlias = Literal["message", "request", "fault", "token", "copy", "ioctl", "export", "disk"]


@dataclass(frozen=True, slots=True)
class TraceInfo:
    """A recording.

    Attributes:
        recording: it is going on.
        file: where it goes.
        records: how many were taken.
        dropped: how many were not, because they came faster than they could be written.
        failure: why nothing can be written any more.
    """

    recording: bool
    file: str | None = None
    records: int | None = None
    dropped: int | None = None
    failure: str | None = None


def start(
    backend: Backend, file: str, data: TraceData = "off", events: list[TraceEvent] | None = None
) -> TraceInfo:
    """Begins to record requests, messages, tokens and copies; see `docs/trace.md`.

    Args:
        file: an absolute path; an old file is replaced.
        data: `on`: with the data of requests, so that they can be replayed; tokens are in them. `full`: with the
            blocks that are read too.
        events: the kinds of records; all without it.

    Example:
        -> {"execute": "odx-trace-start", "arguments": {"file": "/tmp/t.jsonl", "data": "on"}}
        <- {"return": {"recording": true, "file": "/tmp/t.jsonl", "records": 1, "dropped": 0}}
    """
    path = Path(file)
    if not path.is_absolute():
        raise MonitorError(f"file: '{file}' is not absolute: the server's directory may not be yours")
    try:
        backend.tracing.start(TraceConfig(path, frozenset(events or EVENTS), data))
    except ConfigError as error:
        raise MonitorError(str(error)) from error
    return query(backend)


def stop(backend: Backend) -> Later[TraceInfo]:
    """Ends the recording; the file is whole when this returns.

    Example:
        -> {"execute": "odx-trace-stop"}
        <- {"return": {"recording": false, "file": "/tmp/t.jsonl", "records": 4711, "dropped": 0}}
    """
    sink = backend.tracing.stop()
    if sink is None:
        raise MonitorError("nothing is being recorded: odx-trace-start begins it")

    def begin(done: Callable[[TraceInfo | MonitorError], None]) -> None:
        backend.workers.run(sink.close, lambda _result: done(_info(sink, recording=False)))

    return Later(begin)


def query(backend: Backend) -> TraceInfo:
    """The recording that is going on.

    Example:
        -> {"execute": "query-odx-trace"}
        <- {"return": {"recording": false}}
    """
    recorder = backend.tracing.recorder
    return TraceInfo(recording=False) if recorder is None else _info(recorder.sink, recording=True)


def _info(sink: Sink, *, recording: bool) -> TraceInfo:
    return TraceInfo(recording, str(sink.path), sink.records, sink.dropped, sink.failure)
