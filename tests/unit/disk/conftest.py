"""Small disks for the tests of this folder."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from qemu_odx.disk.file import FileDisk, open_disk

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

SIZE = 1 << 20


@pytest.fixture
def make_disk(tmp_path: Path) -> Iterator[Callable[[str], FileDisk]]:
    """Makes named copy-before-write disks of 1 MiB; closes them at the end."""
    made: list[FileDisk] = []

    def make(name: str) -> FileDisk:
        path = tmp_path / f"{name}.img"
        made.append(open_disk(name, path, size=SIZE, snapshots="copy-before-write"))
        return made[-1]

    yield make
    for disk in made:
        disk.close()


@pytest.fixture
def disk(make_disk: Callable[[str], FileDisk]) -> FileDisk:
    """One of them."""
    return make_disk("disk")
