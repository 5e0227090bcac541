"""Fixtures that tests at several levels share."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from collections.abc import Iterator

# A loaded machine is no failure, and a test run writes nothing into the source tree.
settings.register_profile("qemu_odx", deadline=None, database=None)
settings.load_profile("qemu_odx")


@contextlib.contextmanager
def mounted(*options: str | Path) -> Iterator[Path]:
    """A folder on a file system that `mount OPTIONS FOLDER` makes; skipped where that is not possible.

    The mount is taken out of the tree at once and lives on only behind a descriptor of this process, so that not
    even a killed test run leaves one behind.
    """
    if os.geteuid() != 0:
        pytest.skip("mounting a file system needs root")
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(["mount", *options, folder], check=False, capture_output=True, text=True)
        if done.returncode != 0:
            pytest.skip(f"cannot mount here: {done.stderr.strip()}")
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        subprocess.run(["umount", "--lazy", folder], check=True)
    try:
        yield Path(f"/proc/{os.getpid()}/fd/{descriptor}")
    finally:
        os.close(descriptor)


@pytest.fixture(scope="session")
def xfs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder on a small XFS with reflink, for the session."""
    if shutil.which("mkfs.xfs") is None:
        pytest.skip("mkfs.xfs is not installed (package xfsprogs)")
    image = tmp_path_factory.mktemp("xfs") / "xfs.img"
    with image.open("wb") as file:
        file.truncate(512 << 20)
    subprocess.run(["mkfs.xfs", "-q", "-m", "reflink=1", image], check=True)
    with mounted("-o", "loop", image) as folder:
        yield folder


@pytest.fixture
def tiny() -> Iterator[Path]:
    """A folder on a file system of 2 MiB, soon full."""
    with mounted("-t", "tmpfs", "-o", "size=2m", "none") as folder:
        yield folder
