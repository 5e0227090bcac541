"""The demo's verdict and what its command prints."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from qemu_odx.cli import demo as command
from qemu_odx.cli.main import main
from qemu_odx.lab.demo import Cost, DemoResult, logs_kept
from qemu_odx.lab.errors import LabError
from qemu_odx.lab.guest import Guest
from qemu_odx.lab.image import Image
from qemu_odx.lab.machines import qemu as guest_module
from qemu_odx.lab.qemu import GuestSpec
from qemu_odx.lab.ssh import GuestShell, Login

GOOD = DemoResult(
    guest="debian test, kernel 6.1",
    accelerator="tcg",
    sha256={"source_before": "a", "source_after": "b", "destination": "a", "destination_through_blk": "a"},
    token_copy=Cost(64, 0.01, 1200),
    plain_copy=Cost(64, 0.2, 128),
    phases={"boot": 2.5},
)


def with_hash(name: str, value: str) -> DemoResult:
    """The good result with one hash changed."""
    return replace(GOOD, sha256={**GOOD.sha256, name: value})


def test_old_data_on_both_ways_is_ok() -> None:
    """The one case that counts as proved."""
    assert GOOD.ok
    assert GOOD.point_in_time
    assert GOOD.as_json()["verified_bytes"] == 64


@pytest.mark.parametrize(
    ("result", "point_in_time"),
    [
        (with_hash("source_after", "a"), False),
        (with_hash("destination", "b"), False),
        (with_hash("destination_through_blk", "c"), True),
    ],
)
def test_anything_else_is_not(result: DemoResult, *, point_in_time: bool) -> None:
    """No overwrite, new data, or two devices that disagree: each is a failure with a reason."""
    assert not result.ok
    assert result.point_in_time is point_in_time
    assert result.as_json()["verified_bytes"] == 0
    assert result.failure


def test_json_is_the_only_output(monkeypatch: pytest.MonkeyPatch) -> None:
    """One object on stdout and nothing on stderr."""
    monkeypatch.setattr(command, "run_demo", lambda _: GOOD)
    result = CliRunner().invoke(command.demo, ["--json"])
    assert result.exit_code == 0
    assert json.loads(result.stdout) == GOOD.as_json()
    assert result.stderr == ""


def test_table_shows_both_ways_and_the_hashes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader sees costs, hashes and the verdict."""
    monkeypatch.setattr(command, "run_demo", lambda _: GOOD)
    result = CliRunner().invoke(command.demo, [])
    assert result.exit_code == 0
    for text in ("by token", "1,200", "by read and write", "destination by virtio-blk", "OK"):
        assert text in result.stdout


def fail(_: object) -> DemoResult:
    """Fail as a run does."""
    error = LabError("QEMU is not installed", "run ./odx setup", details="last line")
    error.logs = Path("/state/runs/1")
    raise error


def test_failure_names_cause_cure_and_logs(monkeypatch: pytest.MonkeyPatch) -> None:
    """One sentence, the last lines, the place of the logs, exit status 1."""
    monkeypatch.setattr(command, "run_demo", fail)
    result = CliRunner().invoke(main, ["demo"])
    assert result.exit_code == 1
    assert result.stdout == ""
    assert "last line\nqemu-odx demo: QEMU is not installed; run ./odx setup\n" in result.stderr
    assert "/state/runs/1" in result.stderr


def test_failure_is_an_object_for_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    """With --json stdout stays one object."""
    monkeypatch.setattr(command, "run_demo", fail)
    result = CliRunner().invoke(command.demo, ["--json"])
    assert result.exit_code == 1
    assert json.loads(result.stdout)["ok"] is False


def test_failed_run_keeps_its_logs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The folder goes, the logs stay, and the error says where."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    with pytest.raises(LabError) as caught, logs_kept() as folder:  # noqa: PT012 - the folder is part of it
        (folder / "serial.log").write_text("panic")
        raise LabError("it broke", "mend it")
    assert not folder.exists()
    assert caught.value.logs is not None
    assert (caught.value.logs / "serial.log").read_text() == "panic"


def test_missing_qemu_names_the_cure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without QEMU is told how to get it."""
    monkeypatch.setattr(guest_module, "PROGRAM", "qemu-system-nowhere")
    (tmp_path / "host_key.pub").write_text("ssh-ed25519 AAAA")
    with pytest.raises(LabError, match=r"QEMU is not installed.*\./odx setup"):
        Guest(GuestSpec(Image("test", tmp_path), "tcg"), tmp_path)


def test_closed_ssh_port_is_reported(tmp_path: Path) -> None:
    """Nobody listens on port 1: the error says so after the patience is over."""
    with pytest.raises(LabError, match="ssh server does not answer"):
        GuestShell(1, Login("root", tmp_path / "key", "ssh-ed25519 AAAA"), patience=0.1)
