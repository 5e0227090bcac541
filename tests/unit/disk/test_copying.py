from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING, Any

import pytest

from qemu_odx.disk import copying, linux
from qemu_odx.disk.copying import Copier
from qemu_odx.disk.hostfile import HostFile
from qemu_odx.disk.port import CopyMethod

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

SIZE = 3 << 20


def open_file(folder: Path, name: str, data: bytes) -> HostFile:
    """A file of `SIZE` that begins with the data."""
    path = folder / name
    path.write_bytes(data)
    os.truncate(path, SIZE)
    return HostFile(os.open(path, os.O_RDWR))


def contents(file: HostFile) -> bytes:
    """All of it."""
    return os.pread(file.fd, SIZE, 0)


@pytest.fixture
def files(tmp_path: Path) -> Iterator[tuple[HostFile, HostFile]]:
    """A source of random bytes and a destination of "d"."""
    pair = open_file(tmp_path, "source", os.urandom(SIZE)), open_file(tmp_path, "destination", b"d" * SIZE)
    yield pair
    for file in pair:
        file.close()


@pytest.fixture
def files_on_xfs(xfs: Path) -> Iterator[tuple[HostFile, HostFile]]:
    """The same where blocks can be shared."""
    pair = open_file(xfs, "source", os.urandom(SIZE)), open_file(xfs, "destination", b"d" * SIZE)
    yield pair
    for file in pair:
        file.close()
    for name in ("source", "destination"):
        (xfs / name).unlink()


def refusing(number: int, calls: list[int]) -> Callable[..., Any]:
    """A call that fails, and counts."""

    def refuse(*_: object) -> None:
        calls.append(number)
        raise OSError(number, os.strerror(number))

    return refuse


def check(files: tuple[HostFile, HostFile], offset: int, to: int, length: int) -> CopyMethod:
    """Copy, compare the whole destination, return the method."""
    source, destination = files
    expected = bytearray(contents(destination))
    expected[to : to + length] = contents(source)[offset : offset + length]
    method = Copier(destination).copy(source, offset, to, length)
    assert contents(destination) == expected
    return method


@pytest.mark.parametrize(("offset", "to"), [(0, 0), (512, 512 + 4096), (8192 + 1024, 1024)])
def test_blocks_are_shared_where_they_can_be(
    files_on_xfs: tuple[HostFile, HostFile], offset: int, to: int
) -> None:
    """Head and tail of a range in step with the blocks are copied, the whole blocks are not."""
    assert check(files_on_xfs, offset, to, (1 << 20) + 1536) is CopyMethod.REFLINK


def test_ranges_out_of_step_are_copied_on_xfs_too(files_on_xfs: tuple[HostFile, HostFile]) -> None:
    """Blocks cannot be shared at another place in the block."""
    assert check(files_on_xfs, 0, 512, 1 << 20) is CopyMethod.COPY_FILE_RANGE


def test_the_kernel_copies_on_other_file_systems(
    files: tuple[HostFile, HostFile], monkeypatch: pytest.MonkeyPatch
) -> None:
    """And sharing is asked for once only."""
    calls: list[int] = []
    monkeypatch.setattr(linux, "clone_range", refusing(errno.EOPNOTSUPP, calls))
    source, destination = files
    copier = Copier(destination)
    for _ in range(3):
        assert copier.copy(source, 0, 0, SIZE) is CopyMethod.COPY_FILE_RANGE
    assert contents(destination) == contents(source)
    assert len(calls) == 1


@pytest.mark.parametrize("number", [errno.EXDEV, errno.EINVAL, errno.EOPNOTSUPP])
def test_memory_is_the_last_way(
    files: tuple[HostFile, HostFile], monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """More than one buffer of it, and refusals are remembered."""
    calls: list[int] = []
    monkeypatch.setattr(linux, "clone_range", refusing(number, calls))
    monkeypatch.setattr(os, "copy_file_range", refusing(number, calls))
    source, destination = files
    copier = Copier(destination)
    for _ in range(2):
        assert copier.copy(source, 512, 0, (2 << 20) + 512) is CopyMethod.READ_WRITE
        assert copier.copy(source, 0, 0, SIZE) is CopyMethod.READ_WRITE
    assert contents(destination) == contents(source)
    assert len(calls) == 2


def test_short_kernel_copies_are_continued(
    files: tuple[HostFile, HostFile], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As many calls as it takes."""
    real = os.copy_file_range
    monkeypatch.setattr(
        os, "copy_file_range", lambda s, d, count, *offsets: real(s, d, min(count, 70000), *offsets)
    )
    assert check(files, 512, 0, 1 << 20) is CopyMethod.COPY_FILE_RANGE


def test_a_kernel_copy_refused_half_way_is_finished_in_memory(
    files: tuple[HostFile, HostFile], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is lost in between."""
    real, calls = os.copy_file_range, []

    def half(source: int, destination: int, count: int, *offsets: int) -> int:
        if calls:
            raise OSError(errno.EOPNOTSUPP, "no more")
        calls.append(count)
        return real(source, destination, 100_000, *offsets)

    monkeypatch.setattr(os, "copy_file_range", half)
    assert check(files, 512, 0, 1 << 20) is CopyMethod.READ_WRITE


@pytest.mark.parametrize("call", ["clone_range", "copy_file_range"])
def test_a_real_failure_is_told(
    files: tuple[HostFile, HostFile], monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    """A full or broken host is no reason to try another way."""
    monkeypatch.setattr(linux if call == "clone_range" else os, call, refusing(errno.ENOSPC, []))
    source, destination = files
    with pytest.raises(OSError, match="No space"):
        Copier(destination).copy(source, 0, 0, SIZE)


def test_holes_are_copied_as_holes(tmp_path: Path) -> None:
    """Where the source has no blocks the destination needs none either."""
    source = open_file(tmp_path, "source", b"")
    destination = open_file(tmp_path, "destination", b"d" * SIZE)
    assert Copier(destination).copy(source, 512, 0, SIZE - 512) is CopyMethod.ZERO
    assert contents(destination) == bytes(SIZE - 512) + b"d" * 512
    assert os.fstat(destination.fd).st_blocks * 512 < 65536  # the tail, and what the file system itself needs
    for file in (source, destination):
        file.close()


def test_data_between_holes(tmp_path: Path) -> None:
    """The dearest method is told."""
    source = open_file(tmp_path, "source", b"")
    os.pwrite(source.fd, b"s" * 8192, 1 << 20)
    destination = open_file(tmp_path, "destination", b"d" * SIZE)
    assert check((source, destination), 512, 0, SIZE - 512) is not CopyMethod.ZERO
    for file in (source, destination):
        file.close()


def test_within_one_file(tmp_path: Path) -> None:
    """From one place to another, at any offset."""
    file = open_file(tmp_path, "file", os.urandom(SIZE))
    check((file, file), 0, (1 << 20) + 512, 1 << 20)
    file.close()


def test_a_short_source_is_an_error_and_no_hang(files: tuple[HostFile, HostFile]) -> None:
    """Somebody shrank the image."""
    source, destination = files
    os.ftruncate(source.fd, 100_000)
    with pytest.raises(OSError, match="shorter"):
        Copier(destination)._plain(source, 512, 0, 1 << 20, set())


def test_a_buffer_is_made_once_for_each_thread() -> None:
    """Not for each copy."""
    assert copying._buffer() is copying._buffer()
