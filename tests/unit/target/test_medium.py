"""Where blocks are, what blocks are like: GET LBA STATUS, PRE-FETCH, defects, 512e and 4K, space given back."""

from __future__ import annotations

import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from qemu_odx.disk.file import open_disk
from qemu_odx.disk.memory import memory_disk
from qemu_odx.disk.port import Extent
from qemu_odx.target.manager import CopyManager
from qemu_odx.target.port import Task
from qemu_odx.target.target import Target
from qemu_odx.testing.initiator import Answer, Initiator
from qemu_odx.testing.runner import InlineRunner
from qemu_odx.wire.scsi.fields import u16, u32, u64
from qemu_odx.wire.scsi.token_lists import Range

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from qemu_odx.disk.file import FileDisk
    from qemu_odx.target.port import Reply
    from qemu_odx.testing.conformance.reference import ReferenceTarget

MAPPED, DEALLOCATED = 0, 1


def on(disk: FileDisk) -> Initiator:
    """An initiator on a target with this disk alone."""
    runner = InlineRunner()
    target = Target.on({0: disk}, CopyManager(runner), runner)
    target.power_on_attention = False

    def carry(lun: int, cdb: bytes, data: bytes) -> Answer:
        room, replies = memoryview(bytearray(1 << 20)), list["Reply"]()
        target.submit(Task("I", lun, cdb, [memoryview(data)] if data else [], [room], replies.append))
        return Answer(replies[0].status, replies[0].sense, bytes(room[: replies[0].data_in_length]))

    return Initiator(carry)


def status_cdb(lba: int, allocation: int = 0x4000) -> bytes:
    """GET LBA STATUS."""
    return bytes((0x9E, 0x12)) + lba.to_bytes(8, "big") + allocation.to_bytes(4, "big") + bytes(2)


def runs(data: bytes) -> list[tuple[int, int, int]]:
    """(LBA, blocks, provisioning status) of each descriptor."""
    assert u32(data, 0) == len(data) - 4
    return [(u64(data, at), u32(data, at + 8), data[at + 12]) for at in range(8, len(data), 16)]


@pytest.fixture
def thin(tmp_path: Path) -> Iterator[FileDisk]:
    """An empty disk of 8 MiB in a file."""
    disk = open_disk("thin", tmp_path / "thin.img", size=8 << 20)
    yield disk
    disk.close()


def test_get_lba_status_of_an_empty_disk(thin: FileDisk) -> None:
    """One run, deallocated, to the end."""
    assert runs(on(thin).command(0, status_cdb(0)).data) == [(0, 16384, DEALLOCATED)]


def test_get_lba_status_of_a_written_part(thin: FileDisk) -> None:
    """Three runs; asked from inside, it starts there."""
    who = on(thin)
    assert who.write(0, 2048, 2048, b"x" * (1 << 20)).good
    assert runs(who.command(0, status_cdb(0)).data) == [
        (0, 2048, DEALLOCATED),
        (2048, 2048, MAPPED),
        (4096, 12288, DEALLOCATED),
    ]
    assert runs(who.command(0, status_cdb(2050)).data)[0] == (2050, 2046, MAPPED)


def test_get_lba_status_as_many_as_fit(thin: FileDisk) -> None:
    """24 bytes: one descriptor; its run is whole."""
    who = on(thin)
    assert who.write(0, 2048, 2048, b"x" * (1 << 20)).good
    assert runs(who.command(0, status_cdb(0, 24)).data) == [(0, 2048, DEALLOCATED)]


def test_get_lba_status_is_read_by_sg_get_lba_status(thin: FileDisk, tmp_path: Path) -> None:
    """sg3_utils knows nothing of us."""
    if shutil.which("sg_get_lba_status") is None:
        pytest.fail("sg_get_lba_status is missing: ./odx setup installs it (package sg3-utils)")
    who = on(thin)
    assert who.write(0, 8, 8, b"x" * 4096).good
    file = tmp_path / "status.hex"
    file.write_text(who.command(0, status_cdb(8)).data.hex(" ") + "\n")
    done = subprocess.run(
        ["sg_get_lba_status", "--brief", "--maxlen=512", f"--inhex={file}"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "0x8  0x8  0" in done.stdout.replace("0x0000000000000008", "0x8")


@pytest.mark.parametrize("lba", [16384, 1 << 63])
def test_get_lba_status_past_the_end(thin: FileDisk, lba: int) -> None:
    """21/00."""
    assert on(thin).command(0, status_cdb(lba)).fault == (5, 0x21, 0)


def test_get_lba_status_of_blocks_larger_than_the_file_systems(monkeypatch: pytest.MonkeyPatch) -> None:
    """A block is deallocated only if all of it is a hole."""
    disk = memory_disk("m", 5 * 4096, 4096)
    cuts = [
        (0, 1024, False),
        (1024, 1024, True),
        (2048, 10240, False),
        (12288, 512, True),
        (12800, 7680, False),
    ]
    monkeypatch.setattr(disk, "allocated", lambda *_: [(Extent(at, size), data) for at, size, data in cuts])
    assert runs(on(disk).command(0, status_cdb(0)).data) == [
        (0, 1, MAPPED),
        (1, 2, DEALLOCATED),
        (3, 1, MAPPED),
        (4, 1, DEALLOCATED),
    ]
    disk.close()


@pytest.mark.parametrize("cdb", ["34000000000000001000", "90000000000000000000000000100000", "34" + "00" * 9])
def test_prefetch(initiator: Initiator, cdb: str) -> None:
    """GOOD; a count of 0 means up to the end."""
    assert initiator.command(0, cdb).status == 0


@pytest.mark.parametrize("cdb", ["3400000040000000010000", "90000000000000003fff000000020000"])
def test_prefetch_past_the_end(initiator: Initiator, cdb: str) -> None:
    """21/00."""
    assert initiator.command(0, cdb).fault == (5, 0x21, 0)


@pytest.mark.parametrize(
    ("cdb", "data"),
    [
        ("37001d00000000ffff", "001d0000"),
        ("b71d00000000000000ff", "001d000000000000"),
        ("370000000000000002", "0000"),
    ],
)
def test_there_are_no_defects(initiator: Initiator, cdb: str, data: str) -> None:
    """Both lists, in the format that was asked for."""
    assert initiator.command(0, cdb).data.hex() == data


def test_sanitize_is_not_there(initiator: Initiator) -> None:
    """Refused rather than done half: old data may lie on in the host's file system."""
    assert initiator.command(0, "4801" + "00" * 8).fault == (5, 0x20, 0)


# 512e and 4K


@pytest.mark.parametrize(
    ("size", "physical", "exponent"),
    [(512, None, 0), (512, 4096, 3), (512, 512, 0), (4096, 4096, 0), (4096, 16384, 2)],
)
def test_physical_blocks(size: int, physical: int | None, exponent: int) -> None:
    """READ CAPACITY(16) byte 13, lowest aligned LBA 0, the granularities of B0h, the token's provisioning."""
    disk = memory_disk("p", 1 << 20, size, physical)
    who = on(disk)
    capacity = who.command(0, "9e10000000000000000000000020").data
    assert (u32(capacity, 8), capacity[13] & 0x0F, u16(capacity, 14)) == (size, exponent, 0xC000)
    limits = who.command(0, "1201b000ff00").data
    assert u16(limits, 6) == max(physical or 4096, size) // size
    assert u32(limits, 28) == 65536 // size
    token = who.token(0, [Range(0, 1)])
    assert token[101:104].hex() == f"{exponent:02x}c000"
    disk.close()


# Thin provisioning


def test_unmap_gives_space_back(thin: FileDisk, tmp_path: Path) -> None:
    """The file itself gets smaller on the host, and reads as zeros."""
    file = tmp_path / "thin.img"
    who = on(thin)
    assert who.write(0, 0, 8192, b"x" * (4 << 20)).good
    thin.flush()
    before = file.stat().st_blocks * 512
    assert before >= 4 << 20
    assert who.unmap(0, [Range(0, 2048), Range(4096, 2048)]).good
    thin.flush()
    assert (
        file.stat().st_blocks * 512 <= before - (2 << 20) + 65536
    )  # more pieces may need blocks of their own
    assert who.read(0, 0, 1).data == bytes(512)
    assert who.read(0, 2048, 1).data == b"x" * 512
    assert [status for *_, status in runs(who.command(0, status_cdb(0)).data)[:3]] == [1, 0, 1]


@pytest.mark.parametrize(("flags", "shrinks"), [(0x08, True), (0x09, True), (0x00, False)])
def test_write_same_with_unmap_gives_space_back(
    thin: FileDisk, tmp_path: Path, flags: int, shrinks: bool
) -> None:
    """UNMAP set, with data or NDOB; without it the space stays."""
    file = tmp_path / "thin.img"
    who = on(thin)
    assert who.write(0, 0, 8192, b"x" * (4 << 20)).good
    thin.flush()
    before = file.stat().st_blocks
    cdb = bytes((0x93, flags)) + bytes(8) + (8192).to_bytes(4, "big") + bytes(2)
    assert who.command(0, cdb, b"" if flags & 1 else bytes(512)).good
    thin.flush()
    assert (file.stat().st_blocks < before // 2) == shrinks
    assert who.read(0, 4096, 1).data == bytes(512)


def test_all_commands_that_unmap_are_announced(initiator: Initiator, reference: ReferenceTarget) -> None:
    """LBPME and LBPRZ in READ CAPACITY(16); LBPU, LBPWS, LBPWS10 in page B2h."""
    assert initiator.command(0, "9e10000000000000000000000020").data[14] == 0xC0
    assert initiator.command(0, "1201b200ff00").data[5] & 0xE4 == 0xE4
