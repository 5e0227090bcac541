"""COMPARE AND WRITE in one life of a server, ways to be killed in the middle of it, and another initiator."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from life import SIZE, Killed, Life

from qemu_odx.target.port import LoginNexus
from qemu_odx.testing.initiator import Initiator

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from qemu_odx.testing.initiator import Answer

LBA, BLOCKS = 9, 17
"""More than two pages, from the middle of one to the middle of another."""
LENGTH = BLOCKS * 512
BEFORE = b"b" * SIZE
OLD, NEW, THEIRS = BEFORE[:LENGTH], b"n" * LENGTH, b"t" * LENGTH
STAMP = b"a stamp"
OTHER = LoginNexus("another port", 1)
MISCOMPARE = (0xE, 0x1D, 0)
FUA = 0x08


def cdb(flags: int = 0, blocks: int = BLOCKS) -> bytes:
    """COMPARE AND WRITE of these blocks (SBC-3 5.3)."""
    return bytes((0x89, flags)) + LBA.to_bytes(8, "big") + bytes((0, 0, 0, blocks, 0, 0))


def swap(life: Life, flags: int = 0, stamp: bytes | None = STAMP) -> Answer:
    """OLD becomes NEW."""
    return life.carry(0, cdb(flags), OLD + NEW, stamp)


def found(life: Life) -> bytes:
    """What the blocks hold; all others are as they were."""
    all_of_it = life.contents(0)
    start = LBA * 512
    assert all_of_it[:start] + all_of_it[start + LENGTH :] == BEFORE[LENGTH:]
    return all_of_it[start : start + LENGTH]


def notes(life: Life) -> list[Any]:
    """What is noted."""
    return life.state.store.rows("SELECT written, length(data) FROM swaps")


def other(life: Life) -> Initiator:
    """Another initiator, which has heard of its power-on."""
    initiator = Initiator(lambda lun, cdb, data: life.carry(lun, cdb, data, None, OTHER))
    initiator.command(0, "00")
    return initiator


def at_step(number: int, life: Life) -> None:
    """Before or after a step of the journal."""
    life.fuse = number
    with pytest.raises(Killed):
        swap(life)


def amid(length: int, life: Life) -> None:
    """When so many bytes of the write have arrived."""
    file = life.disks[0]._file
    write = file.write

    def torn(offset: int, data: Any, _length: int) -> None:
        if length:
            write(offset, [b"".join(data)[:length]], length)
        life.kill()
        raise Killed

    file.write = torn
    with pytest.raises(Killed):
        swap(life)


def unseen(life: Life) -> None:
    """When it has been answered, before anybody could see that."""
    assert swap(life).good
    life.kill()


def killed(folder: Path, kill: Callable[[Life], None]) -> Life:
    """The next life after one that was killed there."""
    life = Life(folder)
    life.disks[0].write(0, [BEFORE])
    kill(life)
    return Life(folder)
