from __future__ import annotations

import errno
import os
import tempfile
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qemu_odx.disk.side import ALIGNMENT, SideFile

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def side(tmp_path: Path) -> Iterator[SideFile]:
    """One in the test's folder."""
    side = SideFile(tmp_path)
    yield side
    side.close()


def test_it_has_no_name(side: SideFile, tmp_path: Path) -> None:
    """Nothing of it can outlive the process; it is on the image's file system."""
    file = side.file()
    assert not list(tmp_path.iterdir())
    assert os.fstat(file.fd).st_nlink == 0
    assert os.fstat(file.fd).st_dev == tmp_path.stat().st_dev


def test_it_is_created_on_first_need(tmp_path: Path) -> None:
    """And once."""
    side = SideFile(tmp_path / "not yet")
    (tmp_path / "not yet").mkdir()
    assert side.file() is side.file()
    side.close()


@pytest.mark.parametrize("refused", [1, 2])
def test_other_places_are_tried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refused: int) -> None:
    """A named file that loses its name, then the folder of temporary files."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.setattr(tempfile, "gettempdir", lambda: str(elsewhere))
    image_folder = tmp_path / "images"
    image_folder.mkdir()
    real = os.open

    def refuse(path: str, flags: int, *rest: int, **more: int) -> int:
        if flags & os.O_TMPFILE == os.O_TMPFILE or (refused == 2 and "images" in str(path)):
            raise OSError(errno.EOPNOTSUPP, "not supported")
        return real(path, flags, *rest, **more)

    monkeypatch.setattr(os, "open", refuse)
    side = SideFile(image_folder)
    assert os.fstat(side.file().fd).st_nlink == 0
    assert os.pwrite(side.file().fd, b"x", 0) == 1
    assert not [*image_folder.iterdir(), *elsewhere.iterdir()]
    side.close()


def runs(side: SideFile) -> int:
    """Runs of 64 KiB that it takes; the file system may need a block or two more for its own purposes."""
    return os.fstat(side.file().fd).st_blocks // 128


def test_space_is_given_back_to_the_file_system(side: SideFile) -> None:
    """Each part when it is freed, and the length with the last."""
    places = [side.allocate(65536, 0) for _ in range(4)]
    for where in places:
        os.pwrite(side.file().fd, b"x" * 65536, where)
    assert runs(side) == 4
    side.free([(places[1], places[1] + 65536)])
    assert runs(side) == 3
    side.free([(where, where + 65536) for where in (places[0], *places[2:])])
    assert (side.used, os.fstat(side.file().fd).st_size) == (0, 0)


def test_space_is_used_again(side: SideFile) -> None:
    """The file does not grow for ever."""
    first = side.allocate(65536, 0)
    side.allocate(65536, 0)
    side.free([(first, first + 65536)])
    assert side.allocate(65536, 0) == first


@given(st.lists(st.tuples(st.integers(1, 30), st.integers(0, 9), st.booleans()), max_size=60))
def test_no_byte_is_given_out_twice(requests: list[tuple[int, int, bool]]) -> None:
    """And each run begins in step with what it is like."""
    side = SideFile(None)
    used: list[tuple[int, int]] = []
    for blocks, like, give_back in requests:
        if give_back and used:
            side.free([used.pop(like % len(used))])
            continue
        where = side.allocate(blocks * 512, like * 512)
        assert (where - like * 512) % ALIGNMENT == 0
        end = where + blocks * 512
        assert all(end <= first or last <= where for first, last in used)
        used.append((where, end))
        assert side.used == sum(last - first for first, last in used)
    side.close()


def test_a_hole_of_it_reads_as_zeroes(side: SideFile) -> None:
    """Also at its end: old data that was a hole is kept as one."""
    where = side.allocate(4096, 0)
    into = bytearray(b"x" * 4096)
    side.file().read(where, [memoryview(into)], 4096)
    assert into == bytes(4096)
