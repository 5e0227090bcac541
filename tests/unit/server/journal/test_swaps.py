"""COMPARE AND WRITE that a kill breaks off: done once and as a whole, whatever others do before it is sent again."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import pytest
from life import NO_HURRY, Killed, Life
from swap_scene import (
    BEFORE,
    BLOCKS,
    LBA,
    LENGTH,
    MISCOMPARE,
    NEW,
    OLD,
    STAMP,
    THEIRS,
    amid,
    at_step,
    cdb,
    found,
    killed,
    other,
    swap,
    unseen,
)

from qemu_odx.server.journal import disks
from qemu_odx.wire.scsi.token_lists import Range

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

NOT_BEGUN = {
    "before the note": partial(at_step, 0),
    "after the note": partial(at_step, 1),
    "before the first byte": partial(amid, 0),
}
BEGUN = {
    "after the first byte": partial(amid, 1),
    "in the middle of a block": partial(amid, 700),
    "after a page": partial(amid, 4096),
    "before the last byte": partial(amid, LENGTH - 1),
    "after the write": partial(at_step, 2),
    "after the second note": partial(at_step, 3),
    "before the answer is seen": unseen,
}
POINTS = [(place, False) for place in NOT_BEGUN.values()] + [(place, True) for place in BEGUN.values()]
AT_EACH_POINT = pytest.mark.parametrize(("kill", "begun"), POINTS, ids=[*NOT_BEGUN, *BEGUN])


@pytest.fixture(autouse=True)
def no_hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """However long a step takes, the killed server was alive until then."""
    monkeypatch.setattr(disks, "GRACE", NO_HURRY)


@AT_EACH_POINT
def test_sent_again(tmp_path: Path, kill: Callable[[Life], None], *, begun: bool) -> None:
    """GOOD, and it is done; nobody sees a part of it before."""
    life = killed(tmp_path, kill)
    assert found(life) == (NEW if begun else OLD)
    assert swap(life).good
    assert found(life) == NEW
    assert swap(life, stamp=b"another").fault == MISCOMPARE
    life.end()


@AT_EACH_POINT
def test_another_initiator_is_first(tmp_path: Path, kill: Callable[[Life], None], *, begun: bool) -> None:
    """What it does to the same blocks stays; whether the command was done before it depends on the kill alone."""
    life = killed(tmp_path, kill)
    seen = NEW if begun else OLD
    assert other(life).compare_and_write(0, LBA, BLOCKS, seen, THEIRS).good
    answer = swap(life)
    assert answer.good if begun else answer.fault == MISCOMPARE
    assert found(life) == THEIRS
    life.end()


@AT_EACH_POINT
def test_killed_again(tmp_path: Path, kill: Callable[[Life], None], *, begun: bool) -> None:
    """The process that has finished it does not live to be asked, nor does the next one live to have told it."""
    life = killed(tmp_path, kill)
    life.kill()
    life = Life(tmp_path)
    assert other(life).compare_and_write(0, LBA, BLOCKS, NEW if begun else OLD, THEIRS).good
    for _ in range(2):
        answer = swap(life)
        assert answer.good if begun else answer.fault == MISCOMPARE
        life.kill()
        life = Life(tmp_path)
        assert found(life) == THEIRS
    life.end()


STEPS = {f"step {number}": partial(at_step, number) for number in range(6)}
"""Those of the journal, with old data to be noted first."""


@pytest.mark.parametrize("kill", [*STEPS.values(), *BEGUN.values()], ids=[*STEPS, *BEGUN])
def test_tokens_keep_the_old_data(tmp_path: Path, kill: Callable[[Life], None]) -> None:
    """Whoever finishes the write is bound by the promise too."""
    life = Life(tmp_path)
    life.disks[0].write(0, [BEFORE])
    token = life.initiator.token(0, [Range(LBA, BLOCKS)], timeout=600)
    kill(life)
    life = Life(tmp_path)
    assert found(life) in {OLD, NEW}
    assert swap(life).good
    assert found(life) == NEW
    assert life.initiator.write_token(1, token, [Range(0, BLOCKS)]).good
    assert life.contents(1)[:LENGTH] == OLD
    life.end()


@pytest.mark.parametrize("step", [1, 2, 3])
def test_nothing_to_change(tmp_path: Path, step: int) -> None:
    """What is written is what was there: it is done once it has compared equal."""
    life = Life(tmp_path)
    life.disks[0].write(0, [BEFORE])
    life.fuse = step
    with pytest.raises(Killed):
        life.carry(0, cdb(), OLD + OLD, STAMP)
    life = Life(tmp_path)
    assert other(life).compare_and_write(0, LBA, BLOCKS, OLD, THEIRS).good
    assert life.carry(0, cdb(), OLD + OLD, STAMP).good
    assert found(life) == THEIRS
    life.end()
