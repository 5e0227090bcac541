"""Notes of COMPARE AND WRITE: how long they are kept, what is believed of them, and how they are answered from."""

from __future__ import annotations

import errno
import itertools
import os
import sqlite3
import time
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from life import NEXUS, NO_HURRY, Killed, Life
from swap_scene import (
    BEFORE,
    BLOCKS,
    FUA,
    LBA,
    LENGTH,
    MISCOMPARE,
    NEW,
    OLD,
    OTHER,
    STAMP,
    amid,
    at_step,
    cdb,
    found,
    killed,
    notes,
    other,
    swap,
)

from qemu_odx.server.journal import disks
from qemu_odx.server.journal.folder import StateFolder
from qemu_odx.server.journal.store import VERSION
from qemu_odx.target.port import Reply, Task
from qemu_odx.target.swaps import Swaps
from qemu_odx.testing.clock import VirtualClock
from qemu_odx.tokens.operations import RETENTION
from qemu_odx.wire.scsi.token_lists import Range

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(autouse=True)
def no_hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """However long a step takes, the killed server was alive until then."""
    monkeypatch.setattr(disks, "GRACE", NO_HURRY)


def test_others_go_on_while_the_answer_is_unseen(tmp_path: Path) -> None:
    """What they have made of the blocks is nobody's to finish, even if it looks like a beginning."""
    life = Life(tmp_path)
    life.disks[0].write(0, [BEFORE])
    assert swap(life).good
    mixed = NEW[:700] + OLD[700:]
    assert other(life).compare_and_write(0, LBA, BLOCKS, NEW, mixed).good
    life.kill()
    life = Life(tmp_path)
    assert found(life) == mixed
    assert swap(life).good
    assert found(life) == mixed
    life.end()


def test_a_note_is_gone_soon_after_its_answer(tmp_path: Path) -> None:
    """Not in the turn of the event loop in which that is given; what it wrote is not kept till then."""
    life = Life(tmp_path)
    life.disks[0].write(0, [BEFORE])
    assert swap(life).good
    assert notes(life) == [(1, 0)]
    life.manager.settle()
    assert len(notes(life)) == 1
    life.manager.settle()
    assert notes(life) == []
    life.end()


def test_a_note_of_before_is_gone_soon_after_its_answer(tmp_path: Path) -> None:
    """Until it is asked for it stays, also over an orderly end."""
    life = killed(tmp_path, partial(amid, 700))
    for _ in range(3):
        life.manager.settle()
    life.end()
    life = Life(tmp_path)
    assert len(notes(life)) == 1
    assert swap(life).good
    for _ in range(2):
        life.manager.settle()
    assert notes(life) == []
    life.end()


def test_a_note_that_nobody_asks_for(tmp_path: Path) -> None:
    """Its initiator went with the process."""
    clock = VirtualClock(1000.0)
    killed(tmp_path, partial(amid, 700)).kill()
    life = Life(tmp_path, clock, ruler=clock)
    clock.advance(RETENTION + 1)
    for _ in range(3):
        life.manager.settle()
    assert notes(life) == []
    life.end()


def test_what_has_not_begun_leaves_no_note(tmp_path: Path) -> None:
    """It is done when it is sent again, and noted then."""
    life = killed(tmp_path, partial(at_step, 1))
    assert notes(life) == []
    life.end()


def test_nothing_is_noted_of_what_changes_nothing(tmp_path: Path) -> None:
    """Unequal blocks; and commands that nobody can send again."""
    life = Life(tmp_path)
    assert swap(life).fault == MISCOMPARE
    life.disks[0].write(0, [BEFORE])
    life.fuse = 0
    assert swap(life, stamp=None).good
    life.fuse = None
    assert notes(life) == []
    life.end()


def test_a_write_that_fails_leaves_no_note(tmp_path: Path) -> None:
    """Whoever writes there after that is safe from a successor."""
    life = Life(tmp_path)
    life.disks[0].write(0, [BEFORE])
    file = life.disks[0]._file
    write = file.write

    def fail(offset: int, data: Any, length: int) -> None:
        write(offset, [b"".join(data)[:700]], 700)
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    file.write = fail
    assert swap(life).fault == (3, 0x0C, 0)
    assert notes(life) == []
    torn = found(life)
    life.kill()
    life = Life(tmp_path)
    assert found(life) == torn == NEW[:700] + OLD[700:]
    assert swap(life).fault == MISCOMPARE
    life.end()


# -- what is believed ------------------------------------------------------------------------------


def test_an_image_that_was_changed_by_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Later than the killed server can have done it: what looks like a beginning may be theirs."""
    monkeypatch.setattr(disks, "GRACE", 0.0)
    life = Life(tmp_path)
    life.disks[0].write(0, [BEFORE])
    amid(700, life)
    time.sleep(0.02)  # the clock by which files are stamped is a coarse one
    with (tmp_path / "d0.img").open("r+b") as image:
        image.write(BEFORE[:1])
    life = Life(tmp_path)
    assert found(life) == NEW[:700] + OLD[700:]
    assert swap(life).fault == MISCOMPARE
    life.end()


def test_a_write_that_takes_long_is_believed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The process is seen alive meanwhile, and others write to the image."""
    life = Life(tmp_path)
    life.disks[0].write(0, [BEFORE])
    file = life.disks[0]._file
    write = file.write

    def slow(offset: int, data: Any, _length: int) -> None:
        write(offset, [b"".join(data)[:700]], 700)
        life.state.store.write("UPDATE swaps SET seen=0", ())
        time.sleep(0.02)
        life.state.beat()
        life.kill()
        raise Killed

    file.write = slow
    with pytest.raises(Killed):
        swap(life)
    monkeypatch.setattr(disks, "GRACE", 0.0)
    life = Life(tmp_path)
    assert found(life) == NEW
    assert swap(life).good
    life.end()


def test_blocks_that_hold_something_else(tmp_path: Path) -> None:
    """Somebody was there within the seconds in which that is not noticed: theirs stays."""
    life = Life(tmp_path)
    life.disks[0].write(0, [BEFORE])
    amid(700, life)
    strange = NEW[:700] + OLD[700:-1] + b"?"
    with (tmp_path / "d0.img").open("r+b") as image:
        image.seek(LBA * 512)
        image.write(strange)
    life = Life(tmp_path)
    assert found(life) == strange
    assert notes(life) == []
    assert swap(life).fault == MISCOMPARE
    life.end()


def test_a_disk_that_ends_before_them(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A line says what was left as it was; the server starts."""
    life = Life(tmp_path)
    life.disks[0].write(0, [BEFORE])
    amid(700, life)
    for name in ("d0", "d1"):
        os.truncate(tmp_path / f"{name}.img", LBA * 512)
    monkeypatch.setattr("life.SIZE", LBA * 512)
    life = Life(tmp_path)
    assert [record.args[:2] for record in caplog.records] == [("d0", LBA * 512)]  # type: ignore[index]
    assert notes(life) == []
    life.end()


def test_a_disk_that_is_not_served_any_more(tmp_path: Path) -> None:
    """Nobody can finish it, nor ask for it."""
    life = Life(tmp_path)
    life.disks[0].write(0, [BEFORE])
    amid(700, life)
    state = StateFolder(tmp_path / "state")
    journal = state.copies(time.monotonic)
    journal.swaps.revive(Swaps(journal.swaps), {})
    assert state.store.rows("SELECT note FROM swaps") == []
    state.close()


def test_the_host_was_started_anew(tmp_path: Path) -> None:
    """Nothing of the journal is believed, and QEMU is gone too."""
    boot = tmp_path / "boot"
    boot.write_text("first")
    life = Life(tmp_path, boot=boot)
    life.disks[0].write(0, [BEFORE])
    amid(700, life)
    boot.write_text("second")
    life = Life(tmp_path, boot=boot)
    assert found(life) == NEW[:700] + OLD[700:]
    assert notes(life) == []
    life.end()


# -- how it is answered ----------------------------------------------------------------------------


@pytest.mark.parametrize(("flags", "flushes"), [(0, 0), (FUA, 1)])
def test_forced_unit_access(tmp_path: Path, flags: int, flushes: int) -> None:
    """What is answered with GOOD is on stable storage, though the process died before that."""
    life = Life(tmp_path)
    life.disks[0].write(0, [BEFORE])
    life.fuse = 2
    with pytest.raises(Killed):
        swap(life, flags)
    life = Life(tmp_path)
    flushed = []
    life.disks[0].flush = lambda: flushed.append(1)
    assert swap(life, flags).good
    assert len(flushed) == flushes
    del life.disks[0].flush
    life.end()


def test_the_answer_takes_all_of_the_data(tmp_path: Path) -> None:
    """Else the initiator is told of a residual, as if half of the command had been left out."""
    life = killed(tmp_path, partial(amid, 700))
    replies: list[Reply] = []
    data = memoryview(OLD + NEW + b"more")
    life.target.submit(Task(NEXUS, 0, cdb(), [data], [], replies.append, stamp=STAMP))
    assert [(reply.status, reply.data_out_length) for reply in replies] == [(0, 2 * LENGTH)]
    life.end()


def test_it_is_answered_before_the_restart_is_told(tmp_path: Path) -> None:
    """A unit attention would say that it was not done; it waits for the next command."""
    life = Life(tmp_path)
    life.disks[0].write(0, [BEFORE])
    other(life)
    assert life.carry(0, cdb(), OLD + NEW, STAMP, OTHER).good
    life.kill()
    life = Life(tmp_path)
    assert life.carry(0, cdb(), OLD + NEW, STAMP, OTHER).good
    assert life.carry(0, cdb(), OLD + NEW, None, OTHER).fault == (6, 0x29, 0)
    life.end()


def test_it_is_told_to_its_own_nexus_alone(tmp_path: Path) -> None:
    """Stamps of others may be the same."""
    life = killed(tmp_path, partial(amid, 700))
    other(life)
    assert life.carry(0, cdb(), OLD + NEW, STAMP, OTHER).fault == MISCOMPARE
    assert swap(life).good
    life.end()


def test_many_at_once(tmp_path: Path) -> None:
    """Each by its stamp, on both disks, in any order."""
    life = Life(tmp_path)
    life.disks[0].write(0, [BEFORE])
    life.disks[1].write(0, [BEFORE])
    sent = [
        (
            lun,
            bytes((0x89, 0, *lba.to_bytes(8, "big"), 0, 0, 0, 1, 0, 0)),
            OLD[:512] + NEW[:512],
            b"%d %d" % (lun, lba),
        )
        for lun, lba in itertools.product((0, 1), range(3))
    ]
    for command in sent:
        assert life.carry(*command).good
    life.kill()
    life = Life(tmp_path)
    for command in reversed(sent):
        assert life.carry(*command).good
    life.end()


# -- tables ----------------------------------------------------------------------------------------


def test_a_journal_of_before_there_were_such_notes(tmp_path: Path) -> None:
    """Its tokens are known, and notes are made from now on."""
    life = Life(tmp_path)
    life.disks[0].write(0, [BEFORE])
    token = life.initiator.token(0, [Range(LBA, BLOCKS)], timeout=600)
    life.end()
    with sqlite3.connect(tmp_path / "state" / "journal.sqlite3") as db:
        db.execute("DROP TABLE swaps")
        db.execute("PRAGMA user_version=1")
    db.close()
    life = Life(tmp_path)
    assert life.state.store.rows("PRAGMA user_version") == [(VERSION,)]
    amid(700, life)
    life = Life(tmp_path)
    assert swap(life).good
    assert life.initiator.write_token(1, token, [Range(0, BLOCKS)]).good
    assert life.contents(1)[:LENGTH] == OLD
    life.end()
