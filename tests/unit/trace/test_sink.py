"""The file of a trace: bounded, in order, never waiting, honest about what is missing."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING

from trace_bench import read

from qemu_odx.trace import sink as module
from qemu_odx.trace.sink import Sink

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import pytest


def test_everything_in_order(tmp_path: Path) -> None:
    """More than a chunk."""
    sink = Sink(tmp_path / "t")
    for number in range(5000):
        sink.write({"event": "x", "number": number, "text": "-" * 40})
    sink.close()
    assert [record["number"] for record in read(tmp_path / "t")] == list(range(5000))
    assert sink.waiting == 0


def test_little_is_written_soon(tmp_path: Path) -> None:
    """After a moment, so that a trace can be followed."""
    timers: list[tuple[float, Callable[[], None]]] = []
    sink = Sink(tmp_path / "t", lambda seconds, callback: timers.append((seconds, callback)))
    sink.write({"event": "one"})
    sink.write({"event": "two"})
    assert [seconds for seconds, _ in timers] == [module.LINGER]
    assert (tmp_path / "t").read_bytes() == b""
    timers[0][1]()
    while sink.waiting:
        pass
    assert [record["event"] for record in read(tmp_path / "t")] == ["one", "two"]
    sink.write({"event": "three"})
    assert len(timers) == 2
    sink.close()
    assert len(read(tmp_path / "t")) == 3


def test_what_does_not_fit_is_dropped_counted_and_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the place where it is missing; the writer never waits for the file."""
    gate = threading.Event()
    real = os.write
    monkeypatch.setattr(module.os, "write", lambda fd, data: (gate.wait(60), real(fd, data))[1])
    sink = Sink(tmp_path / "t", limit=module.CHUNK + 1000)
    line = {"event": "x", "mono": 1.0, "text": "-" * 900}
    for _ in range(200):
        sink.write(line)
    kept = sink.records
    assert sink.dropped == 200 - kept > 0
    assert sink.waiting <= module.CHUNK + 1000
    gate.set()
    while sink.waiting > 1000:
        sink.flush()
    sink.write({"event": "after", "mono": 2.0})
    sink.close()
    found = read(tmp_path / "t")
    assert found[-2] == {"event": "dropped", "mono": 2.0, "count": 200 - kept}
    assert found[-1]["event"] == "after"
    assert len(found) == kept + 2


def test_a_full_file_system_ends_the_trace_not_the_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Everything after that is dropped."""

    def full(_fd: int, _data: memoryview) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module.os, "write", full)
    sink = Sink(tmp_path / "t")
    sink.write({"event": "x"})
    sink.flush()
    while sink.failure is None:
        pass
    sink.write({"event": "x"})
    sink.close()
    assert sink.dropped == 1
    assert "No space left on device" in caplog.text
