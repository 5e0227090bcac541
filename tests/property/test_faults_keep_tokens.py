"""Whatever rules are in force, a token stands for the bytes of its moment or for none: random faults, every door.

Disks 0 and 1 can break in every way; disk 2 cannot, and only token writes reach it, so that each of its blocks can be
told from the tokens that were written there.
"""

from __future__ import annotations

import contextlib
import os
from collections import defaultdict
from typing import TYPE_CHECKING, Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, precondition, rule

from qemu_odx.disk.layers.faults import FaultLayer
from qemu_odx.disk.memory import memory_disk
from qemu_odx.disk.port import SnapshotLostError
from qemu_odx.server.clock import VirtualClock
from qemu_odx.server.events import Events
from qemu_odx.server.faulting.door import Door
from qemu_odx.server.faulting.faults import Faults
from qemu_odx.tap.gate import Gate
from qemu_odx.target.manager import CopyManager
from qemu_odx.target.policy import Policy
from qemu_odx.target.port import Reply, Task
from qemu_odx.target.target import Target
from qemu_odx.testing.initiator import Answer, Initiator
from qemu_odx.testing.runner import InlineRunner
from qemu_odx.wire.scsi import sense
from qemu_odx.wire.scsi.sense import Status
from qemu_odx.wire.scsi.token_lists import Range

if TYPE_CHECKING:
    from collections.abc import Callable

    from qemu_odx.disk.port import Disk, Snapshot
    from qemu_odx.tokens.token import Fault, Token

BLOCKS, SIZE = 64, 512
CLEAN = 2
ranges = st.lists(st.tuples(st.integers(0, BLOCKS - 1), st.integers(0, 12)), min_size=1, max_size=3)
luns = st.sampled_from([0, 1])
DOORS = (
    "op=token,sense=token-expired",
    "op=write+zero,sense=write-error,when=after",
    "op=write,action=status,status=busy",
    "op=token+write,action=status,status=good",
    "action=partial,blocks=0",
    "action=partial,blocks=3",
    "action=partial,blocks=2,op=token",
    "action=bit-flip",
    "op=token+write,action=delay,seconds=5",
    "op=token+write+zero,action=delay,seconds=7,when=after",
    "op=token,action=stall",
    "op=write+token,action=stall,when=after",
    "op=token+zero,action=never-answer",
    "op=token+write,action=answer-after-reset,when=after",
)
"""Rules at the front door."""
DISKS = (
    "action=bit-flip,way=out",
    "action=disk-error",
    "action=disk-error,op=disk-snapshot+snapshot-keep",
    "action=out-of-space",
    "action=out-of-space,op=snapshot-keep",
    "action=torn-write,bytes=300",
    "action=torn-write,bytes=700,report=ok",
    "action=torn-write,bytes=0,report=ok",
)
"""Rules at the disks."""
actions = st.one_of(st.sampled_from(DOORS), st.sampled_from(DISKS))
EXAMPLES = int(os.environ.get("ODX_FAULT_EXAMPLES", "80"))
"""Runs; a soak takes some thousands."""
turns = st.sampled_from(["", "", ",nth=2", ",count=2", ",every=2", ",probability=0.5", ",lba=0-20"])


def no_overlap(items: list[tuple[int, int]]) -> list[Range]:
    """The ranges that fit and do not touch one before them."""
    taken: list[Range] = []
    for lba, blocks in items:
        found = Range(lba, min(blocks, BLOCKS - lba))
        if all(found.end <= other.lba or other.end <= found.lba for other in taken):
            taken.append(found)
    return taken


class FaultyTarget(RuleBasedStateMachine):
    """A target whose rules come and go while commands are under way."""

    tokens = Bundle("tokens")

    @initialize(rules=st.lists(st.tuples(actions, turns), min_size=1, max_size=3))
    def start(self, rules: list[tuple[str, str]]) -> None:
        """Three disks, each block telling where it is; tokens for all of the first two; some rules."""
        self.clock = VirtualClock()
        self.soon: list[Callable[[], None]] = []
        self.below: dict[int, Disk] = {
            lun: memory_disk(f"d{lun}", BLOCKS * SIZE, SIZE) for lun in (0, 1, CLEAN)
        }
        for lun in (0, 1):
            self.below[lun].write(0, [b"".join(bytes([lun, at]) * (SIZE // 2) for at in range(BLOCKS))])
        disks: dict[int, Disk] = {
            0: FaultLayer(self.below[0]),
            1: FaultLayer(self.below[1]),
            CLEAN: self.below[CLEAN],
        }
        manager = CopyManager(InlineRunner(), self.clock, policy=Policy.standard())
        gate = Gate("s", clock=self.clock, later=self.clock.call_later)
        self.target = Target.on(disks, manager, InlineRunner(), gate=gate)
        self.faults = Faults(self.clock, self.soon.append, manager, Events(), kill=lambda: None)
        for disk in disks.values():
            self.faults.add_disk(disk)
        door = Door(frozenset({"s"}), lambda _name: SIZE)
        self.faults.add_door("s", gate, door, lambda: None)
        self.disks = disks
        self.frozen: dict[bytes, bytes] = {}
        self.allowed: dict[int, set[bytes]] = defaultdict(lambda: {bytes(SIZE)})
        self.pending = 0
        manager.tokens.observers.append(self)
        self.initiator = Initiator(self._send)
        for lun in disks:
            self._send(lun, bytes(16), b"")
        for lun in (0, 1):
            self.initiator.populate(lun, [Range(0, BLOCKS)])
        for action, turn in rules:
            self.faults.add(action + turn)

    # What the registry tells.

    def minted(self, token: Token[Snapshot]) -> None:
        """What the disk holds at this moment is what the token stands for from now on."""
        lun = int(str(token.creator)[1:])
        parts = []
        for extent in token.payload.extents:
            part = bytearray(extent.length)
            self.below[lun].read(extent.offset, [memoryview(part)])
            parts.append(bytes(part))
        self.frozen[token.data] = b"".join(parts)

    def ended(self, token: Token[Snapshot], cause: Fault) -> None:
        """A token has died."""

    def _send(
        self, lun: int, cdb: bytes, data_out: bytes, done: Callable[[Reply], None] | None = None
    ) -> Answer:
        """Submit; what waits is answered some time, or never."""
        room = memoryview(bytearray(64 << 10))
        out = [memoryview(data_out)] if data_out else []
        replies: list[Reply] = []

        def ended(reply: Reply) -> None:
            self.pending -= 1
            replies.append(reply)
            if done:
                done(reply)

        self.pending += 1
        self.target.submit(
            Task("I0", lun, cdb.ljust(16, b"\0"), out, [] if out else [room], ended, tag=len(cdb))
        )
        reply = replies[0] if replies else Reply(Status.BUSY)
        return Answer(reply.status, reply.sense, bytes(room[: reply.data_in_length]))

    # Rules.

    @rule(action=actions, turn=turns)
    def arm(self, action: str, turn: str) -> None:
        """One more rule, on top of the others."""
        if len(self.faults.list()) < 6:
            self.faults.add(action + turn)

    @precondition(lambda self: self.faults.list())
    @rule(data=st.data())
    def lift(self, data: st.DataObject) -> None:
        """One rule less; all that waited for it goes on."""
        self.faults.remove(data.draw(st.sampled_from([item.name for item in self.faults.list()])))
        self._run()

    @rule(seconds=st.integers(1, 10))
    def wait(self, seconds: int) -> None:
        """Delays end."""
        self.clock.advance(seconds)
        self._run()

    @rule(lun=st.sampled_from([0, 1, CLEAN]), abort=st.booleans())
    def reset_or_abort(self, lun: int, abort: bool) -> None:
        """Ends what is held, as the task management functions of a guest do."""
        if abort:
            self.target.abort_task_set("I0", lun, lambda: None)
        else:
            self.target.reset_lun(lun, lambda _found: None)
        self._run()
        self.initiator.command(lun, "00")

    @rule(lun=luns, lba=st.integers(0, BLOCKS - 1), blocks=st.integers(1, 12), seed=st.integers(1, 255))
    def write(self, lun: int, lba: int, blocks: int, seed: int) -> None:
        """WRITE(16), or what becomes of it."""
        blocks = min(blocks, BLOCKS - lba)
        self.initiator.write(lun, lba, blocks, bytes([seed]) * blocks * SIZE)
        self.initiator.write(1 - lun, lba, blocks, bytes([seed]) * blocks * SIZE)

    @rule(lun=luns, lba=st.integers(0, BLOCKS - 1), blocks=st.integers(1, 12), seed=st.integers(1, 255))
    def write_beside_scsi(self, lun: int, lba: int, blocks: int, seed: int) -> None:
        """A write that comes by another export of the same disk."""
        blocks = min(blocks, BLOCKS - lba)
        with contextlib.suppress(OSError):
            self.disks[lun].write(lba * SIZE, [bytes([seed]) * blocks * SIZE])

    @rule(lun=luns, items=ranges)
    def unmap(self, lun: int, items: list[tuple[int, int]]) -> None:
        """UNMAP."""
        self.initiator.unmap(lun, no_overlap(items))

    @rule(lun=luns, lba=st.integers(0, BLOCKS - 1), seed=st.integers(0, 255))
    def compare_and_write(self, lun: int, lba: int, seed: int) -> None:
        """COMPARE AND WRITE that finds what it wants."""
        found = bytearray(SIZE)
        self.below[lun].read(lba * SIZE, [memoryview(found)])
        self.initiator.compare_and_write(lun, lba, 1, bytes(found), bytes([seed]) * SIZE)

    @precondition(lambda self: len(self.frozen) < 40)
    @rule(lun=luns, items=ranges, immediate=st.booleans())
    def populate(self, lun: int, items: list[tuple[int, int]], immediate: bool) -> None:
        """POPULATE TOKEN: at once, later or not at all."""
        self.initiator.populate(lun, no_overlap(items), immediate=immediate)

    @precondition(lambda self: self.frozen)
    @rule(data=st.data(), lun=luns, lba=st.integers(0, BLOCKS - 1), blocks=st.integers(0, 20))
    def write_token_to_a_faulty_disk(self, data: st.DataObject, lun: int, lba: int, blocks: int) -> None:
        """WRITE USING TOKEN over disks that other tokens were made from."""
        token = data.draw(st.sampled_from(list(self.frozen)))
        self.initiator.write_token(lun, token, [Range(lba, min(blocks, BLOCKS - lba))])

    @precondition(lambda self: self.frozen)
    @rule(data=st.data(), lba=st.integers(0, BLOCKS - 1), blocks=st.integers(1, 20), offset=st.integers(0, 8))
    def write_token(self, data: st.DataObject, lba: int, blocks: int, offset: int) -> None:
        """WRITE USING TOKEN to the clean disk: what it says to have done is a prefix, and the token's."""
        token = data.draw(st.sampled_from(list(self.frozen)))
        blocks = min(blocks, BLOCKS - lba)
        wanted = self.frozen[token][offset * SIZE : (offset + blocks) * SIZE]
        for at in range(len(wanted) // SIZE):
            self.allowed[lba + at].add(wanted[at * SIZE : (at + 1) * SIZE])
        replies: list[Reply] = []
        self._write_token(token, lba, blocks, offset, replies.append)
        if replies and not replies[0].aborted:  # answered at once: nothing came between
            told = self._told(replies[0], len(wanted) // SIZE)
            assert self._clean(lba, told) == wanted[: told * SIZE]

    def _told(self, reply: Reply, whole: int) -> int:
        """Blocks that a token write says to have written; nothing if a rule has answered in its place."""
        found = sense.parse(reply.sense)
        if found and (found.key, found.asc, found.ascq) == (sense.Key.COPY_ABORTED, 0x0D, 0x04):
            return found.information or 0
        liar = any(item.action == "status" for item in self.faults.list())
        return whole if reply.status == Status.GOOD and not liar else 0

    def _write_token(
        self, token: bytes, lba: int, blocks: int, offset: int, done: Callable[[Reply], None]
    ) -> None:
        sender = Initiator(lambda lun, cdb, out: self._send(lun, cdb, out, done), self.initiator.identifiers)
        sender.write_token(CLEAN, token, [Range(lba, blocks)], offset=offset)

    def _clean(self, lba: int, blocks: int) -> bytes:
        found = bytearray(blocks * SIZE)
        self.below[CLEAN].read(lba * SIZE, [memoryview(found)])
        return bytes(found)

    def _run(self) -> None:
        while self.soon:
            self.soon.pop(0)()

    # What must always hold.

    @invariant()
    def live_tokens_stand_for_their_moment(self) -> None:
        """Every byte of every token that is not lost."""
        if not hasattr(self, "target"):
            return
        for token in self.target.manager.tokens:
            found = bytearray(token.length)
            with contextlib.suppress(SnapshotLostError):
                token.payload.read(0, memoryview(found))
                assert bytes(found) == self.frozen[token.data]

    @invariant()
    def the_clean_disk_holds_old_bytes_alone(self) -> None:
        """Each block is as at the start, or as a token was that was written there."""
        if not hasattr(self, "target"):
            return
        for lba in range(BLOCKS):
            assert self._clean(lba, 1) in self.allowed[lba]

    def teardown(self) -> None:
        """Without rules, everything ends, and every token that lives is good for its bytes by the front door."""
        if not hasattr(self, "target"):
            return
        for item in self.faults.list():
            self.faults.remove(item.name)
        self._run()
        for _ in range(60):  # delays add up, and tokens are to live
            if self.pending:
                self.clock.advance(1)
                self._run()
        assert self.pending == 0
        for lun in self.disks:
            self._send(lun, bytes(16), b"")  # takes the unit attention
        live = {token.data for token in self.target.manager.tokens}
        for token, wanted in self.frozen.items():
            blocks = min(BLOCKS, len(wanted) // SIZE)
            replies: list[Any] = []
            self._write_token(token, 0, blocks, 0, replies.append)
            if token in live and replies[0].status == Status.GOOD:
                assert self._clean(0, blocks) == wanted[: blocks * SIZE]
            else:
                found = sense.parse(replies[0].sense)
                assert found is not None
                assert (found.key, found.asc) == (5, 0x23)
        for token in list(self.target.manager.tokens):
            token.payload.release()
        for disk in self.disks.values():
            disk.close()


TestFaultyTarget = FaultyTarget.TestCase
TestFaultyTarget.settings = settings(
    max_examples=EXAMPLES, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
)
