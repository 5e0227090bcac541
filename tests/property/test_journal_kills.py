"""A server that is killed at any step of its journal, again and again: nothing of it is to be noticed.

A kill is the end of every descriptor and of the journal, between two of its statements, between a statement and the
write that it made possible, or in the middle of a write. What a guest had in flight is sent again, as from the
in-flight area. The model knows of no kills: every command must answer, and every byte be, as if there had been none.
"""

from __future__ import annotations

import itertools
import os
import random
from typing import TYPE_CHECKING, Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    invariant,
    rule,
    run_state_machine_as_test,
)

from qemu_odx.disk import image, side
from qemu_odx.disk.file import open_disk
from qemu_odx.disk.hostfile import HostFile
from qemu_odx.server.journal import disks
from qemu_odx.server.journal.folder import StateFolder
from qemu_odx.server.journal.revival import revive
from qemu_odx.target.manager import CopyManager
from qemu_odx.target.port import LoginNexus, Task
from qemu_odx.target.target import Target
from qemu_odx.testing.clock import VirtualClock
from qemu_odx.testing.initiator import Answer, Initiator
from qemu_odx.testing.oracle import Oracle
from qemu_odx.testing.runner import InlineRunner
from qemu_odx.wire.scsi.token_lists import Range, TokenInformation

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    import pytest

BLOCK = 512
BLOCKS = 640  # five clusters of old data
SIZE = BLOCK * BLOCKS
SCRATCH = 2
"""A disk that only tokens are written to, to look at them."""
NEXUS = LoginNexus("p", 1)
luns = st.integers(0, 1)


OPEN_FILES: list[HostFile] = []


class Recorded(HostFile):
    """A host file that a kill finds."""

    def __init__(self, fd: int) -> None:
        super().__init__(fd)
        OPEN_FILES.append(self)

    def write(self, offset: int, data: Sequence[memoryview | bytes], length: int) -> None:
        """A step of the process too: what was written of it is there."""
        whole = b"".join(data)
        part = length // 3
        if part:
            super().write(offset, [whole[:part]], part)
        if Life.last:
            Life.last.burn()
        super().write(offset + part, [whole[part:]], length - part)


class Killed(BaseException):
    """The process is no more."""


class Life:
    """One process: its disks, its journal, its target; dead after so many steps of the journal."""

    last: Life | None = None

    def __init__(self, folder: Path, policy: Any, clock: VirtualClock, fuse: int | None) -> None:
        Life.last = self
        self.fuse = fuse
        self.dead = False
        self.disks: list[Any] = []
        self.state = StateFolder(folder / "state", ruler=clock)
        write = self.state.store.write

        def step(sql: str, *rows: tuple[Any, ...]) -> None:
            self.burn()
            write(sql, *rows)
            self.burn()

        self.state.store.write = step  # type: ignore[method-assign]
        for name in ("d0", "d1", "d2"):
            journal = self.state.disk(name)
            disk = open_disk(name, folder / f"{name}.img", size=SIZE, snapshots=policy, journal=journal)
            self.disks.append(disk)
        self.manager = CopyManager(InlineRunner(), clock, journal=self.state.copies(clock))
        revive(self.manager, self.state, self.disks)
        self.target = Target.on(dict(enumerate(self.disks)), self.manager, InlineRunner())
        self.target.port = NEXUS.port
        self.manager.go_on()

    def burn(self) -> None:
        """A step nearer to the end."""
        if self.fuse is not None and not self.dead:
            self.fuse -= 1
            if self.fuse < 0:
                self.kill()
                raise Killed

    def kill(self) -> None:
        """Nothing is written any more, not even what is half done."""
        self.dead = True
        self.state.store._failed = None
        self.state.store._db.close()
        os.close(self.state._lock)
        while OPEN_FILES:
            OPEN_FILES.pop().close()

    def end(self) -> None:
        """An orderly end."""
        self.manager.pause()
        for disk in self.disks:
            disk.close()
        self.state.close()


class Machine(RuleBasedStateMachine):
    """Every rule does the same to the target and to the model."""

    folder: Path
    policy: str
    tokens = Bundle("tokens")

    def __init__(self) -> None:
        super().__init__()
        if Life.last and not Life.last.dead:  # of an example that failed
            Life.last.kill()
        for file in [
            *self.folder.glob("*.img"),
            *self.folder.glob(".*.odx-old"),
            *self.folder.glob("state/*"),
        ]:
            file.unlink()
        self.clock = VirtualClock(1000.0)
        self.stamps = itertools.count(1)
        self.kills = 0
        self.settled = False
        self.intruder: Callable[[Life], None] | None = None
        self.life: Life | None = None
        self.fuse: int | None = None
        self.begin()
        self.initiator = Initiator(self.carry)
        self.initiator.command(0, "00")
        content = {lun: bytearray(SIZE) for lun in range(3)}
        self.oracle = Oracle(dict.fromkeys(range(3), BLOCK), content)
        self.bytes: dict[str, bytes] = {}
        self.identifiers: dict[str, int] = {}

    # -- kills -------------------------------------------------------------------------------------

    def begin(self) -> Life:
        """A process, or as many as it takes: the next one may die while it begins."""
        while self.life is None or self.life.dead:
            fuse, self.fuse = self.fuse, None
            self.life = Life.__new__(Life)
            try:
                self.life.__init__(self.folder, self.policy, self.clock, fuse)  # type: ignore[misc]
            except Killed:
                self.kills += 1
        return self.life

    def again(self) -> Life:
        """The process is gone."""
        self.kills += 1
        return self.begin()

    def through(self, what: Any) -> Any:
        """Do it, again if the process died on the way."""
        while True:
            life = self.begin()
            try:
                result = what(life)
            except (Killed, OSError, ValueError):
                if not life.dead:
                    raise
            else:
                if not life.dead:
                    return result
            self.again()

    def carry(self, lun: int, cdb: bytes, data_out: bytes) -> Answer:
        """A command, sent again with its stamp if the process dies."""
        stamp = b"%d" % next(self.stamps)

        kills = self.kills

        def once(life: Life) -> Answer:
            if self.kills > kills and self.intruder:
                self.intruder(life)
                self.intruder = None
            replies = []
            into = bytearray(0 if data_out else 4096)
            task = Task(
                NEXUS, lun, cdb, [memoryview(data_out)], [memoryview(into)], replies.append, stamp=stamp
            )
            life.target.submit(task)
            if life.dead:
                raise Killed
            (reply,) = replies
            return Answer(reply.status, reply.sense, bytes(into[: reply.data_in_length]))

        while (answer := self.through(once)).fault == (6, 0x29, 0):
            assert not self.settled, "the initiator heard of a restart"
        return answer

    @rule(after=st.integers(0, 40))
    def kill_soon(self, after: int) -> None:
        """After some steps."""
        self.begin().fuse = after

    @rule(after=st.integers(0, 12))
    def kill_now_and_while_it_begins(self, after: int) -> None:
        """The next process dies before it is ready, if it lasts no longer."""
        self.begin().kill()
        self.fuse = after
        self.again()

    @rule()
    def restart(self) -> None:
        """An upgrade."""
        life = self.begin()
        life.fuse = None
        life.end()
        life.dead = True
        self.again()

    @rule(seconds=st.sampled_from([1, 4, 30]))
    def wait(self, seconds: int) -> None:
        """Time passes; tokens expire, quiet initiators are noted."""
        self.clock.advance(seconds)
        self.oracle.now += seconds
        self.command_all()
        kills = self.kills
        self.through(lambda life: life.manager.settle())
        self.settled |= self.kills == kills

    def command_all(self) -> None:
        """The initiator speaks to every unit: it has nothing left to be told."""
        for lun in range(3):
            assert self.initiator.command(lun, "00").good

    # -- what guests do ----------------------------------------------------------------------------

    @rule(data=st.data(), lun=luns, seed=st.integers(1, 255))
    def write(self, data: st.DataObject, lun: int, seed: int) -> None:
        """A write by another front door."""
        lba, blocks = data.draw(places(200))
        content = bytes((seed + number) % 256 for number in range(blocks)) * BLOCK
        self.through(lambda life: life.disks[lun].write(lba * BLOCK, [content]))
        self.oracle.write(lun, lba, content)

    @rule(data=st.data(), lun=luns, equal=st.booleans(), intrude=st.booleans(), after=st.integers(0, 5))
    def compare_and_write(
        self, data: st.DataObject, lun: int, equal: bool, intrude: bool, after: int
    ) -> None:
        """COMPARE AND WRITE, killed on the way; another one may write there before it is sent again."""
        self.begin().fuse = after
        lba, blocks = data.draw(places(200))
        old = self.oracle.read(lun, lba, blocks)
        new, theirs = (random.Random(next(self.stamps)).randbytes(blocks * BLOCK) for _ in range(2))
        done = True

        def intruder(life: Life) -> None:
            nonlocal done
            seen = bytearray(blocks * BLOCK)
            life.disks[lun].read(lba * BLOCK, [memoryview(seen)])
            assert seen in (old, new)
            done = seen == new
            life.disks[lun].write(lba * BLOCK, [theirs])

        self.intruder = intruder if intrude else None
        wanted = old if equal else new
        answer = self.initiator.compare_and_write(lun, lba, blocks, wanted, new)
        intruded, self.intruder = intrude and self.intruder is None, None
        assert answer.good if equal and done else answer.fault == (0xE, 0x1D, 0)
        if intruded:
            self.oracle.write(lun, lba, theirs)
        elif equal:
            self.oracle.write(lun, lba, new)

    @rule(data=st.data(), lun=luns)
    def discard(self, data: st.DataObject, lun: int) -> None:
        """Old data must be kept from this too."""
        lba, blocks = data.draw(places(200))
        self.through(lambda life: life.disks[lun].discard(lba * BLOCK, blocks * BLOCK))
        self.oracle.zero(lun, lba, blocks)

    @rule(target=tokens, data=st.data(), lun=luns, timeout=st.sampled_from([0, 5, 600]))
    def populate(self, data: st.DataObject, lun: int, timeout: int) -> str:
        """POPULATE TOKEN, and its result."""
        ranges = data.draw(disjoint())
        name = f"T{len(self.identifiers)}"
        self.identifiers[name] = identifier = next(self.initiator.identifiers)
        answer = self.initiator.populate(
            lun, [Range(*item) for item in ranges], identifier=identifier, timeout=timeout
        )
        assert answer.good, answer
        token = TokenInformation.parse(self.initiator.information(lun, identifier).data).token
        assert token is not None
        self.bytes[name] = token
        self.oracle.populate(name, lun, ranges, timeout or 60)
        return name

    @rule(token=tokens)
    def ask_again(self, token: str) -> None:
        """A result is kept for ten minutes, longer than anything here lasts."""
        found = TokenInformation.parse(self.initiator.information(0, self.identifiers[token]).data)
        assert found.token == self.bytes[token]

    @rule(data=st.data(), token=tokens, lun=luns, offset=st.integers(0, 20), immediate=st.booleans())
    def write_token(self, data: st.DataObject, token: str, lun: int, offset: int, immediate: bool) -> None:
        """WRITE USING TOKEN, in the foreground or the background, onto its own source too."""
        ranges = data.draw(disjoint())
        room = max(0, len(self.oracle.tokens[token].data) // BLOCK - offset)
        ranges = [item for item in ranges if (room := room - item[1]) >= 0] or [(0, 0)]
        self.use(token, lun, ranges, offset, immediate=immediate)

    @rule(data=st.data(), token=consumes(tokens))
    def look_and_delete(self, data: st.DataObject, token: str) -> None:
        """All of a token's data, written to a disk that is nobody's source; then there is no token any more."""
        blocks = len(self.oracle.tokens[token].data) // BLOCK
        first = data.draw(st.integers(0, BLOCKS - blocks))
        self.use(token, SCRATCH, [(first, blocks)], 0, delete=True)
        if self.oracle.alive(token):
            again = self.initiator.write_token(SCRATCH, self.bytes[token], [Range(0, 1)])
            assert again.fault == (5, 0x23, 9)
        del self.bytes[token]

    def use(self, token: str, lun: int, ranges: list[tuple[int, int]], offset: int, **options: bool) -> None:
        """WRITE USING TOKEN, and what its result says."""
        identifier = next(self.initiator.identifiers)
        answer = self.initiator.write_token(
            lun,
            self.bytes[token],
            [Range(*item) for item in ranges],
            offset=offset,
            identifier=identifier,
            **options,
        )
        if not self.oracle.alive(token):
            assert answer.fault == (5, 0x23, 7)
        elif offset * BLOCK >= len(self.oracle.tokens[token].data) and (offset or ranges != [(0, 0)]):
            assert answer.fault == (5, 0x26, 0)
        else:
            assert answer.good, answer
            written = self.oracle.write_token(token, lun, offset, ranges)
            found = TokenInformation.parse(self.initiator.information(lun, identifier).data).status
            assert (found.status, found.count) == (1, written)

    # -- what must be so ---------------------------------------------------------------------------

    @invariant()
    def all_is_as_the_model_says(self) -> None:
        """Every byte of every disk."""
        for lun in range(3):
            into = bytearray(SIZE)
            self.begin().disks[lun].read(0, [memoryview(into)])
            assert into == self.oracle.content[lun]

    @invariant()
    def no_token_is_doubled_or_lost(self) -> None:
        """Those that have not expired or been deleted, and no others."""
        self.through(lambda life: life.manager.tokens.expire())
        life = self.begin()
        assert len(life.manager.tokens) == sum(map(self.oracle.alive, self.bytes))

    def teardown(self) -> None:
        """When every token is gone, nothing is left behind."""
        self.clock.advance(100_000)
        self.begin().fuse = None
        life = self.begin()
        life.manager.tick()
        life.manager.settle()
        assert [disk._side.used for disk in life.disks] == [0, 0, 0]
        assert not life.state.store.rows("SELECT number FROM held UNION SELECT number FROM saved")
        assert not life.state.store.rows("SELECT identifier FROM tokens")
        life.end()
        life.dead = True
        assert not list(self.folder.glob(".*.odx-old"))


@st.composite
def places(draw: st.DrawFn, most: int) -> tuple[int, int]:
    """An LBA and a count of blocks."""
    lba = draw(st.integers(0, BLOCKS - 1))
    return lba, draw(st.integers(1, min(most, BLOCKS - lba)))


@st.composite
def disjoint(draw: st.DrawFn) -> list[tuple[int, int]]:
    """One to three ranges without overlap, in any order."""
    cuts = sorted(draw(st.sets(st.integers(0, BLOCKS), min_size=2, max_size=6)))
    return draw(
        st.permutations([(low, high - low) for low, high in zip(cuts[::2], cuts[1::2], strict=False)])
    )


def check(folder: Path, policy: str, examples: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run the machine in a folder."""
    for module in (image, side):
        monkeypatch.setattr(module, "HostFile", Recorded)
    monkeypatch.setattr(disks, "GRACE", 3600.0)  # however long a step takes here

    class Mine(Machine):
        pass

    Mine.folder = folder
    Mine.policy = policy
    run_state_machine_as_test(
        Mine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=25,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )


def test_copy_before_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On whatever file system the tests run."""
    check(tmp_path, "copy-before-write", int(os.environ.get("ODX_JOURNAL_EXAMPLES", "60")), monkeypatch)


def test_reflink(xfs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Old data is shared instead of copied."""
    folder = xfs / "kills"
    folder.mkdir()
    check(folder, "reflink", int(os.environ.get("ODX_JOURNAL_EXAMPLES", "40")), monkeypatch)
