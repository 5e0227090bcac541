"""The conformance kit as a user of another system runs it: one file, a bare python3, disk nodes."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from client_guest import FOLDER

from qemu_odx.testing.conformance.kit import write_kit

if TYPE_CHECKING:
    from pathlib import Path

    from client_guest import ClientGuest

LEAST_PASSED = 100
REASONS = {
    "needs a second I_T nexus",  # one guest is one initiator
    "needs a way to lose the I_T nexus",
    "needs copies that can be held in the background",  # a real one is over when it is
    "needs a switch for write protection",
    "MAXIMUM TOKEN TRANSFER SIZE is not told or larger than the disk",
    "would wait for 45 s",
}

pytestmark = pytest.mark.timeout(900)


@pytest.fixture(scope="module")
def report(clients: ClientGuest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the kit says of three of our disks when it may destroy their data."""
    folder: Path = tmp_path_factory.mktemp("kit")
    write_kit(folder / "odx-conform.pyz")
    clients.guest.shell.upload(folder, f"{FOLDER}/kit")
    first, *others = (unit.node for unit in clients.kit)
    seconds = " ".join(f"--second {node}" for node in others)
    command = f"python3 kit/odx-conform.pyz {first} {seconds} --destroy-data --json --patience 10"
    done = clients.complete(command, seconds=600)
    assert done.stdout, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    found["exit status"] = done.status
    return found


def test_nothing_fails(report: dict[str, Any]) -> None:
    """Every check passes or is skipped, with a reason."""
    failed = {check["id"]: check["why"] for check in report["checks"] if check["verdict"] == "fail"}
    assert failed == {}
    assert report["exit status"] == 0
    assert report["failed"] == 0
    assert report["passed"] >= LEAST_PASSED


def test_skipped_for_known_reasons(report: dict[str, Any]) -> None:
    """What one initiator on small disks cannot check; in-process tests do."""
    skipped = {check["id"]: check["why"] for check in report["checks"] if check["verdict"] == "skip"}
    assert set(skipped.values()) <= REASONS, skipped


def test_each_check_shows_what_crossed_the_wire(report: dict[str, Any]) -> None:
    """Clause, bytes sent, answer, expected."""
    for check in report["checks"]:
        assert check["clause"]
        if check["verdict"] == "pass":
            assert check["steps"], check["id"]
            assert all(step["sent"] and step["answer"] for step in check["steps"])
