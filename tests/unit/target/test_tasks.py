"""Unit attentions, task management, aborts: every task ends once, and nothing is over before it is."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from qemu_odx.target.port import LoginNexus, Reply, Task
from qemu_odx.testing.runner import HeldRunner
from qemu_odx.tokens.token import Fault
from qemu_odx.wire.scsi.sense import parse
from qemu_odx.wire.scsi.token_lists import Range, TokenInformation

if TYPE_CHECKING:
    from qemu_odx.testing.conformance.reference import ReferenceTarget
    from qemu_odx.testing.initiator import Initiator

FLUSH = bytes((0x35,)).ljust(16, b"\0")


def held_flush(reference: ReferenceTarget, nexus: str = "I0", lun: int = 0, tag: int = 1) -> list[Reply]:
    """A SYNCHRONIZE CACHE that waits on a worker; its reply comes into the list."""
    if not isinstance(reference.target.runner, HeldRunner):
        reference.target.runner = HeldRunner()
    replies: list[Reply] = []
    reference.target.submit(Task(nexus, lun, FLUSH, [], [], replies.append, tag))
    assert replies == []
    return replies


def run(reference: ReferenceTarget) -> None:
    """Let the workers work."""
    assert isinstance(reference.target.runner, HeldRunner)
    reference.target.runner.run_all()


def test_a_new_nexus_meets_one_attention_per_unit(reference: ReferenceTarget) -> None:
    """29/00 once; INQUIRY, REPORT LUNS and REQUEST SENSE go before it."""
    reference.target.power_on_attention = True
    newcomer = reference.initiator("I9")
    assert newcomer.command(0, "120000006000").good
    assert newcomer.command(0, "a0000000000000000400").good
    assert newcomer.command(0, "00").fault == (6, 0x29, 0)
    assert newcomer.command(0, "00").good
    assert newcomer.command(1, "0300000012").data[12:14] == b"\x29\x00"
    assert newcomer.command(1, "00").good


def test_abort_task_waits_for_the_worker(reference: ReferenceTarget) -> None:
    """The guest's buffers are in use until then."""
    replies, over = held_flush(reference), list[bool]()
    reference.target.abort_task("I0", 0, 1, over.append)
    assert (replies, over) == ([], [])
    run(reference)
    assert [reply.aborted for reply in replies] == [True]
    assert over == [True]


def test_abort_of_an_unknown_task_is_over_at_once(reference: ReferenceTarget) -> None:
    """FUNCTION COMPLETE, nothing hit."""
    over: list[bool] = []
    reference.target.abort_task("I0", 0, 99, over.append)
    assert over == [False]


def test_sets_and_queries_hit_what_they_name(reference: ReferenceTarget) -> None:
    """ABORT TASK SET: one nexus, one unit. CLEAR TASK SET: every nexus."""
    mine, other, elsewhere = (
        held_flush(reference),
        held_flush(reference, "I1", tag=2),
        held_flush(reference, lun=1, tag=3),
    )
    assert reference.target.query_task("I0", 0, 1)
    assert not reference.target.query_task("I1", 0, 1)
    reference.target.abort_task_set("I0", 0, lambda: None)
    run(reference)
    assert [mine[0].aborted, other[0].aborted, elsewhere[0].aborted] == [True, False, False]
    assert not reference.target.query_task_set("I0", 0)


def test_unit_reset_ends_tasks_drops_results_keeps_tokens(
    reference: ReferenceTarget, initiator: Initiator
) -> None:
    """Results go, tokens stay, every nexus is told 29/00."""
    token = initiator.token(0, [Range(0, 4)])
    over: list[bool] = []
    reference.target.reset_lun(0, over.append)
    assert over == [True]
    assert initiator.command(0, "00").fault == (6, 0x29, 0)
    assert initiator.information(0, 0).fault == (5, 0x24, 0)
    assert initiator.write_token(1, token, [Range(0, 4)]).good


def test_unit_reset_waits_for_background_copies(reference: ReferenceTarget, initiator: Initiator) -> None:
    """Nothing moves after the answer, and nobody finds the copy any more."""
    token = initiator.token(0, [Range(0, 64)])
    assert initiator.write_token(1, token, [Range(0, 64)], identifier=9, immediate=True).good
    over: list[bool] = []
    reference.target.reset_lun(1, over.append)
    assert over == []
    reference.background.run_all()
    assert over == [True]
    assert reference.read(1, 0, 1).startswith(b"L1B")
    initiator.command(1, "00")
    assert initiator.information(1, 9).fault == (5, 0x24, 0)


def test_a_copy_that_outlives_its_nexus_is_not_found(
    reference: ReferenceTarget, initiator: Initiator
) -> None:
    """It goes on; its result belongs to nobody."""
    token = initiator.token(0, [Range(0, 64)])
    assert initiator.write_token(1, token, [Range(0, 64)], identifier=9, immediate=True).good
    reference.target.nexus_loss("I0", lambda: None)
    assert initiator.information(1, 9).fault == (5, 0x24, 0)
    reference.background.run_all()
    assert initiator.information(1, 9).fault == (5, 0x24, 0)
    assert reference.read(1, 0, 1).startswith(b"L0B")


def test_nexus_loss_drops_results_keeps_tokens(reference: ReferenceTarget, initiator: Initiator) -> None:
    """A guest that restarts cannot ask for old results; whoever holds a token may use it."""
    token = initiator.token(0, [Range(0, 4)])
    reference.target.nexus_loss("I0", lambda: None)
    assert initiator.information(0, 0).fault == (5, 0x24, 0)
    assert reference.initiator("I1").write_token(1, token, [Range(0, 4)]).good


def test_abort_of_a_foreground_copy(reference: ReferenceTarget, initiator: Initiator) -> None:
    """COPY OPERATION ABORT waits for the copy; the copy's own command ends 2F/02 with key COPY ABORTED."""
    token = initiator.token(0, [Range(0, 64)])
    replies: list[Reply] = []
    probe = reference.initiator()
    parameter_list = []
    probe.carry = lambda _lun, cdb, data: (
        parameter_list.append((cdb, data)) or initiator.carry(0, b"\0" * 16, b"")
    )
    probe.write_token(1, token, [Range(0, 64)], identifier=77)
    cdb, data = parameter_list[0]
    reference.target.submit(Task("I0", 1, cdb, [memoryview(data)], [], replies.append))
    assert replies == []
    assert initiator.abort_copy(0, 77).good
    found = parse(replies[0].sense)
    assert found is not None
    assert (found.key, found.asc, found.ascq) == (0xA, 0x2F, 2)
    information = TokenInformation.parse(initiator.information(0, 77).data)
    assert (information.status.status, information.status.completion) == (0x60, 0x40)
    assert reference.read(1, 0, 1).startswith(b"L1B")


def test_a_lost_snapshot_cancels_its_token(reference: ReferenceTarget, initiator: Initiator) -> None:
    """23/08, never changed data."""
    token = initiator.token(0, [Range(0, 4)])
    (live,) = reference.target.manager.tokens
    live.payload = _Lost(live.payload)  # type: ignore[assignment]
    assert initiator.write_token(1, token, [Range(0, 4)]).fault == (5, 0x23, 8)
    assert initiator.write_token(1, token, [Range(0, 4)]).fault == (5, 0x23, 8)
    assert reference.read(1, 0, 1).startswith(b"L1B")


class _Lost:
    """A snapshot whose old data could not be kept."""

    lost = True

    def __init__(self, real: object) -> None:
        self.release = real.release  # type: ignore[attr-defined]


def test_resets_give_no_new_quota(reference: ReferenceTarget) -> None:
    """Each life of a driver is a nexus of its own; what it made counts for all of them, dead or alive."""
    manager = reference.target.manager
    manager.tokens.quotas = replace(manager.quotas, tokens_per_nexus=2, tombstones=3)
    for life in range(6):
        nexus = LoginNexus("s.sock", life)
        driver = reference.initiator(nexus)  # type: ignore[arg-type]  # any nexus will do
        answers = [driver.populate(0, [Range(0, 1)]).fault for _ in range(3)]
        assert answers == [None, None, (5, 0x55, 0x0D)]
        for token in manager.tokens:
            manager.tokens.kill(token, Fault.DELETED)
        assert len(manager.tokens._dead) <= 3
        reference.target.nexus_loss(nexus, lambda: None)
    other = reference.initiator(LoginNexus("t.sock", 0))  # type: ignore[arg-type]
    assert other.populate(0, [Range(0, 1)]).good
