"""`qemu-odx demo --report`: what is written when the demonstration goes well, fails, or cannot write."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from click.testing import CliRunner, Result
from junitparser import JUnitXml

from qemu_odx.cli import demo as command
from qemu_odx.lab.demo import Cost, DemoResult
from qemu_odx.lab.errors import LabError
from qemu_odx.lab.phases import Observer, Phases

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

GOOD = DemoResult(
    guest="debian test, kernel 6.1",
    accelerator="tcg",
    sha256={"source_before": "a", "source_after": "b", "destination": "a", "destination_through_blk": "a"},
    token_copy=Cost(64, 0.01, 1200),
    plain_copy=Cost(64, 0.2, 128),
    phases={"boot": 2.5},
    samples={"token_copy": [("POPULATE TOKEN", 64, 0.002)], "plain_copy": []},
)


def run(monkeypatch: pytest.MonkeyPatch, folder: Path, error: LabError | None = None) -> Result:
    """The command, with a demonstration that boots nothing."""

    def demonstration(observer: Observer, *, logs: Path) -> DemoResult:
        phases = Phases(observer)
        with phases.phase("serve"):
            logs.mkdir(parents=True, exist_ok=True)
            (logs / "serve.log").write_text("a line\n")
        with phases.phase("boot"):
            if error is not None:
                raise error
        return GOOD

    monkeypatch.setattr(command, "run_demo", demonstration)
    return CliRunner().invoke(command.demo, ["--json", "--report", str(folder)])


def test_a_run_that_went_well(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Three checks by name, and both ways."""
    assert run(monkeypatch, tmp_path).exit_code == 0
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["ok"] is True
    assert [case["outcome"] for case in report["suites"][0]["cases"]] == ["passed"] * 3
    assert [way["ring_bytes"] for way in report["ways"]] == [1200, 128]
    assert report["environment"]["QEMU"]
    assert report["logs"] == [{"name": "serve.log", "text": "a line\n"}]


def test_a_run_that_failed_has_its_report_too(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The reason in all three files, the phase that did not end as failed, the logs so far."""
    error = LabError("the guest <did> not come up", "see its log", details="last words")
    assert run(monkeypatch, tmp_path, error).exit_code == 1
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["ok"] is False
    assert [(span["name"], span["failed"]) for span in report["spans"]] == [("serve", False), ("boot", True)]
    (suite,) = JUnitXml.fromfile(str(tmp_path / "junit.xml"))
    assert suite.failures == 1
    page = (tmp_path / "index.html").read_text()
    assert "The guest &lt;did&gt; not come up." in page
    assert "last words" in page
    assert "a line" in page


def test_a_report_that_cannot_be_written(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """One sentence with the cure, exit code 1."""
    (tmp_path / "index.html").mkdir()
    done = run(monkeypatch, tmp_path)
    assert done.exit_code == 1
    assert "give --report another folder" in done.output
