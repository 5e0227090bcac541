from __future__ import annotations

import contextlib
import ctypes
import errno
import mmap
import os
from typing import TYPE_CHECKING

import pytest

from qemu_odx.disk import hostfile
from qemu_odx.disk.file import open_disk
from qemu_odx.disk.memory import memory_disk
from qemu_odx.disk.port import Extent

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from qemu_odx.disk.file import FileDisk

SIZE = 1 << 20


def contents(disk: FileDisk, offset: int = 0, length: int = SIZE) -> bytes:
    """What the disk reads."""
    data = bytearray(b"\xee" * length)
    disk.read(offset, [memoryview(data)])
    return bytes(data)


def test_buffers_are_written_and_read_in_order(disk: FileDisk) -> None:
    """Whatever their lengths."""
    disk.write(512, [b"ab", memoryview(b"cdef"), b"", b"g" * 506])
    first, rest = bytearray(3), bytearray(509)
    disk.read(512, [memoryview(first), memoryview(rest)])
    assert first + rest == b"abcdef" + b"g" * 506


def test_more_buffers_than_one_call_takes(disk: FileDisk) -> None:
    """3000 buffers of 7 bytes, both ways."""
    data = os.urandom(21000)
    disk.write(0, [data[i : i + 7] for i in range(0, 21000, 7)])
    assert contents(disk, 0, 21000) == data
    into = bytearray(21000)
    disk.read(0, [memoryview(into)[i : i + 7] for i in range(0, 21000, 7)])
    assert into == data


def test_short_writes_and_reads_are_continued(disk: FileDisk, monkeypatch: pytest.MonkeyPatch) -> None:
    """A host that moves at most 5 bytes at a time."""
    pwritev, preadv = os.pwritev, os.preadv
    monkeypatch.setattr(hostfile.os, "pwritev", lambda fd, data, at: pwritev(fd, [bytes(data[0])[:5]], at))
    monkeypatch.setattr(hostfile.os, "preadv", lambda fd, into, at: preadv(fd, [into[0][:5]], at))
    disk.write(0, [b"0123456789", b"abcdefgh"])
    first, second = bytearray(7), bytearray(11)
    disk.read(0, [memoryview(first), memoryview(second)])
    assert first + second == b"0123456789abcdefgh"


def test_a_shrunk_image_is_an_error_and_no_hang(disk: FileDisk, tmp_path: Path) -> None:
    """Somebody truncated the file under us."""
    os.truncate(tmp_path / "disk.img", 4096)
    with pytest.raises(OSError, match="shorter") as raised:
        contents(disk)
    assert raised.value.errno == errno.EIO
    assert not disk.try_read(0, [memoryview(bytearray(8192))])


@contextlib.contextmanager
def kept_in_memory(path: Path) -> Iterator[None]:
    """The kernel may not take the file's first page out of its page cache."""
    with path.open("r+b") as file, mmap.mmap(file.fileno(), 4096) as pages:
        page = (ctypes.c_char * 4096).from_buffer(pages)
        ctypes.CDLL(None).mlock(page, 4096)
        yield
        del page


def test_try_read_reads_what_is_cached(disk: FileDisk, tmp_path: Path) -> None:
    """Data just written is in the page cache."""
    with kept_in_memory(tmp_path / "disk.img"):
        disk.write(0, [b"x" * 4096])
        into = bytearray(4096)
        assert disk.try_read(0, [memoryview(into)])
    assert into == b"x" * 4096


def test_try_read_declines_instead_of_waiting(disk: FileDisk, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel says that it would wait."""

    def preadv(*_: object) -> int:
        raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    monkeypatch.setattr(hostfile.os, "preadv", preadv)
    assert not disk.try_read(0, [memoryview(bytearray(512))])


@pytest.mark.parametrize("batch", [True, False])
def test_reads_are_inline_where_the_kernel_cannot_tell(
    disk: FileDisk, monkeypatch: pytest.MonkeyPatch, *, batch: bool
) -> None:
    """The refusal is remembered and not asked for again."""
    into = [memoryview(bytearray(512))]
    flags: list[tuple[object, ...]] = []
    preadv = os.preadv

    def refusing(fd: int, into: list[memoryview], at: int, *flag: int) -> int:
        flags.append(flag)
        if any(flag):
            raise OSError(errno.EOPNOTSUPP, "not supported")
        return preadv(fd, into, at)

    monkeypatch.setattr(hostfile.os, "preadv", refusing)
    for _ in range(2):
        assert not disk.try_batch([(False, 0, 512, into)]) if batch else disk.try_read(0, into)
    assert flags == [(os.RWF_NOWAIT,), (0,), (0,)] if batch else [(os.RWF_NOWAIT,), (), ()]


@pytest.mark.parametrize(("offset", "length"), [(-512, 512), (SIZE, 512), (SIZE - 512, 1024)])
def test_nothing_outside_of_the_disk_is_touched(disk: FileDisk, offset: int, length: int) -> None:
    """Every operation checks its range; the file does not grow."""
    data = bytearray(length)
    for operation in (
        lambda: disk.write(offset, [data]),
        lambda: disk.read(offset, [memoryview(data)]),
        lambda: disk.try_read(offset, [memoryview(data)]),
        lambda: disk.discard(offset, length),
        lambda: disk.write_zeroes(offset, length, unmap=False),
        lambda: disk.allocated(offset, length),
        lambda: disk.snapshot([Extent(offset, length)]),
    ):
        with pytest.raises(OSError, match="outside") as raised:
            operation()
        assert raised.value.errno == errno.EINVAL
    assert os.fstat(disk._file.fd).st_size == SIZE


def test_discard_gives_space_back_and_reads_as_zeroes(disk: FileDisk) -> None:
    """The neighbours stay."""
    disk.write(0, [b"x" * SIZE])
    disk.discard(65536, 65536)
    assert contents(disk) == b"x" * 65536 + bytes(65536) + b"x" * (SIZE - 131072)
    assert disk.allocated(0, 196608) == [
        (Extent(0, 65536), True),
        (Extent(65536, 65536), False),
        (Extent(131072, 65536), True),
    ]


def test_write_zeroes_keeps_the_space_unless_it_may_unmap(disk: FileDisk) -> None:
    """The same zeroes, with and without blocks behind them."""
    disk.write(0, [b"x" * SIZE])
    disk.flush()
    before = os.fstat(disk._file.fd).st_blocks
    disk.write_zeroes(0, 65536, unmap=False)
    assert os.fstat(disk._file.fd).st_blocks >= before
    disk.write_zeroes(65536, 65536, unmap=True)
    assert os.fstat(disk._file.fd).st_blocks < before
    assert contents(disk, 0, 131072) == bytes(131072)


def test_zeroes_are_written_where_the_file_system_has_no_other_way(
    disk: FileDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More than one buffer of them."""

    def fallocate(*_: object) -> None:
        raise OSError(errno.EOPNOTSUPP, "not supported")

    monkeypatch.setattr(hostfile.linux, "fallocate", fallocate)
    monkeypatch.setattr(hostfile, "_ZEROES", bytes(1000))
    disk.write(0, [b"x" * SIZE])
    disk.discard(512, 4096)
    disk.write_zeroes(8192, 512, unmap=False)
    expected = bytearray(b"x" * SIZE)
    expected[512:4608] = bytes(4096)
    expected[8192:8704] = bytes(512)
    assert contents(disk) == expected


def test_a_readonly_disk_refuses_every_write(disk: FileDisk) -> None:
    """And can be made writable again, as it was opened so."""
    disk.readonly = True
    for operation in (
        lambda: disk.write(0, [b"x"]),
        lambda: disk.discard(0, 512),
        lambda: disk.write_zeroes(0, 512, unmap=True),
    ):
        with pytest.raises(OSError, match="read-only") as raised:
            operation()
        assert raised.value.errno == errno.EROFS
    disk.readonly = False
    disk.write(0, [b"x"])
    assert contents(disk, 0, 1) == b"x"


def test_what_was_opened_readonly_stays_so(tmp_path: Path) -> None:
    """No mode page makes it writable."""
    path = tmp_path / "a.img"
    path.write_bytes(bytes(512))
    disk = open_disk("d", path, readonly=True)
    disk.readonly = False
    assert disk.readonly
    disk.close()


def test_a_closed_disk_reaches_no_other_file(tmp_path: Path) -> None:
    """Its descriptor number may belong to somebody else by now."""
    disk = memory_disk("m", SIZE)
    disk.close()
    with (tmp_path / "other").open("w+b") as other:
        with pytest.raises(OSError, match="Bad file descriptor"):
            disk.write(0, [b"x"])
        assert os.fstat(other.fileno()).st_size == 0
    disk.close()


def test_a_memory_disk_is_a_disk() -> None:
    """With its block size and a serial number of its own."""
    disk = memory_disk("m", SIZE, 4096)
    disk.write(4096, [b"x" * 4096])
    assert contents(disk, 0, 12288) == bytes(4096) + b"x" * 4096 + bytes(4096)
    assert (disk.name, disk.size, disk.block_size, disk.readonly) == ("m", SIZE, 4096, False)
    assert 0 < len(disk.serial) <= 20
    disk.close()
