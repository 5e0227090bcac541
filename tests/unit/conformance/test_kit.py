"""The single-file kit: whole, free of dependencies, the same bytes each time."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from typing import TYPE_CHECKING

import pytest

from qemu_odx.testing.conformance.checks import all_checks
from qemu_odx.testing.conformance.kit import kit_bytes, write_kit

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def kit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The kit as a file."""
    path = tmp_path_factory.mktemp("kit") / "odx-conform.pyz"
    write_kit(path)
    return path


def _run(kit: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run it with nothing but the standard library: isolated, no site packages."""
    command = [sys.executable, "-I", "-S", str(kit), *arguments]
    return subprocess.run(command, check=False, capture_output=True, text=True, cwd=kit.parent)


def test_it_lists_every_check(kit: Path) -> None:
    """All modules are there: it finds all checks without anything installed."""
    done = _run(kit, "--list")
    assert done.returncode == 0, done.stderr
    assert [line.split()[0] for line in done.stdout.splitlines()] == [check.id for check in all_checks()]


def test_it_explains_itself(kit: Path) -> None:
    """--help names the options of the manual."""
    done = _run(kit, "--help")
    assert done.returncode == 0
    for option in ("--second", "--destroy-data", "--json", "--junit", "--only", "--patience"):
        assert option in done.stdout


def test_it_tells_what_is_wrong_with_a_node(kit: Path) -> None:
    """A file that is no SCSI disk is refused with a sentence, not a traceback."""
    plain = kit.parent / "plain"
    plain.touch()
    done = _run(kit, str(plain))
    assert done.returncode == 2
    assert "is it a SCSI disk, and are you root?" in done.stderr
    assert "Traceback" not in done.stderr


def test_it_is_stored_and_runs_by_itself(kit: Path) -> None:
    """Nothing in it is compressed; it starts with an interpreter line and may be run."""
    assert kit.read_bytes().startswith(b"#!/usr/bin/env python3\n")
    assert kit.stat().st_mode & 0o111
    with zipfile.ZipFile(kit) as archive:
        assert {item.compress_type for item in archive.infolist()} == {zipfile.ZIP_STORED}


def test_the_same_bytes_each_time() -> None:
    """The same sources make the same file."""
    assert kit_bytes() == kit_bytes()
