"""The hunt for silent corruption: what is wrong is found, with who wrote it; what is right never is."""

from __future__ import annotations

import contextlib
import logging
import os
import random
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING

import pytest

from qemu_odx.disk.file import open_disk
from qemu_odx.disk.image import DiskError
from qemu_odx.disk.layers import record
from qemu_odx.disk.layers.layer import Layer
from qemu_odx.disk.layers.record import Record
from qemu_odx.disk.layers.verify import VerifyLayer, make
from qemu_odx.disk.memory import memory_disk
from qemu_odx.disk.port import Extent

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from qemu_odx.disk.port import Disk

BLOCK, BLOCKS = 512, 2048
SIZE = BLOCK * BLOCKS


def verified(folder: Path, **options: str) -> VerifyLayer:
    """The verified disk of a folder."""
    return make(open_disk("d0", folder / "d0.img", size=SIZE, serial="S"), options)


def read(disk: VerifyLayer, block: int, count: int = 1) -> bytes:
    """Through the layer."""
    data = bytearray(count * BLOCK)
    disk.read(block * BLOCK, [memoryview(data)])
    return bytes(data)


def corrupt(folder: Path, block: int, data: bytes = b"?" * BLOCK) -> None:
    """Behind everybody's back."""
    with (folder / "d0.img").open("r+b") as image:
        image.seek(block * BLOCK)
        image.write(data)


def test_a_wrong_block_is_named_with_who_wrote_it(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The first wrong block, the request that wrote it, what is there instead; once."""
    disk = verified(tmp_path)
    disk.requests.begin(1, "export s, queue 0, head 7: WRITE(10)", [(8 * BLOCK, 16 * BLOCK)])
    disk.write(8 * BLOCK, [b"w" * 8 * BLOCK])
    disk.requests.end(1)
    disk.write(0, [b"o" * BLOCK])
    corrupt(tmp_path, 10)
    disk.requests.begin(2, "export s, queue 1, head 9: READ(10)", [(0, SIZE)])
    read(disk, 8, 8)
    read(disk, 8, 8)
    (finding,) = disk.findings
    assert (finding.block, finding.zeros, finding.overlapping) == (10, False, ())
    assert finding.found_by == "export s, queue 1, head 9: READ(10)"
    assert finding.written is not None
    assert finding.written.who == "export s, queue 0, head 7: WRITE(10)"
    assert (finding.written.offset, finding.written.length) == (8 * BLOCK, 8 * BLOCK)
    text = "block 10 (byte 5120) is wrong: export s, queue 1, head 9: READ(10) found CRC"
    assert text in caplog.text
    assert finding.written.number == 0
    disk.close()
    assert "1 blocks were wrong" in caplog.text


@pytest.mark.parametrize("how", ["discard", "zeroes", "update", "write of half"])
def test_every_way_to_write_is_known(tmp_path: Path, how: str) -> None:
    """What comes of it is right; what is changed after it is not."""
    disk = verified(tmp_path)
    disk.write(0, [b"w" * 64 * BLOCK])
    if how == "discard":
        disk.discard(0, 64 * BLOCK)
    elif how == "zeroes":
        disk.write_zeroes(0, 64 * BLOCK, unmap=False)
    elif how == "update":
        assert disk.update(0, 64 * BLOCK, lambda old: old[::-1].replace(b"w", b"u"))
        assert not disk.update(0, 64 * BLOCK, lambda _: None)
    else:
        disk.write(10, [b"h" * BLOCK * 3])
    read(disk, 0, 64)
    assert disk.wrong == 0
    corrupt(tmp_path, 2)
    read(disk, 0, 64)
    assert [finding.block for finding in disk.findings] == [2]
    disk.close()


def test_a_compare_and_write_that_fails_on_a_wrong_block_finds_it(tmp_path: Path) -> None:
    """It reads, too."""
    disk = verified(tmp_path)
    disk.write(0, [b"w" * BLOCK])
    corrupt(tmp_path, 0)
    assert not disk.update(0, BLOCK, lambda _: None)
    assert disk.wrong == 1
    disk.close()


class LosesWrites(Layer):
    """A disk that answers some writes and does nothing."""

    lose = False

    def write(self, offset: int, data: Sequence[memoryview | bytes]) -> None:
        """Or not."""
        if not self.lose:
            self.inner.write(offset, data)


def test_a_lost_write_is_found(tmp_path: Path) -> None:
    """The old data are no longer right."""
    below = LosesWrites(memory_disk("d0", SIZE))
    disk = make(below, {})
    disk.write(0, [b"a" * BLOCK])
    below.lose = True
    disk.write(0, [b"b" * BLOCK])
    read(disk, 0)
    (finding,) = disk.findings
    assert finding.written is not None
    assert finding.written.number == 1
    disk.close()


class Waits(Layer):
    """A disk whose writes wait until they may."""

    def __init__(self, inner: Disk) -> None:
        super().__init__(inner)
        self.may = threading.Event()

    def write(self, offset: int, data: Sequence[memoryview | bytes]) -> None:
        """Later."""
        assert self.may.wait(60)
        self.inner.write(offset, data)


def test_requests_that_overlapped_are_named(tmp_path: Path) -> None:
    """Three writers at once; the block's last one is the writer, the others overlapped it; a later one did not."""
    image = open_disk("d0", tmp_path / "d0.img", size=SIZE)
    below = Waits(image)
    disk = make(below, {})
    threads = [
        threading.Thread(target=disk.write, args=(first * BLOCK, [bytes([first % 256]) * 4 * BLOCK]))
        for first in (0, 1, 2, 900)
    ]
    for thread in threads:
        thread.start()
    while disk.record._next < len(threads):
        time.sleep(0.001)
    below.may.set()
    for thread in threads:
        thread.join()
    disk.write(50 * BLOCK, [b"x" * BLOCK])
    read(disk, 0, 8)
    assert disk.wrong == 0
    corrupt(tmp_path, 2)
    read(disk, 2)
    (finding,) = disk.findings
    assert finding.written is not None
    places = {write.offset // BLOCK for write in (finding.written, *finding.overlapping)}
    assert places == {0, 1, 2}
    assert len(finding.overlapping) == 2
    disk.close()


def test_the_record_outlives_the_run(tmp_path: Path) -> None:
    """Corruption between two runs is found, and who wrote it in the run before; a scan finds it unasked."""
    kept = str(tmp_path / "record")
    disk = verified(tmp_path, record=kept)
    disk.requests.begin(1, "the request of yesterday", [(0, SIZE)])
    disk.write(5 * BLOCK, [b"w" * BLOCK])
    disk.close()
    corrupt(tmp_path, 5, bytes(BLOCK))
    disk = verified(tmp_path, record=kept, scan="on")
    (finding,) = disk.findings
    assert (finding.block, finding.zeros, finding.found_by) == (5, True, "a scan")
    assert finding.written is not None
    assert finding.written.who == "the request of yesterday"
    disk.close()


KILLED = """
import os, sys
from qemu_odx.disk.file import open_disk
from qemu_odx.disk.layers.verify import make

image, kept, block, size = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
disk = make(open_disk("d0", image, size=size, serial="S"), {"record": kept})
disk.write(0, [b"w" * 4 * block])


def killed(offset, _):
    with open(image, "r+b") as behind:
        behind.seek(offset)
        behind.write(b"?" * block)
    os._exit(0)


disk.inner.write = killed
disk.write(block, [b"n" * block])
os._exit(1)
"""


def test_a_killed_server_leaves_a_good_record(tmp_path: Path) -> None:
    """A write that was under way leaves a block of which nothing is known: no false alarm."""
    kept = str(tmp_path / "record")
    words = [str(tmp_path / "d0.img"), kept, str(BLOCK), str(SIZE)]
    subprocess.run([sys.executable, "-c", KILLED, *words], check=True)
    disk = verified(tmp_path, record=kept, scan="on")
    assert (disk.wrong, disk.record.fresh) == (0, False)
    corrupt(tmp_path, 2)
    assert disk.scan() == 1
    disk.close()


def test_after_a_crash_of_the_host_the_record_begins_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not closed, and another boot: who knows what of it and of the image was lost. Closed: it is good."""
    kept = tmp_path / "record"
    for crashed in (True, False):
        disk = verified(tmp_path, record=str(kept))
        disk.write(0, [b"w" * BLOCK])
        if crashed:
            disk.inner.close()
            disk.record._pages.close()
            disk.record._file.close()
        else:
            disk.close()
        monkeypatch.setattr(record, "_boot", lambda crashed=crashed: f"{crashed}".encode() * 6)
        again = Record(kept, SIZE, BLOCK, "S")
        assert again.fresh is crashed
        again.close()


def test_records_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    """Another disk's, no record at all, one in use, one that cannot be made."""
    kept = tmp_path / "record"
    first = Record(kept, SIZE, BLOCK, "S")
    with pytest.raises(DiskError, match="in use by another disk"):
        Record(kept, SIZE, BLOCK, "S")
    first.close()
    for size, block, serial in ((SIZE, 4096, "S"), (SIZE, BLOCK, "T"), (SIZE // 2, BLOCK, "S")):
        with pytest.raises(DiskError, match="record of another disk"):
            Record(kept, size, block, serial)
    kept.write_bytes(b"something else, and long enough" * 100)
    with pytest.raises(DiskError, match="is no record"):
        Record(kept, SIZE, BLOCK, "S")
    assert kept.read_bytes().startswith(b"something else")
    with pytest.raises(DiskError, match="cannot hold a record"):
        Record(tmp_path / "no" / "folder", SIZE, BLOCK, "S")


def test_a_token_shows_what_was_there_when_it_was_made(tmp_path: Path) -> None:
    """Old data that went wrong in the image or aside is found when the token is used, and not a wrong alarm else."""
    disk = verified(tmp_path)
    other = memory_disk("d1", SIZE)
    disk.write(0, [b"1" * 300 * BLOCK])
    token = disk.snapshot([Extent(100 * BLOCK, 150 * BLOCK), Extent(0, 50 * BLOCK)])
    disk.write(20 * BLOCK, [b"2" * 100 * BLOCK])
    later = disk.snapshot([Extent(0, 200 * BLOCK)])
    disk.write(0, [b"3" * 10 * BLOCK])
    for snapshot in (token, later):
        snapshot.copy_to(0, other, 0, snapshot.length)
    assert disk.wrong == 0
    corrupt(tmp_path, 150)
    token.copy_to(0, other, 0, token.length)
    (finding,) = disk.findings
    assert (finding.block, finding.found_by) == (150, "a token's copy from disk d0")
    token.release()
    later.copy_to(0, other, 0, later.length)
    assert disk.wrong == 2
    later.release()
    later.release()
    assert disk.history._kept == {}
    disk.close()
    other.close()


def test_another_size(tmp_path: Path) -> None:
    """What is left is known as before; what is new is learned."""
    disk = verified(tmp_path)
    disk.write(0, [b"w" * SIZE])
    disk.resize(SIZE // 2)
    disk.resize(2 * SIZE)
    assert disk.scan() == 0
    corrupt(tmp_path, 7)
    corrupt(tmp_path, BLOCKS + 7)
    assert disk.scan() == 2
    os.truncate(tmp_path / "d0.img", 3 * SIZE)
    disk.follow_growth()
    disk.write(3 * SIZE - BLOCK, [b"e" * BLOCK])
    assert disk.scan() == 0
    disk.close()


def test_its_summary_is_in_the_log(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Also when all was well."""
    caplog.set_level(logging.INFO)
    disk = verified(tmp_path)
    read(disk, 0, 16)
    disk.close()
    assert "no block was wrong of 16 compared" in caplog.text
    with (
        contextlib.closing(memory_disk("d1", SIZE)) as other,
        pytest.raises(DiskError, match="verify-scan=perhaps"),
    ):
        make(other, {"scan": "perhaps"})


def test_no_false_alarm_with_many_threads(tmp_path: Path) -> None:
    """Overlapping writes, reads, discards and tokens at once, for a second or two."""
    image = open_disk("d0", tmp_path / "d0.img", size=SIZE, snapshots="copy-before-write")
    disk, other = make(image, {}), memory_disk("d1", SIZE)
    failures: list[BaseException] = []

    def work(seed: int) -> None:
        chance = random.Random(seed)
        try:
            for _ in range(150):
                block = chance.randrange(BLOCKS - 64)
                count = chance.randint(1, 64)
                match chance.choice(("write", "write", "read", "read", "discard", "update", "token")):
                    case "write":
                        disk.write(block * BLOCK, [chance.randbytes(count * BLOCK)])
                    case "read":
                        read(disk, block, count)
                    case "discard":
                        disk.discard(block * BLOCK, count * BLOCK)
                    case "update":
                        disk.update(block * BLOCK, count * BLOCK, lambda old: old[::-1])
                    case _:
                        taken = disk.snapshot([Extent(block * BLOCK, count * BLOCK)])
                        taken.copy_to(0, chance.choice((disk, other)), 0, taken.length)
                        taken.release()
        except BaseException as error:  # noqa: BLE001 - shown below
            failures.append(error)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert failures == []
    assert not any(thread.is_alive() for thread in threads)
    assert (list(disk.findings), disk.scan(), disk.history._kept) == ([], 0, {})
    assert disk.checked > 10_000
    disk.close()
    other.close()
