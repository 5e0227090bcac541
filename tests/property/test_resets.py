"""Resets, aborts, driver unloads and unplugged units while commands and copies run, in any order.

Every request completes once; what it says is what happened; after a reset has been answered, nothing that it hit
changes a disk; a token never shows anything but the data of its moment.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    initialize,
    invariant,
    multiple,
    rule,
    run_state_machine_as_test,
)
from reset_bench import BLOCK, BLOCKS, Bench, Open, SimGuest

from qemu_odx.target import copying
from qemu_odx.wire.scsi.token_lists import Range, TokenInformation
from qemu_odx.wire.virtio.scsi import RESPONSE_SIZE, Response, TaskManagement

if TYPE_CHECKING:
    from collections.abc import Callable

    import pytest

RESET, CHANGED = (6, 0x29, 0), (6, 0x3F, 0x0E)
NO_UNIT = (5, 0x25, 0)
ENDED = {Response.ABORTED, Response.RESET}
RESETS = {TaskManagement.LOGICAL_UNIT_RESET, TaskManagement.I_T_NEXUS_RESET}

guests = st.integers(0, 1)
luns = st.integers(0, 1)
places = st.tuples(st.integers(0, BLOCKS - 1), st.integers(1, 16)).map(
    lambda p: (p[0], min(p[1], BLOCKS - p[0]))
)
functions = st.sampled_from(
    [
        TaskManagement.LOGICAL_UNIT_RESET,
        TaskManagement.I_T_NEXUS_RESET,
        TaskManagement.ABORT_TASK_SET,
        TaskManagement.CLEAR_TASK_SET,
        TaskManagement.ABORT_TASK,
    ]
)


class Resets(RuleBasedStateMachine):
    """The bench, and what each block may hold."""

    tokens = Bundle("tokens")

    def __init__(self) -> None:
        super().__init__()
        self.bench = Bench()
        self.may_hold = [[{bytes(BLOCK)} for _ in range(BLOCKS)] for _ in range(2)]
        self.attentions: dict[tuple[int, int], list[tuple[int, int, int]]] = {}
        self.known = [False, False]
        self.gone: set[tuple[int, int]] = set()
        self.stamp = 0
        self.identifier = 0

    @initialize()
    def something_on_the_disks(self) -> None:
        """Different data in each block."""
        for number, disk in enumerate(self.bench.disks):
            for block in range(BLOCKS):
                data = bytes([1 + number, block]) * (BLOCK // 2)
                disk.inner.write(block * BLOCK, [data])
                self.may_hold[number][block] = {data}

    # -- what guests send --------------------------------------------------------------------------

    def send(self, guest: int, send: Callable[[SimGuest], object]) -> Open:
        """A command, and what it must meet: an absent unit, a unit attention, or nothing."""
        one = self.bench.guests[guest]
        if not self.known[guest]:
            self.known[guest] = True
            for lun in one.target.luns():
                self.attentions[guest, lun] = [RESET]
        send(one)
        item = one.last
        pending = self.attentions.get((guest, item.lun), [])
        if (guest, item.lun) in self.gone:
            item.attention = NO_UNIT
        elif pending:
            item.attention = pending.pop(0)
        return item

    def will_write(self, item: Open, lun: int, lba: int, data: bytes) -> None:
        """From now on the blocks may hold it."""
        if item.attention is None:
            item.wrote = lun, lba, data
            for number in range(len(data) // BLOCK):
                self.may_hold[lun][lba + number].add(data[number * BLOCK : (number + 1) * BLOCK])

    @rule(guest=guests, lun=luns, place=places)
    def write(self, guest: int, lun: int, place: tuple[int, int]) -> None:
        """WRITE(16) of data never seen before."""
        lba, blocks = place
        self.stamp += 1
        data = (b"W" + self.stamp.to_bytes(3, "big")) * (BLOCK // 4) * blocks
        self.will_write(
            self.send(guest, lambda one: one.initiator.write(lun, lba, blocks, data)), lun, lba, data
        )

    @rule(guest=guests, lun=luns, place=places)
    def unmap(self, guest: int, lun: int, place: tuple[int, int]) -> None:
        """UNMAP: on a worker."""
        lba, blocks = place
        item = self.send(guest, lambda one: one.initiator.unmap(lun, [Range(lba, blocks)]))
        self.will_write(item, lun, lba, bytes(blocks * BLOCK))

    @rule(guest=guests, lun=luns, place=places)
    def read(self, guest: int, lun: int, place: tuple[int, int]) -> None:
        """READ(16)."""
        self.send(guest, lambda one: one.initiator.read(lun, *place))

    @rule(target=tokens, guest=guests, lun=luns, place=places)
    def populate(self, guest: int, lun: int, place: tuple[int, int]) -> object:
        """POPULATE TOKEN to its end; no token if something stands against it."""
        self.identifier += 1
        identifier = self.identifier
        item = self.send(
            guest, lambda one: one.initiator.populate(lun, [Range(*place)], identifier=identifier)
        )
        if item.attention is not None:
            return multiple()
        self.run_all()
        asked = self.send(guest, lambda one: one.initiator.information(lun, identifier))
        self.run_all()
        assert item.answer.good
        token = TokenInformation.parse(asked.answer.data).token
        assert token is not None
        return token

    def expected(self, token: bytes) -> bytes | None:
        """The bytes that the token stands for; None if it is dead."""
        for live in self.bench.manager.tokens:
            if live.data == token:
                return self.bench.disks[int(str(live.creator)[1])].frozen[id(live.payload)]
        return None

    def use(self, guest: int, lun: int, token: bytes, lba: int, *, immediate: bool) -> Open:
        """WRITE USING TOKEN."""
        self.identifier += 1
        data = self.expected(token)
        blocks = 1 if data is None else min(len(data) // BLOCK, BLOCKS - lba)
        item = self.send(
            guest,
            lambda one: one.initiator.write_token(
                lun, token, [Range(lba, blocks)], identifier=self.identifier, immediate=immediate
            ),
        )
        if data is not None:
            self.will_write(item, lun, lba, data[: blocks * BLOCK])
        item.changes = immediate
        return item

    @rule(guest=guests, lun=luns, token=tokens, lba=st.integers(0, BLOCKS - 1), immediate=st.booleans())
    def write_token(self, guest: int, lun: int, token: bytes, lba: int, *, immediate: bool) -> None:
        """In the foreground and in the background."""
        self.use(guest, lun, token, lba, immediate=immediate)

    @rule(guest=guests, lun=luns)
    def abort_copy(self, guest: int, lun: int) -> None:
        """COPY OPERATION ABORT of the last copy, which may be over, or another's."""
        self.send(guest, lambda one: one.initiator.abort_copy(lun, self.identifier))
        for item in self.bench.guests[guest].open:
            item.hit = True

    # -- what ends it ------------------------------------------------------------------------------

    def manage(self, guest: int, function: TaskManagement, lun: int) -> None:
        """A function, and at once what it promises about everything that it hits."""
        one = self.bench.guests[guest]
        whole = function is TaskManagement.I_T_NEXUS_RESET
        hit = [item for item in one.open if whole or item.lun == lun]
        tag = hit[-1].tag if hit else 999
        if function is TaskManagement.ABORT_TASK:
            hit = [item for item in hit if item.tag == tag]
        for item in hit:
            item.hit = True
        sent = one.manage(function, lun, tag)
        if whole or (guest, lun) not in self.gone:
            self.note_attentions(guest, function, lun)
        while not one.has_ended(sent):
            self.bench.runner.step()
        answered = sent.request.data_in[0]
        if (guest, lun) in self.gone and not whole:
            assert answered == Response.INCORRECT_LUN
            return
        assert answered == Response.OK
        assert all(item.over for item in hit), "a function was answered before what it hit was over"
        if function is TaskManagement.LOGICAL_UNIT_RESET:
            self.nothing_hit_changes_the_disk(guest, lun)

    def note_attentions(self, guest: int, function: TaskManagement, lun: int) -> None:
        """A unit that was reset tells everybody that it knows; a nexus that was lost is greeted as new."""
        if function is TaskManagement.LOGICAL_UNIT_RESET and self.known[guest]:
            pending = self.attentions.setdefault((guest, lun), [])
            if RESET not in pending:
                pending.append(RESET)
        if function is TaskManagement.I_T_NEXUS_RESET:
            self.forget(guest)

    def nothing_hit_changes_the_disk(self, guest: int, lun: int) -> None:
        """What this guest had under way on the unit is over for good, copies in the background too."""
        assert not [item for item in self.bench.guests[guest].open if item.lun == lun and not item.over]
        running = self.bench.manager.operations.touching(f"d{lun}")
        assert not [item for item in running if (self.name_of(item.nexus), item.lun) == ("AB"[guest], lun)]
        others = [
            item for one in self.bench.guests for item in one.open if item.wrote and item.wrote[0] == lun
        ]
        background = self.bench.manager.operations.touching(f"d{lun}")
        if not others and not background:
            self.settle(lun)

    @staticmethod
    def name_of(nexus: object) -> str:
        """The guest of a nexus, whatever life it is of."""
        assert isinstance(nexus, tuple)
        return str(nexus[0])

    def settle(self, lun: int) -> None:
        """Whatever the blocks hold now, they go on holding."""
        content = self.bench.disks[lun].content()
        for block in range(BLOCKS):
            self.may_hold[lun][block] = {content[block * BLOCK : (block + 1) * BLOCK]}

    @rule(guest=guests, function=functions, lun=luns)
    def task_management(self, guest: int, function: TaskManagement, lun: int) -> None:
        """Between two jobs."""
        self.manage(guest, function, lun)

    @rule(guest=guests, lun=luns, token=tokens, lba=st.integers(0, BLOCKS - 1), unload=st.booleans())
    def reset_a_unit_with_a_copy(self, guest: int, lun: int, token: bytes, lba: int, *, unload: bool) -> None:
        """A copy in the background has been begun, perhaps by a driver that is gone by now."""
        self.use(guest, lun, token, lba, immediate=True)
        if unload:
            self.unload(guest)
        self.manage(guest, TaskManagement.LOGICAL_UNIT_RESET, lun)

    @rule(
        guest=guests,
        lun=luns,
        token=tokens,
        lba=st.integers(0, BLOCKS - 1),
        immediate=st.booleans(),
        function=st.one_of(functions, st.just("unplug"), st.just("abort copy")),
        at=st.integers(1, 4),
    )
    def interrupt_a_copy(
        self,
        guest: int,
        lun: int,
        token: bytes,
        lba: int,
        *,
        immediate: bool,
        function: TaskManagement | str,
        at: int,
    ) -> None:
        """In the middle of its job: what was written is a beginning of the token's data, the rest is as it was."""
        self.run_all()
        before, wanted = self.bench.disks[lun].content(), self.expected(token)
        item, left, most = self.use(guest, lun, token, lba, immediate=immediate), [at], [BLOCKS * BLOCK]

        def interrupt() -> None:
            left[0] -= 1
            if not left[0] and self.interrupt(guest, function, lun, immediate=immediate):
                most[0] = at * copying.STEP

        self.bench.disks[lun].interrupt = interrupt
        self.run_all()
        self.bench.disks[lun].interrupt = None
        if item.wrote is None or wanted is None:
            return
        content = self.bench.disks[lun].content()
        found = content[lba * BLOCK : lba * BLOCK + len(item.wrote[2])]
        old = before[lba * BLOCK : lba * BLOCK + len(item.wrote[2])]
        steps = range(0, min(most[0], len(found)) + 1, copying.STEP)
        beginnings = [item.wrote[2][:done] + old[done:] for done in (*steps, min(most[0], len(found)))]
        assert found in beginnings, "not a beginning, or it went on when it was to stop"
        if not immediate and item.response == Response.OK and item.answer.good:
            assert found == item.wrote[2]

    def interrupt(self, guest: int, what: TaskManagement | str, lun: int, *, immediate: bool) -> bool:
        """While the copy runs its answer cannot come: only send. Whether the copy has to stop for it."""
        one = self.bench.guests[guest]
        for item in one.open:
            item.hit = True
        if what == "abort copy":
            sent = self.send(guest, lambda sender: sender.initiator.abort_copy(lun, self.identifier))
            return sent.attention is None
        if isinstance(what, TaskManagement):
            tag = one.open[0].tag if one.open else 999
            one.manage(what, lun, tag)
            self.note_attentions(guest, what, lun)
            return what is TaskManagement.LOGICAL_UNIT_RESET or not immediate
        before = len(self.gone)
        self.unplug(guest, lun)
        return len(self.gone) > before

    @rule(guest=guests)
    def unload(self, guest: int) -> None:
        """The driver goes, or the guest is reset: QEMU stops the rings and resets the device; it is loaded again."""
        one = self.bench.guests[guest]
        for item in one.open:
            item.hit = True
        one.unload(self.bench.runner)
        self.forget(guest)
        one.load()

    def forget(self, guest: int) -> None:
        """The nexus is gone."""
        self.known[guest] = False
        for key in [key for key in self.attentions if key[0] == guest]:
            del self.attentions[key]

    @rule(guest=guests, lun=luns)
    def unplug(self, guest: int, lun: int) -> None:
        """A logical unit is taken away; its commands end, and with the last unit of a disk so do its tokens."""
        if (guest, lun) in self.gone or len(self.gone) == 3:
            return
        for item in self.bench.guests[guest].open:
            item.hit = True
        over: list[bool] = []
        self.bench.guests[guest].target.remove(lun, over.append)
        self.gone.add((guest, lun))
        self.attentions.pop((guest, lun), None)
        other = 1 - lun
        if self.known[guest] and (guest, other) not in self.gone:
            pending = self.attentions.setdefault((guest, other), [])
            if CHANGED not in pending:
                pending.append(CHANGED)

    # -- what the workers do -----------------------------------------------------------------------

    @rule(jobs=st.integers(1, 4))
    def run_some(self, jobs: int) -> None:
        """Some jobs, oldest first."""
        for _ in range(min(jobs, len(self.bench.runner))):
            self.bench.runner.step()

    @rule()
    def run_all(self) -> None:
        """All of them; nothing is left open then."""
        self.bench.runner.run_all()
        self.judge()
        assert [item for one in self.bench.guests for item in one.open] == []
        for lun in range(2):
            self.settle_if_right(lun)

    def settle_if_right(self, lun: int) -> None:
        """With nothing under way the disk holds what it may hold, and goes on holding it."""
        self.disks_hold_what_they_may()
        self.settle(lun)

    @invariant()
    def judge(self) -> None:
        """Whatever has completed says what happened to it."""
        for one in self.bench.guests:
            for item in one.collect():
                if item.tag:
                    self.judge_one(item)

    def judge_one(self, item: Open) -> None:
        """A command's end."""
        assert item.request.written is not None
        assert item.request.written >= RESPONSE_SIZE, "completed without a response"
        if item.response in ENDED:
            assert item.hit, "ended by a function that nobody sent"
            return
        assert item.response == Response.OK
        if item.attention is not None:
            assert item.answer.fault == item.attention
        elif not item.answer.good:
            assert item.answer.fault is not None
            assert item.hit or item.answer.fault in {
                (5, 0x23, 4),
                (5, 0x23, 8),
                (5, 0x24, 0),
                (0xB, 0x11, 0),
            }, item.answer.fault

    @invariant()
    def disks_hold_what_they_may(self) -> None:
        """No block holds anything that nobody wrote there."""
        for lun, disk in enumerate(self.bench.disks):
            content = disk.content()
            for block in range(BLOCKS):
                assert content[block * BLOCK : (block + 1) * BLOCK] in self.may_hold[lun][block]

    @invariant()
    def tokens_show_their_moment(self) -> None:
        """Whatever was reset."""
        for token in self.bench.manager.tokens:
            data = bytearray(token.payload.length)
            token.payload.read(0, memoryview(data))
            assert bytes(data) == self.expected(token.data)

    def teardown(self) -> None:
        """Nothing is left of anything."""
        self.bench.close()


def test_resets(monkeypatch: pytest.MonkeyPatch) -> None:
    """With copies in steps of two blocks, so that a reset finds them in the middle."""
    monkeypatch.setattr(copying, "STEP", 2 * BLOCK)
    run_state_machine_as_test(
        Resets,
        settings=settings(
            max_examples=150, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )
