"""The Prometheus endpoint: its text is read by Prometheus' own parser, and nobody who scrapes hurts a guest."""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest
from guests import Blk, eventually
from prometheus_client.parser import text_string_to_metric_families

from qemu_odx.cli.monitor_client import MonitorClient
from qemu_odx.server.metrics.address import Address, parse_address
from qemu_odx.server.options import ConfigError
from qemu_odx.testing.scsi_guest import ScsiGuest
from qemu_odx.testing.serve import ServeProcess, run_serve
from qemu_odx.wire.scsi.token_lists import Range

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from prometheus_client.samples import Sample

DISKS = ("--disk", "id=d0,path=d0.img,size=16M", "--disk", "id=d1,path=d1.img,size=16M")
EXPORTS = (
    *("--export", "type=vhost-user-scsi,id=scsi,socket=s.sock,lun0=d0,lun1=d1"),
    *("--export", "type=vhost-user-blk,id=blk,socket=b.sock,disk=d1"),
)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ServeProcess]:
    """A server with metrics and, to steer it, a monitor."""
    more = ("--metrics", "127.0.0.1:0", "--monitor", "m.sock")
    with ServeProcess([*DISKS, *EXPORTS, *more], cwd=tmp_path) as process:
        yield process


@pytest.fixture
def port(server: ServeProcess) -> int:
    """Where the metrics are."""
    return urlsplit(server.ready["metrics"]).port or 0


def scrape(port: int) -> list[Sample]:
    """Every sample, as Prometheus' parser reads them; again where the server was too busy to tell any."""
    found: list[Sample] = []

    def told() -> bool:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=60) as answer:
            assert answer.headers["Content-Type"].startswith("text/plain")
            text = answer.read().decode()
        found.extend(s for family in text_string_to_metric_families(text) for s in family.samples)
        return bool(found)

    eventually(told, "nothing was told")
    return found


def value(samples: list[Sample], name: str, **labels: str) -> float:
    """The one sample of that name and these labels."""
    (found,) = (
        item.value
        for item in samples
        if item.name == name and all(item.labels.get(key) == wanted for key, wanted in labels.items())
    )
    return float(found)


def test_numbers_of_disks_tokens_copies_and_requests(server: ServeProcess, port: int) -> None:
    """Each as it is; histograms end in +Inf with the count."""
    with ScsiGuest(server.cwd / "s.sock") as guest, MonitorClient(str(server.cwd / "m.sock")) as monitor:
        token = guest.initiator.token(0, [Range(0, 2048)])
        kept = guest.initiator.token(0, [Range(0, 8)])
        assert guest.initiator.write(0, 0, 128, b"x" * 65536).good
        assert guest.initiator.write_token(1, token, [Range(0, 2048)]).good
        monitor.execute("odx-token-revoke", {"token": token[8:16].hex()})
        monitor.execute("odx-statistics-start")
        assert guest.initiator.read(1, 0, 8).good
        samples = scrape(port)
        assert value(samples, "qemu_odx_disk_size_bytes", disk="d0") == 16 << 20
        assert value(samples, "qemu_odx_export_connected", export="scsi") == 1
        assert value(samples, "qemu_odx_export_connected", export="blk") == 0
        assert value(samples, "qemu_odx_tokens", disk="d0") == 1
        assert value(samples, "qemu_odx_tokens_created_total", disk="d0") == 2
        assert value(samples, "qemu_odx_tokens_ended_total", disk="d0", cause="revoked") == 1
        assert value(samples, "qemu_odx_copied_bytes_total") == 2048 * 512
        assert value(samples, "qemu_odx_copies_total", status="done") == 3
        timed = {"export": "scsi", "operation": "READ(16)"}
        assert value(samples, "qemu_odx_operation_served_seconds_count", **timed) == 1
        assert value(samples, "qemu_odx_operation_served_seconds_bucket", le="+Inf", **timed) == 1
        assert value(samples, "qemu_odx_operation_errors_total", **timed) == 0
        alone = {"export": "scsi", "queue": "2", "kind": "alone"}
        counted = value(samples, "qemu_odx_request_seconds_count", **alone)
        buckets = [
            item.value
            for item in samples
            if item.name == "qemu_odx_request_seconds_bucket" and item.labels.items() >= alone.items()
        ]
        assert buckets == sorted(buckets)
        assert buckets[-1] == counted > 5
        assert kept


def test_scrapers_without_manners_hurt_nobody(server: ServeProcess, port: int) -> None:
    """Half a request, a long one, one that is never read: guests go on, and so do others who scrape."""
    guest = Blk(str(server.cwd / "b.sock")).go()
    with guest.front:
        guest.write(0, bytes(512))  # its start is over: all its descriptors are there
        descriptors = server.descriptors()
        for said in (b"GET /met", b"GET /" + b"x" * 100_000, b"\xff" * 70_000, b""):
            with socket.create_connection(("127.0.0.1", port)) as enemy:
                with contextlib.suppress(ConnectionError):  # who says too much is not heard to the end
                    enemy.sendall(said)
                guest.write(0, bytes(512))
        assert value(scrape(port), "qemu_odx_export_connected", export="blk") == 1
        eventually(lambda: server.descriptors() <= descriptors, "a scraper's socket was kept")
    assert "Traceback" not in server.errors()
    assert server.terminate() == 0


def test_the_server_says_where_they_are(tmp_path: Path) -> None:
    """Port 0 takes one that is free."""
    command = [sys.executable, "-m", "qemu_odx", "serve", "--json", *DISKS, *EXPORTS, "--metrics", "[::1]:0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=tmp_path) as process:
        assert process.stdout is not None
        url = json.loads(process.stdout.readline())["metrics"]
        assert url.startswith("http://[::1]:")
        where = url.removeprefix("http://")
        with urllib.request.urlopen(f"http://{where}", timeout=60) as answer:
            assert b"qemu_odx_disk_size_bytes" in answer.read()
        process.terminate()
        assert process.wait(60) == 0
    with pytest.raises(urllib.error.URLError):
        urllib.request.urlopen(f"http://{where}", timeout=5)


def test_a_port_that_is_taken_is_refused(tmp_path: Path) -> None:
    """And nothing stays behind."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        where = f"127.0.0.1:{other.getsockname()[1]}"
        done = run_serve([*DISKS, *EXPORTS, "--metrics", where], cwd=tmp_path)
    assert (done.returncode, "choose another port" in done.stderr) == (1, True), done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("0.0.0.0:9101", "can be reached by others"),
        ("192.168.1.1:9101", "can be reached by others"),
        ("[::]:9101", "can be reached by others"),
        ("example.org:9101", "write an IP address"),
        ("9101", "write an IP address"),
        ("127.0.0.1", "write an IP address"),
        ("127.0.0.1:", "not a number"),
        ("127.0.0.1:65536", "not a number from 0 to 65535"),
    ],
)
def test_only_loopback_is_listened_on(text: str, said: str) -> None:
    """The sentence names the cure."""
    with pytest.raises(ConfigError, match=said):
        parse_address(text)


def test_addresses_of_loopback() -> None:
    """Of both families."""
    assert parse_address("127.0.0.1:9101") == Address("127.0.0.1", 9101)
    assert parse_address("[::1]:0") == Address("::1", 0)
