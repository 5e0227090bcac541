from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from qemu_odx.disk.file import DiskError, open_disk
from qemu_odx.disk.port import Extent

if TYPE_CHECKING:
    from collections.abc import Iterator

SIZE = 1 << 20


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """An image of 1 MiB."""
    path = tmp_path / "a.img"
    path.write_bytes(bytes(SIZE))
    return path


def test_size_creates_a_missing_image_sparse(tmp_path: Path) -> None:
    """The file has its size and takes no space."""
    path = tmp_path / "new.img"
    open_disk("d", path, size=1 << 30).close()
    assert path.stat().st_size == 1 << 30
    assert path.stat().st_blocks == 0


def test_size_equal_to_the_existing_one_is_accepted(image: Path) -> None:
    """Starting a second time with the same options works."""
    disk = open_disk("d", image, size=SIZE)
    assert disk.size == SIZE
    disk.close()


@pytest.mark.parametrize(
    ("options", "cure"),
    [
        ({"size": 2 * SIZE}, "leave out size="),
        ({"block_size": 1024}, "use 512 or 4096"),
        ({"size": 1000}, "choose one that is"),
        ({"size": -512}, "choose one that is"),
        ({"serial": "x" * 21}, "use 1 to 20 printable ASCII"),
        ({"serial": ""}, "use 1 to 20 printable ASCII"),
        ({"serial": "ä"}, "use 1 to 20 printable ASCII"),
    ],
)
def test_wrong_options_are_refused_with_a_cure(image: Path, options: dict[str, object], cure: str) -> None:
    """And the image stays as it was."""
    with pytest.raises(DiskError, match=re.escape(cure)):
        open_disk("d", image, **options)  # type: ignore[arg-type]
    assert image.read_bytes() == bytes(SIZE)


def test_a_missing_image_is_refused(tmp_path: Path) -> None:
    """Without size= nothing is created."""
    with pytest.raises(DiskError, match="add size= to create it"):
        open_disk("d", tmp_path / "none.img")
    assert not list(tmp_path.iterdir())


def test_a_missing_image_cannot_be_created_readonly(tmp_path: Path) -> None:
    """An empty read-only disk is no use."""
    with pytest.raises(DiskError, match="leave out readonly=on once"):
        open_disk("d", tmp_path / "none.img", size=SIZE, readonly=True)
    assert not list(tmp_path.iterdir())


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    """The cure is to make the folder."""
    with pytest.raises(DiskError, match=r"make the folder .*nowhere first"):
        open_disk("d", tmp_path / "nowhere" / "a.img", size=SIZE)


def test_a_size_beyond_the_file_system_leaves_nothing_behind(tmp_path: Path) -> None:
    """The file that could not grow is removed."""
    with pytest.raises(DiskError, match="choose a smaller size="):
        open_disk("d", tmp_path / "a.img", size=(1 << 63) - 512)
    assert not list(tmp_path.iterdir())


def test_a_folder_is_refused(tmp_path: Path) -> None:
    """Its path may be one step short."""
    with pytest.raises(DiskError, match="is a folder"):
        open_disk("d", tmp_path)


def test_a_fifo_is_refused_without_waiting(tmp_path: Path) -> None:
    """Opening one for reading would hang."""
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(DiskError, match="no file and no block device"):
        open_disk("d", tmp_path / "fifo", readonly=True)


@pytest.mark.parametrize(("length", "cure"), [(0, "make it larger"), (700, "make it 324 bytes longer")])
def test_an_image_of_odd_size_is_refused(tmp_path: Path, length: int, cure: str) -> None:
    """Too small, or no multiple of the block size."""
    path = tmp_path / "a.img"
    path.write_bytes(bytes(length))
    with pytest.raises(DiskError, match=cure):
        open_disk("d", path)


def test_a_512_image_may_be_no_4096_image(tmp_path: Path) -> None:
    """Its size has to fit the block size."""
    path = tmp_path / "a.img"
    path.write_bytes(bytes(4096 + 512))
    with pytest.raises(DiskError, match="choose another block-size="):
        open_disk("d", path, block_size=4096)


def test_a_read_only_file_needs_readonly(image: Path) -> None:
    """Also for root, who could write to it."""
    image.chmod(0o444)
    with pytest.raises(DiskError, match="add readonly=on"):
        open_disk("d", image)
    disk = open_disk("d", image, readonly=True)
    assert disk.readonly
    disk.close()


def test_a_second_writer_is_refused(image: Path) -> None:
    """Also from within one process; the lock ends with the disk."""
    first = open_disk("d", image)
    with pytest.raises(DiskError, match="in use by another"):
        open_disk("e", image)
    with pytest.raises(DiskError, match="in use by another"):
        open_disk("e", image, readonly=True)
    first.close()
    open_disk("e", image).close()


def test_readers_share_an_image(image: Path) -> None:
    """But no writer may join them."""
    disks = [open_disk("d", image, readonly=True), open_disk("e", image, readonly=True)]
    with pytest.raises(DiskError, match="in use by another"):
        open_disk("f", image)
    for disk in disks:
        disk.close()


def test_another_process_is_refused(image: Path) -> None:
    """The lock is not advisory among our own threads only."""
    disk = open_disk("d", image)
    script = f"from qemu_odx.disk.file import open_disk; open_disk('e', {str(image)!r})"
    other = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": ":".join(sys.path)},
    )
    disk.close()
    assert other.returncode != 0
    assert "in use by another disk, server or QEMU" in other.stderr


def test_a_lock_is_left_by_a_refused_disk(tmp_path: Path) -> None:
    """An image that was refused can be opened by somebody else."""
    path = tmp_path / "a.img"
    path.write_bytes(bytes(4096 + 512))
    with pytest.raises(DiskError, match="choose another block-size="):
        open_disk("d", path, block_size=4096)
    open_disk("d", path).close()


def test_reflink_is_refused_where_the_file_system_lacks_it(image: Path) -> None:
    """Asked for by name it is not silently replaced, and nothing is left behind."""
    path = Path(f"/dev/shm/odx-test-{os.getpid()}.img")  # noqa: S108 - tmpfs has no reflink
    with pytest.raises(DiskError, match="use XFS or btrfs"):
        open_disk("d", path, size=SIZE, snapshots="reflink")
    assert not path.exists()
    open_disk("d", image, snapshots="auto").close()


def test_the_default_serial_is_stable_and_fits(image: Path) -> None:
    """Some guests know their disks by it."""
    serials = []
    for name in ("d0", "d0", "d1"):
        disk = open_disk(name, image)
        serials.append(disk.serial)
        disk.close()
    assert serials[0] == serials[1] != serials[2]
    assert all(len(serial) <= 20 and serial.isascii() for serial in serials)


@pytest.fixture
def loop_device(image: Path) -> Iterator[str]:
    """A block device on the image."""
    if os.geteuid() != 0:
        pytest.skip("attaching a loop device needs root")
    attached = subprocess.run(
        ["losetup", "--find", "--show", image], check=False, capture_output=True, text=True
    )
    if attached.returncode != 0:
        pytest.skip(f"no loop device here: {attached.stderr.strip()}")
    device = attached.stdout.strip()
    yield device
    subprocess.run(["losetup", "--detach", device], check=True)


def test_a_block_device_is_a_disk(loop_device: str) -> None:
    """With its own size; discard, zeroes and snapshots work."""
    disk = open_disk("d", loop_device)
    assert disk.size == SIZE
    disk.write(0, [b"a" * 8192])
    snapshot = disk.snapshot([Extent(0, 8192)])
    disk.discard(0, 512)
    disk.write_zeroes(512, 512, unmap=False)
    disk.write_zeroes(4096, 512, unmap=True)
    now = bytearray(8192)
    disk.read(0, [memoryview(now)])
    assert now == bytes(1024) + b"a" * 3072 + bytes(512) + b"a" * 3584
    old = bytearray(8192)
    snapshot.read(0, memoryview(old))
    assert old == b"a" * 8192
    assert disk.allocated(0, SIZE) == [(Extent(0, SIZE), True)]
    disk.close()
