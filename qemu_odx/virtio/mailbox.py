"""The mailbox of a virtio-blk disk: request pages become SCSI commands, their ends response pages.

Imports `wire/mailbox`, `virtio/chain` and the seam `target/port`. All addresses are bytes from the start of the
window, which `virtio/window.py` cuts out of the disk; `virtio/blk_packet.py` sends commands here too. A request page
is copied from guest memory once, and only the copy is looked at. The protocol is `docs/mailbox.md`.
Next: `ScsiTarget.submit`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

from qemu_odx.target.port import LoginNexus, Task
from qemu_odx.virtio.chain import fill, split
from qemu_odx.wire import mailbox as wire
from qemu_odx.wire.mailbox import Result

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Sequence

    from qemu_odx.disk.dispatch import Done
    from qemu_odx.target.port import Reply, ScsiTarget

    Stamp = Callable[[], bytes | None]
    """Tells a request from all others, also when another process runs it again; None: nothing does."""

_LUN: Final = 0
_SHORT_CDB: Final = 16
_VARIABLE_LENGTH: Final = 0x7F
"""Operation code of commands longer than 16 bytes (SPC-4 4.2.3)."""
_TASK_ABORTED: Final = 0x40
"""Status TASK ABORTED (SAM-5 5.3.1)."""
_HEAD_AREAS: Final = wire.HEAD_PAGE // wire.AREA


@dataclass(slots=True)
class Slot:
    """One place for a command at a time.

    Attributes:
        user: whose last request was taken, 0 before the first.
        sequence: that request's.
        running: its command has not ended.
        leased_until: from then on another user may come.
        response: what the response area shows, zeros behind it.
        stamp: of the request that it answers, None if that has none.
    """

    user: int = 0
    sequence: int = 0
    running: bool = False
    leased_until: float = 0.0
    response: bytes = b""
    stamp: bytes | None = None

    def fault(self, sequence: int, user: int, now: float) -> Result:
        """Why the slot does not take a sound request now; EXECUTED if it does."""
        if self.running or (user != self.user and now < self.leased_until):
            return Result.SLOT_TAKEN
        if user == self.user and sequence <= self.sequence:
            return Result.BAD_SEQUENCE
        return Result.EXECUTED


class SlotJournal(Protocol):
    """Where a mailbox notes what a successor in another process shows in its place. No method raises."""

    def answered(self, nexus: Hashable, slot: int, shown: Slot, lease: float) -> None:
        """A slot shows a response, and is its user's for `lease` seconds: noted before its request is completed."""

    def forgotten(self) -> None:
        """All slots are empty again: there is a new nexus."""

    def recall(self, nexus: Hashable) -> list[tuple[int, Slot]]:
        """The slots that a predecessor left to this nexus; `leased_until` is how many seconds are left."""


class Mailbox:
    """The slots of one front-end connection, and its I_T nexus.

    Args:
        target: executes the commands; its logical unit 0 is the disk.
        head: what the head page says.
        clock: seconds, monotonic.
        new_nexus: makes the identity of a nexus, one for each life of a driver.
        journal: notes the slots; None: they end with the process.
    """

    def __init__(
        self,
        target: ScsiTarget,
        head: wire.Head,
        clock: Callable[[], float],
        *,
        new_nexus: Callable[[], Hashable] = object,
        journal: SlotJournal | None = None,
    ) -> None:
        self._journal = journal
        self.offset = head.offset
        self._target = target
        self._clock = clock
        self._new_nexus = new_nexus
        self._head = head.packed()
        self._nexus = new_nexus()
        self._slots = [Slot() for _ in range(wire.SLOTS)]

    def reset(self) -> None:
        """The driver is gone, with all its requests ended: so are its nexus and what the slots hold."""
        old, self._nexus = self._nexus, self._new_nexus()
        self._slots = [Slot() for _ in range(wire.SLOTS)]
        if self._journal:
            self._journal.forgotten()
        self._target.nexus_loss(old, _nothing)

    def kept(self) -> bytes:
        """What names the nexus to a successor in another process."""
        return self._nexus.kept() if isinstance(self._nexus, LoginNexus) else b""

    def restore(self, kept: bytes) -> None:
        """Go on with a predecessor's nexus and what its slots hold, if that is another than ours."""
        nexus = self._nexus.again(kept) if isinstance(self._nexus, LoginNexus) else self._nexus
        if nexus == self._nexus:
            return
        self._nexus = nexus
        self._slots = [Slot() for _ in range(wire.SLOTS)]
        for number, slot in self._journal.recall(nexus) if self._journal else ():
            slot.leased_until += self._clock()
            self._slots[number] = slot

    def submit(
        self,
        cdb: bytes,
        data_out: Sequence[memoryview],
        data_in: Sequence[memoryview],
        done: Callable[[Reply], None],
        stamp: bytes | None = None,
    ) -> None:
        """Send a command of 6 to 32 bytes to the logical unit, over this connection's nexus."""
        padded = cdb.ljust(wire.MAX_CDB, b"\0")
        whole = padded if cdb[0] == _VARIABLE_LENGTH else padded[:_SHORT_CDB]
        self._target.submit(Task(self._nexus, _LUN, whole, data_out, data_in, done, stamp=stamp))

    def read(self, at: int, into: list[memoryview], done: Done) -> None:
        """Fill the buffers with what the window shows from `at` on."""
        length = sum(map(len, into))
        first, skipped = divmod(at, wire.AREA)
        last = (at + length - 1) // wire.AREA
        shown = b"".join(map(self._area, range(first, last + 1)))
        fill(into, shown[skipped:])
        done(0)

    def _area(self, number: int) -> bytes:
        """The 8 KiB that the window shows there: head page, request areas, response areas."""
        slot, is_response = divmod(number - _HEAD_AREAS, 2)
        shown = b"" if number else self._head
        if slot >= 0 and is_response:
            shown = self._slots[slot].response
        return shown.ljust(wire.AREA, b"\0")

    def write(self, at: int, data: list[memoryview], done: Done, stamp: Stamp | None = None) -> None:
        """Take what was written from `at` on: a request if that is the start of a slot, else nothing.

        `done` comes when the request's command has ended; it never says failure.
        """
        number, inside = divmod(at - wire.HEAD_PAGE, wire.SLOT)
        if number < 0 or inside:
            done(0)
            return
        page = b"".join(split(data, wire.AREA)[0])
        self._request(number, page, done, stamp() if stamp else None)

    def _request(self, number: int, page: bytes, done: Done, stamp: bytes | None) -> None:
        slot = self._slots[number]
        if stamp is not None and stamp == slot.stamp:
            done(0)  # answered by a predecessor, which was killed before the driver could see that
            return
        sequence, user = wire.identity(page)
        refusal = wire.fault(page) or slot.fault(sequence, user, self._clock())
        if refusal:
            self._show(slot, number, wire.Response(sequence, user, refusal), stamp)
            done(0)
            return
        request = wire.Request.parse(page)
        slot.user, slot.sequence, slot.running = user, sequence, True
        data_out = [memoryview(request.data_out)] if request.data_out else []
        data_in = bytearray(request.wanted)
        room = [memoryview(data_in)] if data_in else []

        def ended(reply: Reply) -> None:
            slot.running = False
            slot.leased_until = self._clock() + wire.LEASE
            self._show(slot, number, _response(request, data_in, reply), stamp)
            done(0)

        self.submit(request.cdb, data_out, room, ended, stamp)

    def _show(self, slot: Slot, number: int, response: wire.Response, stamp: bytes | None) -> None:
        slot.response, slot.stamp = response.packed(), stamp
        if self._journal:
            self._journal.answered(self._nexus, number, slot, slot.leased_until - self._clock())


def starved(reply: Reply, given: int) -> bool:
    """True if the target did nothing for want of data-out, of which `given` bytes came: its GOOD would be a lie."""
    return not reply.status and reply.data_out_length > given


def shown_status(reply: Reply) -> int:
    """The status of a command; one that another nexus ended has none of its own (SAM-5 5.3.1)."""
    return _TASK_ABORTED if reply.aborted else reply.status


def _response(request: wire.Request, data_in: bytearray, reply: Reply) -> wire.Response:
    if starved(reply, len(request.data_out)):
        return wire.Response(request.sequence, request.user, Result.BAD_LENGTH)
    return wire.Response(
        request.sequence,
        request.user,
        Result.EXECUTED,
        status=shown_status(reply),
        sense=reply.sense[: wire.MAX_SENSE],
        data_in=bytes(data_in[: reply.data_in_length]),
        offered=reply.data_in_length + reply.overrun,
    )


def _nothing() -> None:
    """All queues are stopped: no task of the old nexus is left to wait for."""
