"""What a QEMU can do, asked of the real ones: the installed one and, where it is there, a newer one."""

from __future__ import annotations

import re
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from qemu_odx.lab import abilities as module
from qemu_odx.lab.abilities import PROGRAM, Abilities, abilities, probe
from qemu_odx.lab.errors import LabError
from qemu_odx.lab.qemu_release import ensure_newer_qemu

if TYPE_CHECKING:
    from pathlib import Path


def version_of(program: str) -> tuple[int, ...]:
    """As `--version` says it."""
    words = subprocess.run([program, "--version"], capture_output=True, text=True, check=True).stdout
    return tuple(int(number) for number in re.search(r"version (\d+)\.(\d+)\.(\d+)", words).groups())


def check(program: str) -> None:
    """Compare what was found by trying with what is known: 7.2 cannot connect vhost-user-scsi again, 10.0 can."""
    found, version = probe(program), version_of(program)
    assert found.version == ".".join(map(str, version))
    assert found.blk
    assert found.scsi
    assert found.png
    if version < (8, 0) or version >= (10, 0):
        assert found.scsi_reconnects == found.reconnect_ms == (version >= (10, 0))


def test_installed_qemu() -> None:
    """Each ability as its version has it."""
    check(shutil.which(PROGRAM) or PROGRAM)


def test_newer_qemu() -> None:
    """The same question has the other answer there."""
    folder = ensure_newer_qemu()
    if folder is None:
        pytest.skip("no newer Debian release than this host's is known")
    check(str(folder / PROGRAM))


@pytest.fixture
def counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, list[str]]:
    """A program on PATH whose probing is counted, and a cache of its own."""
    asked: list[str] = []

    def count(program: str) -> Abilities:
        asked.append(program)
        return Abilities("1.2.3", blk=True, scsi=True, scsi_reconnects=False, png=True, reconnect_ms=False)

    program = tmp_path / "qemu-of-test"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(module, "probe", count)
    monkeypatch.setattr(module, "images_folder", lambda: tmp_path / "cache" / "images")
    return program, asked


def test_asked_once_for_each_program(counted: tuple[Path, list[str]]) -> None:
    """Remembered until the file is another one."""
    program, asked = counted
    assert abilities(program.name) == abilities(program.name)
    assert len(asked) == 1
    program.write_text("#!/bin/sh\n# another\n")
    abilities(program.name)
    assert len(asked) == 2


@pytest.mark.parametrize("content", ["", "{", '{"another": {}}'])
def test_damaged_cache_is_made_again(counted: tuple[Path, list[str]], tmp_path: Path, content: str) -> None:
    """It is only a cache."""
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "abilities.json").write_text(content)
    assert abilities(counted[0].name).version == "1.2.3"
    assert abilities(counted[0].name).version == "1.2.3"
    assert len(counted[1]) == 1


def test_program_that_does_not_start_is_quoted(tmp_path: Path) -> None:
    """Its last words are the reason."""
    program = tmp_path / "broken"
    program.write_text("#!/bin/sh\necho no such machine >&2\nexit 1\n")
    program.chmod(0o755)
    with pytest.raises(LabError, match="QEMU does not start: no such machine"):
        probe(str(program))


def test_missing_program_names_the_cure() -> None:
    """As everywhere."""
    with pytest.raises(LabError, match=r"not on PATH.*\./odx setup"):
        abilities("qemu-system-nowhere")
