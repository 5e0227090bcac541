"""Records of a trace on the timeline of a run."""

from __future__ import annotations

from typing import Any

import pytest

from qemu_odx.report.model import Span
from qemu_odx.report.trace_spans import trace_spans

HEAD = {"event": "trace", "mono": 1000.0, "wall": 5000.0}
STARTED = 4990.0


def request(name: str, taken: float, ended: float, **more: Any) -> dict[str, Any]:
    """A request of unit 0 that went well."""
    record = {
        "event": "request",
        "kind": "scsi",
        "export": "export0",
        "lun": 0,
        "name": name,
        "status": "GOOD",
    }
    return record | {"taken": taken, "mono": ended, "bytes_in": 512, "bytes_out": 0} | more


def test_times_are_those_of_the_run() -> None:
    """The server's clock starts anywhere; the wall's is what both have."""
    (span,) = trace_spans([HEAD, request("READ(16)", 1001.0, 1001.5)], STARTED)
    assert span.lane == "export0 lun 0: reads"
    assert span.start == pytest.approx(11.0)
    assert span.seconds == pytest.approx(0.5)
    assert span.detail == "512 bytes"
    assert not span.failed


@pytest.mark.parametrize(
    ("name", "lane"),
    [
        ("WRITE USING TOKEN", "export0 lun 0: WRITE USING TOKEN"),
        ("WRITE(10)", "export0 lun 0: writes"),
        ("READ CAPACITY(10)", "export0 lun 0: other commands"),
        ("INQUIRY", "export0 lun 0: other commands"),
    ],
)
def test_lanes(name: str, lane: str) -> None:
    """Token commands by name, the rest by what they do."""
    (span,) = trace_spans([HEAD, request(name, 1001.0, 1001.5)], STARTED)
    assert span.lane == lane


def test_inquiry_is_no_read_and_in_is() -> None:
    """IN is what virtio-blk calls a read."""
    one = request("IN", 1001.0, 1002.0, kind="blk", status="OK")
    del one["lun"]
    (span,) = trace_spans([HEAD, one], STARTED)
    assert span.lane == "export0: reads"


def test_an_error_is_seen_as_one() -> None:
    """With its status."""
    (span,) = trace_spans([HEAD, request("READ(16)", 1001, 1002, status="CHECK CONDITION")], STARTED)
    assert span.failed
    assert span.detail == "CHECK CONDITION"


def test_tokens_live_from_their_making_to_their_end() -> None:
    """One that does not end lives as long as the trace."""
    records: list[dict[str, Any]] = [
        HEAD,
        {
            "event": "token",
            "what": "minted",
            "token": "aaaaaaaa01",
            "disk": "d0",
            "bytes": 1 << 20,
            "mono": 1001.0,
        },
        {
            "event": "token",
            "what": "minted",
            "token": "bbbbbbbb01",
            "disk": "d1",
            "bytes": 1 << 21,
            "mono": 1002.0,
        },
        {"event": "token", "what": "ended", "token": "aaaaaaaa01", "cause": "expired", "mono": 1003.0},
        {"event": "end", "mono": 1010.0},
    ]
    one, two = trace_spans(records, STARTED)
    assert one == Span("token aaaaaaaa", "token aaaaaaaa", 11.0, 2.0, "token", "1 MiB of d0, expired")
    assert two == Span(
        "token bbbbbbbb", "token bbbbbbbb", 12.0, 8.0, "token", "2 MiB of d1, alive at the end"
    )


def test_what_is_no_request_for_a_unit_and_an_empty_trace() -> None:
    """Refused addresses and an empty file draw nothing."""
    refused = {"event": "request", "kind": "refused", "name": "no such unit", "taken": 1.0, "mono": 1.0}
    assert trace_spans([HEAD, refused], STARTED) == ()
    assert trace_spans([], STARTED) == ()


def test_faults_are_marks() -> None:
    """In a lane of their own."""
    fault = {"event": "fault", "rule": "r1", "action": "torn-write", "mono": 1004.0}
    (span,) = trace_spans([HEAD, fault], STARTED)
    assert (span.lane, span.name, span.kind, span.detail) == ("faults", "torn-write", "fault", "r1")
