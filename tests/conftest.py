"""Fixtures that tests at several levels share."""

from __future__ import annotations

import os
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

# A loaded machine is no failure, and a test run writes nothing into the source tree.
settings.register_profile("qemu_odx", deadline=None, database=None)
settings.load_profile("qemu_odx")


@pytest.fixture(scope="session")
def xfs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder on a small XFS with reflink, mounted for the session; skipped where that is not possible."""
    if os.geteuid() != 0:
        pytest.skip("mounting a file system needs root")
    if shutil.which("mkfs.xfs") is None:
        pytest.skip("mkfs.xfs is not installed (package xfsprogs)")
    base = tmp_path_factory.mktemp("xfs")
    image, folder = base / "xfs.img", base / "mounted"
    folder.mkdir()
    with image.open("wb") as file:
        file.truncate(512 << 20)
    subprocess.run(["mkfs.xfs", "-q", "-m", "reflink=1", image], check=True)
    mount = subprocess.run(
        ["mount", "-o", "loop", image, folder], check=False, capture_output=True, text=True
    )
    if mount.returncode != 0:
        pytest.skip(f"no loop mount here: {mount.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)
