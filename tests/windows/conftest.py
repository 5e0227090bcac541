"""The driver's core, compiled natively with AddressSanitizer and UBSan."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from core import Core

if TYPE_CHECKING:
    from collections.abc import Iterator

HERE = Path(__file__).parent
DRIVER = HERE.parents[1] / "guest_scripts" / "windows" / "driver"
SANITIZERS = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
FLAGS = ["-std=gnu11", "-g", "-O1", "-Wall", "-Wextra", "-Werror", *SANITIZERS]


def compiled(folder: Path, source: str, *flags: str) -> Path:
    """A program made of the core and a file of this folder."""
    program = folder / Path(source).stem
    core = sorted(str(path) for path in DRIVER.glob("odx_*.c"))
    subprocess.run(["gcc", *FLAGS, *flags, f"-I{DRIVER}", *core, HERE / source, "-o", program], check=True)
    return program


@pytest.fixture(scope="session")
def talk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The core as a program to talk to."""
    return compiled(tmp_path_factory.mktemp("talk"), "core_talk.c")


@pytest.fixture
def core(talk: Path) -> Iterator[Core]:
    """A running core; a finding of a sanitizer ends it and fails the test."""
    with Core(talk) as running:
        yield running
