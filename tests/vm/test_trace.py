"""A real guest's session, recorded while it ran and replayed without it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner

from qemu_odx.cli.replay import replay
from qemu_odx.cli.trace import trace

if TYPE_CHECKING:
    from pathlib import Path

    from qemu_odx.pytest_plugin.disks import OdxDisk
    from qemu_odx.pytest_plugin.guests import OdxGuest
    from qemu_odx.pytest_plugin.server import OdxServer

pytestmark = [
    pytest.mark.odx_disk("source", size="64M"),
    pytest.mark.odx_disk("destination", size="64M", blk=True),
]


def test_a_guest_is_recorded_and_replayed(
    odx_guest: OdxGuest, odx_server: OdxServer, odx_disks: tuple[OdxDisk, ...], tmp_path: Path
) -> None:
    """Linux writes, copies by token, overwrites the source meanwhile, reads back by either device: the same again."""
    file, runner = tmp_path / "guest.jsonl", CliRunner()
    source, destination = sorted(odx_disks, key=lambda disk: "destination" in disk.serial)
    odx_server.execute("odx-trace-start", {"file": str(file), "data": "on"})
    serials = ("--source", source.serial, "--destination", destination.serial)
    found = odx_guest.script("odx_copy.py", *serials, "--mebibytes", "8")
    ended = odx_server.execute("odx-trace-stop")
    assert found["sha256"]["destination"] == found["sha256"]["source_before"]
    assert (ended["recording"], ended["dropped"]) == (False, 0)
    stats = json.loads(runner.invoke(trace, ["stats", str(file), "--json"]).stdout)
    names = {row["name"]: row["count"] for row in stats["operations"]}
    assert names["POPULATE TOKEN"] >= 1
    assert names["WRITE USING TOKEN"] >= 1
    assert names["IN"] >= 1
    assert any(life["uses"] for life in stats["tokens"])
    result = runner.invoke(replay, [str(file), "--json"])
    verdict = json.loads(result.stdout)
    assert verdict["differences"] == []
    assert result.exit_code == 0
    assert verdict["compared"] > 50
    assert verdict["compared"] > 5 * sum(verdict["uncompared"].values())
