"""COMPARE AND WRITE and the death of the process: what is noted of each, and how one that is sent again is answered.

Imports the ports and `plan`. A command is noted when its blocks have compared equal and before any of them changes,
and again when all have changed; other writes to them wait for both. So where a command is noted as begun and not as
written, a successor finds what it compared with, what it was to write, or a beginning of that and the rest of what it
compared with. The successor finishes what had begun before it serves anybody (`complete`), and answers GOOD when the
command is sent again. Next: `server/journal/swaps.py` keeps the notes.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Protocol

from qemu_odx.target.plan import GOOD, OnDisk

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterator, Sequence

    from qemu_odx.disk.port import Disk
    from qemu_odx.target.plan import Answer, Plan
    from qemu_odx.target.port import Task

    Key = tuple[Hashable, bytes]
    """Nexus and stamp of a request."""


@dataclass(slots=True, eq=False)
class Swap:
    """One COMPARE AND WRITE.

    Attributes:
        nexus: it came over.
        stamp: tells it apart from all others of its nexus.
        disk: name of the disk.
        offset: bytes.
        length: bytes that it compares, and as many that it writes.
        old: what it compared with; empty once it has written.
        new: what it writes; empty once it has.
        stable: its answer promises that it is on stable storage.
        note: names its note in a journal, 0 before there is one.
    """

    nexus: Hashable
    stamp: bytes
    disk: str = ""
    offset: int = 0
    length: int = 0
    old: bytes = b""
    new: bytes = b""
    stable: bool = False
    note: int = 0

    def about(self, disk: str, offset: int, old: bytes, new: bytes, *, stable: bool) -> None:
        """What is to be noted."""
        self.disk, self.offset, self.length = disk, offset, len(new)
        self.old, self.new, self.stable = old, new, stable


class SwapJournal(Protocol):
    """Where these commands are noted. Called from any thread; no method raises."""

    def begun(self, swap: Swap) -> None:
        """It has compared equal and is about to write: nobody else writes there until the next call for it."""

    def written(self, swap: Swap) -> None:
        """All of it is written."""

    def dropped(self, notes: Sequence[int]) -> None:
        """These have written nothing that counts, or are not going to be sent again."""


@dataclass(slots=True)
class Swaps:
    """The commands of a copy manager's targets.

    Args:
        journal: None: nothing outlives the process.
    """

    journal: SwapJournal | None
    _of_before: dict[Key, Swap] = field(default_factory=dict)
    _answered: list[int] = field(default_factory=list)
    _published: list[int] = field(default_factory=list)

    def expect(self, task: Task) -> Swap | None:
        """What will be noted of a task; None if nothing is."""
        if self.journal is None or task.stamp is None:
            return None
        swap = Swap(task.nexus, task.stamp)
        task.after_end(partial(self._over, swap))
        return swap

    @contextlib.contextmanager
    def writing(self, swap: Swap | None) -> Iterator[None]:
        """The blocks of a command have compared equal and are written inside, while nobody else writes to them."""
        if swap is None or self.journal is None:
            yield
            return
        self.journal.begun(swap)
        try:
            yield
        except BaseException:
            self.journal.dropped([swap.note])
            raise
        self.journal.written(swap)

    def restore(self, swap: Swap) -> None:
        """A command of before has written. Before all else."""
        self._of_before[swap.nexus, swap.stamp] = swap

    def answer(self, task: Task) -> Plan | None:
        """How a task is answered that had written before; None: it has not."""
        if task.stamp is None or not self._of_before:
            return None
        swap = self._of_before.pop((task.nexus, task.stamp), None)
        if swap is None:
            return None
        task.taken = 2 * swap.length
        task.after_end(partial(self._over, swap))
        return OnDisk(_good, writes=True, stable=True) if swap.stable else GOOD

    def settle(self) -> None:
        """Forget what nobody can send again; to be called now and then, on the event loop.

        An answer is published at the end of its turn of the loop: those of before the last call are.
        """
        if self.journal and self._published:
            self.journal.dropped(self._published)
        self._published, self._answered = self._answered, []

    def give_up(self) -> None:
        """Whoever has not come back by now does not."""
        self._answered += [swap.note for swap in self._of_before.values()]
        self._of_before.clear()

    def _over(self, swap: Swap) -> None:
        if swap.note:
            self._answered.append(swap.note)


def complete(swap: Swap, disk: Disk) -> bool:
    """Whether a command that a kill broke off had begun to write; if so, all of it is written now.

    To be called before anybody may write to the disk. False: it may be sent again, and is then as if it came first
    then; this is so too if the blocks hold what neither it nor its process has left there. Raises OSError.
    """
    begun = False

    def rest(found: bytes) -> bytes | None:
        nonlocal begun
        same = _common_prefix(found, swap.new)
        begun = found == swap.new or (found != swap.old and found[same:] == swap.old[same:])
        return swap.new if begun and found != swap.new else None

    disk.update(swap.offset, swap.length, rest)
    return begun


def _common_prefix(one: bytes, other: bytes) -> int:
    return next((at for at, (a, b) in enumerate(zip(one, other, strict=True)) if a != b), len(one))


def _good(_disk: Disk) -> Answer:
    return GOOD
