"""A disk gets larger or smaller, a logical unit goes away: who is told, which tokens die, what ends."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from qemu_odx.target.port import Reply, Task
from qemu_odx.target.target import Target
from qemu_odx.testing.runner import HeldRunner, InlineRunner
from qemu_odx.wire.scsi.fields import u32
from qemu_odx.wire.scsi.token_lists import Range, TokenInformation

if TYPE_CHECKING:
    from qemu_odx.testing.conformance.reference import ReferenceTarget
    from qemu_odx.testing.initiator import Initiator

CAPACITY_CHANGED = (6, 0x2A, 9)
LUNS_CHANGED = (6, 0x3F, 0x0E)
CANCELLED = (5, 0x23, 8)


def resize(reference: ReferenceTarget, lun: int, blocks: int) -> None:
    """What a monitor does."""
    disk = reference.disks[lun]
    disk.resize(blocks * disk.block_size)
    reference.target.resized(disk)


def remove(reference: ReferenceTarget, lun: int) -> list[bool]:
    """What a monitor does; the list gets a value once it is over."""
    over: list[bool] = []
    reference.target.remove(lun, over.append)
    return over


@pytest.mark.parametrize("blocks", [8192, 32768])
def test_every_nexus_is_told_of_a_new_capacity(
    reference: ReferenceTarget, initiator: Initiator, blocks: int
) -> None:
    """2A/09 once, on that unit alone; then the new capacity."""
    other = reference.initiator("I1")
    for who in (initiator, other):
        assert who.command(0, "00").good
    resize(reference, 0, blocks)
    for who in (initiator, other):
        assert who.command(1, "00").good
        assert who.command(0, "00").fault == CAPACITY_CHANGED
        assert who.command(0, "00").good
    assert u32(initiator.command(0, "25").data, 0) == blocks - 1


def test_all_targets_of_the_disk_tell(reference: ReferenceTarget) -> None:
    """Another export of the same disk."""
    other = Target.on({3: reference.disks[0]}, reference.target.manager, InlineRunner())
    other.power_on_attention = False
    replies: list[Reply] = []
    for _ in range(2):
        other.submit(Task("X", 3, bytes(16), [], [], replies.append))
        resize(reference, 0, 16384)
    assert [reply.sense[12:14].hex() for reply in replies] == ["", "2a09"]


def test_what_was_beyond_the_end_is_zero_after_growing_again(
    reference: ReferenceTarget, initiator: Initiator
) -> None:
    """No old data comes back."""
    resize(reference, 0, 8)
    resize(reference, 0, 16)
    initiator.command(0, "00")
    assert initiator.read(0, 7, 1).data.startswith(b"L0B00000007")
    assert initiator.read(0, 8, 8).data == bytes(8 * 512)


def test_reads_and_writes_end_at_the_new_end(reference: ReferenceTarget, initiator: Initiator) -> None:
    """21/00 beyond it."""
    resize(reference, 0, 100)
    assert initiator.write(0, 99, 1, bytes(512)).good
    assert initiator.write(0, 100, 1, bytes(512)).fault == (5, 0x21, 0)
    assert initiator.read(0, 99, 2).fault == (5, 0x21, 0)


def test_tokens_of_blocks_that_are_gone_are_cancelled(
    reference: ReferenceTarget, initiator: Initiator
) -> None:
    """23/08 if any block is gone; the others live, and still give what was."""
    gone = initiator.token(0, [Range(0, 4), Range(95, 10)])
    kept = initiator.token(0, [Range(90, 10)])
    resize(reference, 0, 100)
    initiator.command(0, "00")
    assert initiator.write(0, 90, 10, bytes(5120)).good
    assert initiator.write_token(1, gone, [Range(0, 4)]).fault == CANCELLED
    assert initiator.write_token(1, kept, [Range(0, 10)]).good
    assert reference.read(1, 0, 1).startswith(b"L0B00000090")


def test_a_token_that_had_expired_stays_expired(reference: ReferenceTarget, initiator: Initiator) -> None:
    """23/07, though nobody had looked before its blocks went."""
    token = initiator.token(0, [Range(100, 4)], timeout=5)
    reference.clock.advance(6)
    resize(reference, 0, 100)
    assert initiator.write_token(1, token, [Range(0, 4)]).fault == (5, 0x23, 7)


def test_a_copy_from_blocks_that_go_gives_what_was(reference: ReferenceTarget, initiator: Initiator) -> None:
    """A running copy has its snapshot: never zeros, never anything else."""
    token = initiator.token(0, [Range(1000, 64)])
    assert initiator.write_token(1, token, [Range(0, 64)], identifier=9, immediate=True).good
    resize(reference, 0, 8)
    reference.background.run_all()
    status = TokenInformation.parse(initiator.information(1, 9).data).status
    assert (status.status, status.count) == (1, 64)
    assert reference.read(1, 63, 1).startswith(b"L0B00001063")
    assert initiator.write_token(1, token, [Range(0, 4)]).fault == CANCELLED


def test_a_copy_to_blocks_that_go_ends_early(reference: ReferenceTarget, initiator: Initiator) -> None:
    """Done as far as there is a disk; the rest is an error, not a crash."""
    token = initiator.token(1, [Range(0, 64)])
    ranges = [Range(0, 8), Range(1000, 8)]
    assert initiator.write_token(0, token, ranges, identifier=9, immediate=True).good
    resize(reference, 0, 100)
    reference.background.run_all()
    initiator.command(0, "00")
    status = TokenInformation.parse(initiator.information(0, 9).data).status
    assert (status.status, status.count) == (3, 8)
    assert reference.read(0, 0, 1).startswith(b"L1B00000000")


def test_a_unit_that_is_removed_is_gone(reference: ReferenceTarget, initiator: Initiator) -> None:
    """25/00; not in REPORT LUNS; the other units say so first."""
    assert initiator.command(0, "00").good
    assert remove(reference, 1) == [True]
    assert initiator.command(1, "00").fault == (5, 0x25, 0)
    assert initiator.command(0, "00").fault == LUNS_CHANGED
    assert initiator.command(0, "00").good
    assert u32(initiator.command(0, "a0000000000000000400").data, 0) == 16


def test_removing_what_is_not_there(reference: ReferenceTarget) -> None:
    """Over at once."""
    assert remove(reference, 9) == [False]


def test_tokens_of_a_removed_disk_are_cancelled(reference: ReferenceTarget, initiator: Initiator) -> None:
    """23/08."""
    token = initiator.token(1, [Range(0, 4)])
    mine = initiator.token(0, [Range(0, 4)])
    remove(reference, 1)
    initiator.command(0, "00")
    assert initiator.write_token(0, token, [Range(0, 4)]).fault == CANCELLED
    assert initiator.write_token(0, mine, [Range(8, 4)]).good


def test_tokens_stay_while_another_unit_shows_the_disk(
    reference: ReferenceTarget, initiator: Initiator
) -> None:
    """The data is still there."""
    Target.on({0: reference.disks[1]}, reference.target.manager, InlineRunner())
    token = initiator.token(1, [Range(0, 4)])
    remove(reference, 1)
    initiator.command(0, "00")
    assert initiator.write_token(0, token, [Range(0, 4)]).good


def test_removal_ends_tasks_and_waits_for_them(reference: ReferenceTarget) -> None:
    """Their buffers are in use until then."""
    reference.target.runner = HeldRunner()
    ended: list[Reply] = []
    reference.target.submit(Task("I0", 1, bytes((0x35,)).ljust(16, b"\0"), [], [], ended.append))
    over = remove(reference, 1)
    assert (ended, over) == ([], [])
    reference.target.runner.run_all()
    assert ([reply.aborted for reply in ended], over) == ([True], [True])


def test_removal_ends_copies_from_the_disk_and_waits(
    reference: ReferenceTarget, initiator: Initiator
) -> None:
    """Also those that write to another unit: after it nothing uses the disk."""
    token = initiator.token(1, [Range(0, 64)])
    assert initiator.write_token(0, token, [Range(0, 64)], identifier=9, immediate=True).good
    (live,) = reference.target.manager.tokens
    over = remove(reference, 1)
    assert over == []
    reference.background.run_all()
    assert over == [True]
    assert len(reference.target.manager.tokens) == 0
    initiator.command(0, "00")
    status = TokenInformation.parse(initiator.information(0, 9).data).status
    assert (status.status, status.completion) == (0x60, 0x40)
    assert reference.read(0, 0, 1).startswith(b"L0B")
    assert live.users == 0


def test_a_disk_that_comes_back_has_no_reservations(reference: ReferenceTarget) -> None:
    """They belonged to what was removed."""
    disk = reference.disks[1]
    manager = reference.target.manager
    manager.reservations(disk).register("A", 0, 1)
    remove(reference, 1)
    assert manager.reservations(disk).keys == {}
