"""`qemu-odx run --report`: the three ways in which a run ends."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from qemu_odx.cli import run_report
from qemu_odx.lab.config.model import Guest, Lab
from qemu_odx.lab.phases import Silent
from qemu_odx.lab.session.run import Orders, RunResult
from qemu_odx.lab.session.script import Script

COST = {"bytes": 1 << 20, "seconds": 0.5, "ring_bytes": 1134}
PRINTED = {"sha256": {"source_before": "aa", "destination": "aa"}, "token_copy": COST, "other": {"bytes": 1}}


def report_of(
    result: RunResult, folder: Path, monkeypatch: pytest.MonkeyPatch, **more: Any
) -> dict[str, Any]:
    """The report of a run that ends with this result."""

    def run_script(orders: Orders, _: object) -> RunResult:
        assert orders.trace
        assert orders.copy_to is not None
        orders.copy_to.mkdir(parents=True)
        (orders.copy_to / "serve.log").write_text("a line\n")
        return result

    monkeypatch.setattr(run_report, "run_script", run_script)
    script = Script(Path("copy.py"), ("--size", "a b"), ours=False)
    orders = Orders(Lab((), (), (Guest("g", "linux", ()),)), script, "g", **more)
    assert run_report.run_with_report(orders, Silent(), folder) is result
    found: dict[str, Any] = json.loads((folder / "report.json").read_text())
    return found


def test_a_script_that_went_well(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What it printed is on the page if it is a copy of ours; the user's own folder gets the logs as well."""
    result = RunResult(0, finished=True, stdout=json.dumps(PRINTED), guest="debian")
    found = report_of(result, tmp_path / "r", monkeypatch, copy_to=tmp_path / "own")
    assert found["ok"] is True
    assert [way["name"] for way in found["ways"]] == ["by token"]
    assert [digest["sha256"] for digest in found["digests"]] == ["aa", "aa"]
    assert found["suites"][0]["name"] == "debian"
    assert found["suites"][0]["properties"]["arguments"] == "--size 'a b'"
    assert (tmp_path / "own" / "serve.log").read_text() == "a line\n"


@pytest.mark.parametrize("printed", ["", "no JSON", "[1, 2]", json.dumps({"sha256": [1], "token_copy": 5})])
def test_output_that_is_no_copy_of_ours(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, printed: str
) -> None:
    """Any output is fine."""
    found = report_of(RunResult(0, finished=True, stdout=printed), tmp_path, monkeypatch)
    assert found["ok"] is True
    assert found["ways"] == found["digests"] == []


def test_a_script_that_failed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Its exit code and what it said last."""
    result = RunResult(3, finished=True, stderr="first\nlast words\n")
    found = report_of(result, tmp_path, monkeypatch)
    (case,) = found["suites"][0]["cases"]
    assert (case["outcome"], case["message"]) == ("failed", "exit code 3")
    assert "last words" in case["details"]


def test_a_run_that_did_not_get_that_far(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An error and no failure of the script, with cause and cure."""
    result = RunResult(125, error="the guest is gone", cure="see its log", details="panic")
    found = report_of(result, tmp_path, monkeypatch)
    (case,) = found["suites"][0]["cases"]
    assert (case["outcome"], case["details"]) == ("error", "panic")
    assert found["verdict"] == "The guest is gone; see its log."
