"""What a server believes of the state folder that another has left, and what it does if it cannot write there."""

from __future__ import annotations

import errno
import os
import sqlite3
import subprocess
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from life import SIZE, Life

from qemu_odx.disk.file import open_disk
from qemu_odx.disk.port import Extent
from qemu_odx.server.journal import disks, store
from qemu_odx.server.journal.folder import StateFolder
from qemu_odx.server.journal.store import JournalError, Store
from qemu_odx.testing.clock import VirtualClock
from qemu_odx.tokens.token import Fault
from qemu_odx.wire.scsi.token_lists import Range

if TYPE_CHECKING:
    from collections.abc import Callable

    from qemu_odx.testing.initiator import Answer

OLD, NEW = b"o" * SIZE, b"n" * SIZE
BLOCKS = SIZE // 512
FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
UNKNOWN, EXPIRED, CANCELLED = (5, 0x23, 4), (5, 0x23, 7), (5, 0x23, 8)


def with_a_token(life: Life) -> bytes:
    """A token of all of d0, half of which is overwritten after."""
    life.disks[0].write(0, [OLD])
    token = life.initiator.token(0, [Range(0, BLOCKS)], timeout=600)
    life.disks[0].write(0, [NEW[: SIZE // 2]])
    life.state.beat()
    return token


def used(life: Life, token: bytes) -> Answer:
    """The token written to d1; if that is GOOD, it was the old data."""
    answer = life.initiator.write_token(1, token, [Range(0, BLOCKS)])
    if answer.good:
        into = bytearray(SIZE)
        life.disks[1].read(0, [memoryview(into)])
        assert into == OLD
    return answer


@pytest.mark.parametrize("how", ["kill", "end"])
def test_a_token_outlives_its_server(tmp_path: Path, how: str) -> None:
    """Killed or ended, several times, with writes before and after."""
    life = Life(tmp_path)
    token = with_a_token(life)
    for _ in range(3):
        getattr(life, how)()
        life = Life(tmp_path)
        life.disks[0].write(0, [NEW])
        assert used(life, token).good
    life.end()


def cut_in_half(path: Path) -> None:
    """Lose the second half of a file."""
    os.truncate(path, path.stat().st_size // 2)


def garble(path: Path) -> None:
    """Put rubbish in the middle of a file."""
    with path.open("r+b") as file:
        file.write(b"rubbish" * 2000)


@pytest.mark.parametrize("damage", [cut_in_half, garble, Path.unlink, lambda path: path.write_bytes(b"")])
def test_a_damaged_journal_is_begun_anew(
    tmp_path: Path, damage: Callable[[Path], object], caplog: pytest.LogCaptureFixture
) -> None:
    """Its tokens are unknown, never wrong; a line says so if there is something to say."""
    life = Life(tmp_path)
    token = with_a_token(life)
    life.end()
    damage(tmp_path / "state" / "journal.sqlite3")
    life = Life(tmp_path)
    assert used(life, token).fault == UNKNOWN
    assert len(caplog.records) <= 1
    assert used(life, with_a_token(life)).good
    life.end()


def test_a_torn_log_loses_its_end_only_if_the_host_crashed(tmp_path: Path) -> None:
    """What SQLite makes of half a write-ahead log is older than the images: but a kill leaves no half ones."""
    boot = tmp_path / "boot"
    boot.write_text("first")
    life = Life(tmp_path, boot=boot)
    token = with_a_token(life)
    life.kill()
    boot.write_text("second")
    life = Life(tmp_path, boot=boot)
    assert used(life, token).fault == CANCELLED
    assert not list(tmp_path.glob(".*.odx-old"))
    life.end()


def test_a_newer_version_is_refused(tmp_path: Path) -> None:
    """In a sentence with the cure; nothing is changed."""
    life = Life(tmp_path)
    token = with_a_token(life)
    life.end()
    path = tmp_path / "state" / "journal.sqlite3"
    with sqlite3.connect(path) as db:
        db.execute(f"PRAGMA user_version={store.VERSION + 1}")
    db.close()
    with pytest.raises(JournalError, match=r"newer qemu-odx .* start that one, or remove the folder"):
        StateFolder(tmp_path / "state")
    with sqlite3.connect(path) as db:
        db.execute(f"PRAGMA user_version={store.VERSION}")
    db.close()
    life = Life(tmp_path)
    assert used(life, token).good
    life.end()


def test_an_older_version_is_begun_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """There is none yet that could be read."""
    life = Life(tmp_path)
    token = with_a_token(life)
    life.end()
    monkeypatch.setattr(store, "VERSION", store.VERSION + 1)
    life = Life(tmp_path)
    assert used(life, token).fault == UNKNOWN
    life.end()


def test_one_server_at_a_time(tmp_path: Path) -> None:
    """The second is told so."""
    life = Life(tmp_path)
    with pytest.raises(JournalError, match="in use by another server"):
        StateFolder(tmp_path / "state")
    life.end()
    StateFolder(tmp_path / "state").close()


def test_a_folder_that_cannot_be(tmp_path: Path) -> None:
    """The sentence names it."""
    (tmp_path / "state").write_text("a file")
    with pytest.raises(JournalError, match="state cannot be used"):
        StateFolder(tmp_path / "state")


def test_a_folder_that_cannot_be_begun_is_let_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of it stays open: whoever makes room can go on with it."""
    kept: list[Store] = []
    monkeypatch.setattr(Store, "rows", lambda store, *_: kept.append(store) or 1 / 0)
    with pytest.raises(ZeroDivisionError):
        StateFolder(tmp_path / "state")
    monkeypatch.undo()
    with pytest.raises(sqlite3.ProgrammingError, match="closed"):
        kept[0].rows("SELECT 1")
    StateFolder(tmp_path / "state").close()


def test_the_folder_is_private(tmp_path: Path) -> None:
    """It holds tokens."""
    StateFolder(tmp_path / "state").close()
    assert (tmp_path / "state").stat().st_mode & 0o777 == 0o700


# -- whether the image is still what the snapshots need --------------------------------------------


def overwritten(folder: Path) -> None:
    """Somebody writes to the image."""
    with (folder / "d0.img").open("r+b") as file:
        file.write(b"x")


def replaced(folder: Path) -> None:
    """Another file of the same name and size."""
    (folder / "d0.img").rename(folder / "old.img")
    (folder / "d0.img").write_bytes(NEW)


def longer(folder: Path) -> None:
    """Another size, at another time."""
    os.truncate(folder / "d0.img", SIZE * 2)
    os.truncate(folder / "d0.img", SIZE)


def served_by_another(folder: Path) -> None:
    """A server that knows nothing of the state folder, and restores the image's time."""
    times = (folder / "d0.img").stat()
    open_disk("d0", folder / "d0.img").close()
    os.utime(folder / "d0.img", ns=(times.st_atime_ns, times.st_mtime_ns))


def side_file_lost(folder: Path) -> None:
    """Somebody tidied up."""
    (folder / ".d0.img.odx-old").unlink()


def side_file_of_another(folder: Path) -> None:
    """A file of the same name."""
    side = folder / ".d0.img.odx-old"
    data = bytearray(side.read_bytes())
    data[0] ^= 1
    side.write_bytes(data)


@pytest.mark.parametrize(
    "change", [overwritten, replaced, longer, served_by_another, side_file_lost, side_file_of_another]
)
@pytest.mark.parametrize("how", ["kill", "end"])
def test_a_changed_image_cancels(
    tmp_path: Path, how: str, change: Callable[[Path], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """23/08; the tokens of the other disk are as good as before."""
    monkeypatch.setattr(disks, "GRACE", 0.0)
    life = Life(tmp_path)
    token = with_a_token(life)
    other = life.initiator.token(1, [Range(0, 8)], timeout=600)
    life.state.beat()
    getattr(life, how)()
    time.sleep(0.02)  # the clock by which files are stamped is a coarse one
    change(tmp_path)
    life = Life(tmp_path)
    assert used(life, token).fault == CANCELLED
    assert life.initiator.write_token(1, other, [Range(8, 8)]).good
    assert used(life, with_a_token(life)).good
    life.end()


def test_a_kill_may_come_after_the_last_look(tmp_path: Path) -> None:
    """The server itself wrote to the image since: that is no reason to cancel."""
    life = Life(tmp_path)
    token = with_a_token(life)
    time.sleep(0.02)
    life.disks[0].write(SIZE // 2, [NEW[:4096]])
    life.kill()
    life = Life(tmp_path)
    assert used(life, token).good
    life.end()


def test_a_kill_may_come_before_the_first_look(tmp_path: Path) -> None:
    """There were no tokens for a while, so nobody looked; the server is killed in the second of the next one."""
    life = Life(tmp_path)
    with_a_token(life)
    life.manager.tokens.kill_made_from("d0", Fault.REVOKED)
    long_ago = 60 * 10**9
    life.state.store.write("UPDATE images SET seen=seen-?, changed=changed-?", (long_ago, long_ago))
    life.disks[0].write(0, [OLD])
    token = life.initiator.token(0, [Range(0, BLOCKS)], timeout=600)
    life.disks[0].write(0, [NEW[:4096]])
    life.kill()
    life = Life(tmp_path)
    assert used(life, token).good
    life.end()


def test_tokens_of_a_disk_that_is_not_served_any_more(tmp_path: Path) -> None:
    """They are cancelled, and the next server has nothing to do with them."""
    life = Life(tmp_path)
    token = with_a_token(life)
    life.end()
    state = StateFolder(tmp_path / "state")
    journal = state.disk("d1")
    disk = open_disk("d1", tmp_path / "d1.img", journal=journal)
    state.forget_others()
    disk.close()
    state.close()
    life = Life(tmp_path)
    assert used(life, token).fault == CANCELLED
    life.end()


def test_block_devices_do_not_tell(tmp_path: Path) -> None:
    """Their snapshots end with the server, and the side file is in the state folder."""
    image = tmp_path / "image"
    image.write_bytes(OLD)
    loop = subprocess.run(
        ["losetup", "-f", "--show", image], capture_output=True, text=True, check=False
    ).stdout.strip()
    if not loop:
        pytest.skip("no loop device here")
    try:
        state = StateFolder(tmp_path / "state")
        disk = open_disk("d0", loop, journal=state.disk("d0"))
        snapshot = disk.snapshot([])
        assert snapshot.outlive() == 1
        assert [path.name for path in (tmp_path / "state").glob("*.odx-old")] == ["d0.odx-old"]
        disk.close()
        disk = open_disk("d0", loop, journal=state.disk("d0"))
        assert disk.recalled == {}
        disk.close()
        assert not list((tmp_path / "state").glob("*.odx-old"))
        state.close()
    finally:
        subprocess.run(["losetup", "-d", loop], check=True)


# -- a journal that cannot be written --------------------------------------------------------------


def test_no_room_for_the_journal(tmp_path: Path, tiny: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The guest's write goes through, the token lives on, one line is logged; the next server cancels it."""
    (tmp_path / "state").symlink_to(tiny, target_is_directory=True)
    life = Life(tmp_path)
    token = with_a_token(life)
    filler = tiny / "filler"
    with filler.open("wb", buffering=0) as file:
        while (rest := os.statvfs(tiny).f_bavail * 4096) > 0:
            file.write(bytes(rest))
    for _ in range(400):  # what SQLite has room for in its files is used up first
        life.initiator.token(0, [Range(0, 8)], timeout=600)
    assert life.state.store.failed
    life.disks[0].write(0, [NEW])
    assert used(life, token).good
    assert len(caplog.records) == 1
    life.kill()
    filler.unlink()
    life = Life(tmp_path)
    assert used(life, token).fault == CANCELLED
    assert used(life, with_a_token(life)).good
    life.end()


# -- garbage, time ---------------------------------------------------------------------------------


def test_nothing_grows_over_restarts(tmp_path: Path) -> None:
    """The same work between two kills leaves the same behind, however often."""
    clock = VirtualClock(1000.0)
    sizes = []
    for number in range(30):
        life = Life(tmp_path, clock, ruler=clock)
        with_a_token(life)
        used(life, life.initiator.token(0, [Range(0, 64)]))
        clock.advance(7300)  # past the time of tokens and of what is known of dead ones
        life.manager.tick()
        if number % 3:
            life.kill()
        else:
            life.end()
        files = [*tmp_path.glob(".*"), *(tmp_path / "state").iterdir()]
        sizes.append((len(files), sum(path.stat().st_size for path in files)))
    assert max(sizes[15:]) <= max(sizes[3:9])


def test_time_goes_on_while_no_server_runs(tmp_path: Path) -> None:
    """By the clock of the host."""
    clock = VirtualClock(1000.0)
    life = Life(tmp_path, clock, ruler=clock)
    short = life.initiator.token(0, [Range(0, 8)], timeout=10)
    long = life.initiator.token(0, [Range(0, 8)], timeout=100)
    life.kill()
    clock.advance(11)
    life = Life(tmp_path, clock, ruler=clock)
    assert life.initiator.write_token(1, short, [Range(0, 8)]).fault == EXPIRED
    assert life.initiator.write_token(1, long, [Range(0, 8)]).good
    life.end()


def test_a_use_counts(tmp_path: Path) -> None:
    """The inactivity timer began anew with it, and so it is in the successor."""
    clock = VirtualClock(1000.0)
    life = Life(tmp_path, clock, ruler=clock)
    token = life.initiator.token(0, [Range(0, 8)], timeout=10)
    for _ in range(3):
        clock.advance(8)
        assert life.initiator.write_token(1, token, [Range(0, 8)]).good
        life.kill()
        life = Life(tmp_path, clock, ruler=clock)
    life.end()


def test_a_virtual_clock_begins_anew(tmp_path: Path) -> None:
    """It stands still while no server runs; what was left of a token's time is left of it."""
    token = b""
    for life_time, fault in ((0, None), (6, None), (6, EXPIRED)):
        clock = VirtualClock(0.0)
        life = Life(tmp_path, clock, ruler=None)
        if not token:
            clock.advance(5)
            token = life.initiator.token(0, [Range(0, 8)], timeout=10)
        clock.advance(life_time)
        life.state.beat()
        if fault:
            assert life.initiator.write_token(1, token, [Range(0, 8)]).fault == fault
        life.kill()


def test_a_snapshot_is_sacrificed_while_its_token_is_noted(xfs: Path) -> None:
    """By a worker whose write found no space: neither waits for the other for ever."""
    folder = xfs / "sacrificed"
    folder.mkdir()
    life = Life(folder, policy="reflink")
    snapshot = life.disks[0].snapshot([Extent(0, 4096)])
    assert snapshot.outlive() is not None
    worker = threading.Thread(target=life.disks[0].vaults().sacrifice, args=(FULL,), daemon=True)
    numbers: list[int | None] = []

    def note() -> None:
        with life.state.store.together():
            worker.start()
            while not snapshot._vault._noting.locked():
                time.sleep(0.001)
            numbers.append(snapshot.outlive())

    noter = threading.Thread(target=note, daemon=True)
    noter.start()
    noter.join(60)
    worker.join(60)
    assert (numbers, worker.is_alive()) == ([None], False)
    assert not life.state.store.rows("SELECT number FROM held")
    life.end()
