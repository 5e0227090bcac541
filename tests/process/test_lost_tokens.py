"""A token whose old data could not be kept is dead at that moment: everybody is told so, once, and why."""

from __future__ import annotations

import errno
import json
import os
import urllib.request
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest

from qemu_odx.cli.monitor_client import MonitorClient
from qemu_odx.testing.scsi_guest import ScsiGuest
from qemu_odx.testing.serve import ServeProcess
from qemu_odx.wire.scsi.token_lists import Range

if TYPE_CHECKING:
    from pathlib import Path

SIZE = 3 << 19
"""Of the image, on a file system of 2 MiB that has no reflinks: half a MiB is left for old data."""
BLOCKS = SIZE // 512
PART = BLOCKS // 6
CANCELLED = (5, 0x23, 8)
TIMEOUT = 60


def arguments(tiny: Path) -> list[str]:
    """A disk on the small file system, another one elsewhere, and all who may want to be told."""
    return [
        *("--disk", f"id=d0,path={tiny}/a.img,size={SIZE},layers=faults"),
        *("--disk", f"id=d1,path=b.img,size={SIZE}"),
        *("--export", "type=vhost-user-scsi,socket=s.sock,lun0=d0,lun1=d1"),
        *("--state", "state", "--clock", "virtual"),
        *("--monitor", "m.sock", "--metrics", "127.0.0.1:0", "--trace", "t.jsonl,events=token"),
    ]


def deaths(server: ServeProcess) -> dict[str, str]:
    """What the metrics say of dead tokens: labels and number."""
    port = urlsplit(server.ready["metrics"]).port
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30) as answer:
        lines = answer.read().decode().splitlines()
    found = [line for line in lines if line.startswith("qemu_odx_tokens_ended_total{")]
    return {
        labels: number for labels, _, number in (line.partition("{")[2].rpartition(" ") for line in found)
    }


def events_until_shutdown(monitor: MonitorClient) -> list[dict[str, Any]]:
    """Data of every event about dead tokens; the server is ending."""
    told = []
    while True:
        event = monitor.next_event(60)
        assert event is not None
        if event["event"] == "SHUTDOWN":
            return told
        if event["event"] == "ODX_TOKEN_ENDED":
            told.append(event["data"])


def records_of_ends(path: Path) -> list[tuple[str, str | None]]:
    """Cause and reason of every death in the trace."""
    records = map(json.loads, path.read_text().splitlines())
    return [
        (item["cause"], item.get("reason"))
        for item in records
        if item["event"] == "token" and item["what"] == "ended"
    ]


@pytest.mark.parametrize(
    ("fault", "reason"),
    [(None, os.strerror(errno.ENOSPC)), ("disk-error", "EIO by a fault rule")],
    ids=["no space", "host error"],
)
def test_told_at_once_and_once(tiny: Path, tmp_path: Path, fault: str | None, reason: str) -> None:
    """Before the write that cost it is answered; nothing more is said when its time is up or when it is used."""
    lost = 'cause="cancelled",disk="d0"}'
    with (
        ServeProcess(arguments(tiny), cwd=tmp_path) as server,
        MonitorClient(str(tmp_path / "m.sock")) as monitor,
    ):
        with ScsiGuest(tmp_path / "s.sock") as guest:
            initiator = guest.initiator
            for lba in range(0, BLOCKS, PART):
                assert initiator.write(0, lba, PART, os.urandom(PART * 512)).good
            token = initiator.token(0, [Range(0, BLOCKS)], timeout=TIMEOUT)
            initiator.token(1, [Range(0, 8)], timeout=TIMEOUT)
            if fault:
                monitor.execute("odx-fault-arm", {"rule": f"disk=d0,action={fault},op=snapshot-keep"})
            for lba in range(0, BLOCKS, PART):
                assert initiator.write(0, lba, PART, os.urandom(PART * 512)).good
            assert monitor.execute("query-odx-tokens", {"disk": "d0"}) == []
            assert deaths(server) == {lost: "1.0"}
            monitor.execute("odx-clock-advance", {"seconds": TIMEOUT + 1})
            for _ in range(2):
                assert initiator.write_token(1, token, [Range(0, 8)]).fault == CANCELLED
            assert deaths(server) == {lost: "1.0", 'cause="expired",disk="d1"}': "1.0"}
        assert server.terminate() == 0
        first, second = events_until_shutdown(monitor)
        name = {"token": token[8:16].hex(), "disk": "d0"}
        assert first == name | {"cause": "cancelled", "reason": reason}
        assert (second["disk"], second["cause"], "reason" in second) == ("d1", "expired", False)
    assert records_of_ends(tmp_path / "t.jsonl") == [("cancelled", reason), ("expired", None)]
    with ServeProcess(arguments(tiny), cwd=tmp_path), ScsiGuest(tmp_path / "s.sock") as guest:
        assert guest.initiator.write_token(1, token, [Range(0, 8)]).fault == CANCELLED
