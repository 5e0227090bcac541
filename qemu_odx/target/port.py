"""What a front door (virtio-scsi, mailbox) asks of the SCSI target.

Imports types of the storage port and of `tap/`. Implemented by `target/target.py`; used by `virtio/scsi.py`.
All calls come from the event loop's thread; `done` is called there too, exactly once per task, perhaps
before `submit` returns.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Sequence

    from qemu_odx.disk.port import Disk
    from qemu_odx.tap.exchange import Origin
    from qemu_odx.tap.gate import Gate

    Nexus = Hashable
    """An I_T nexus: one initiator seen through one target port. Compared, never looked into."""


_LIFE = 8


@dataclass(frozen=True, slots=True)
class LoginNexus:
    """An I_T nexus whose initiator port comes back: one life of a guest's driver at a front door.

    Attributes:
        port: names the initiator port. Registrations of persistent reservations belong to it.
        life: tells one login from the next: tasks, results and unit attentions belong to that.
    """

    port: str
    life: int

    def kept(self) -> bytes:
        """What names the life to a successor in another process."""
        return self.life.to_bytes(8, "big")

    def again(self, kept: bytes) -> LoginNexus:
        """The nexus of the same port whose life was kept; this one if none was."""
        return LoginNexus(self.port, int.from_bytes(kept, "big")) if len(kept) == _LIFE else self


def initiator_port(nexus: Nexus) -> Hashable:
    """What of a nexus outlives its loss (SPC-4 5.13.5: registrations stay)."""
    return nexus.port if isinstance(nexus, LoginNexus) else nexus


@dataclass(frozen=True, slots=True)
class Reply:
    """The end of a SCSI task.

    Attributes:
        status: SAM status byte (00h GOOD, 02h CHECK CONDITION, 18h RESERVATION CONFLICT, ...).
        sense: fixed-format sense data, empty with GOOD.
        data_in_length: bytes written to the data-in buffers, counted from their start.
        data_out_length: bytes of the data-out buffers that the command asked for (may exceed what was given).
        aborted: True if a task management function ended the task (no status is to be shown).
        overrun: bytes that the command wanted to return but that did not fit (0 normally: truncation by the
            allocation length is no overrun).
    """

    status: int
    sense: bytes = b""
    data_in_length: int = 0
    data_out_length: int = 0
    aborted: bool = False
    overrun: int = 0


@dataclass(slots=True)
class Task:
    """One SCSI command on its way through the target.

    Attributes:
        nexus: the I_T nexus it came over.
        lun: logical unit number, flat (0..16383).
        cdb: 16 or 32 bytes, a private copy.
        data_out: the initiator's data, guest memory: parameter lists are copied once before they are looked at.
        data_in: where data for the initiator goes, guest memory.
        done: called once with the reply.
        taken: bytes of data-out that the command asked for, set on its way.
        origin: where it came from, if somebody watches.
        limit: blocks after which a token command is to end, None for all of it.
        stamp: tells it apart from every other task of its nexus, also when it is sent again to another process after
            this one was killed; None if its front door cannot tell.
        parameters: the parameter list as it was copied on its way.
    """

    nexus: Nexus
    lun: int
    cdb: bytes
    data_out: Sequence[memoryview]
    data_in: Sequence[memoryview]
    done: Callable[[Reply], None]
    tag: int = 0
    taken: int = 0
    origin: Origin | None = None
    limit: int | None = None
    stamp: bytes | None = None
    parameters: bytes = b""

    def after_end(self, call: Callable[[], None]) -> None:
        """Call once more, just after it has been answered."""
        done = self.done

        def both(reply: Reply) -> None:
            done(reply)
            call()

        self.done = both


class PlainAccess(NamedTuple):
    """A logical unit on which the initiator's plain READ and WRITE commands need no more checks just now.

    Plain: SIMPLE, without FUA or any other flag, inside the medium, buffers of just the right length.

    Attributes:
        disk: where its data are.
        writable: WRITE too, and its data need not be flushed.
    """

    disk: Disk
    writable: bool


class GuestControl(Protocol):
    """What a guest steers with WRITE BUFFER and READ BUFFER in vendor-specific mode."""

    def command(self, data: bytes) -> bool:
        """Do what the data say, before this returns; False if it cannot be done."""

    def report(self) -> bytes:
        """What there is to read."""


class ScsiTarget(Protocol):
    """A SCSI target device: some logical units, one copy manager.

    Attributes:
        gate: where commands pass while somebody watches.
    """

    gate: Gate

    def luns(self) -> tuple[int, ...]:
        """The logical unit numbers that exist, ascending."""

    def luns_on(self, disk_name: str) -> tuple[int, ...]:
        """Those of them that are on a disk."""

    def disk_name(self, lun: int) -> str:
        """The disk of a logical unit; "" if there is no such unit."""

    def submit(self, task: Task) -> None:
        """Execute a task."""

    def plain_access(self, nexus: Nexus, lun: int) -> PlainAccess | None:
        """Whether plain reads and writes may be done on the disk itself, until this call's turn ends.

        None: submit every command; there is something to be told or to be refused.
        """

    def abort_task(self, nexus: Nexus, lun: int, tag: int, over: Callable[[bool], None]) -> None:
        """ABORT TASK; `over(True)` if the task was there.

        This and the next ones call `over` once every task they hit has ended: guest buffers are in use until
        then. Perhaps before they return.
        """

    def abort_task_set(self, nexus: Nexus, lun: int, over: Callable[[], None]) -> None:
        """ABORT TASK SET: end every task of this nexus on the LUN."""

    def clear_task_set(self, lun: int, over: Callable[[], None]) -> None:
        """CLEAR TASK SET: end every task of every nexus on the LUN."""

    def reset_lun(self, lun: int, over: Callable[[bool], None]) -> None:
        """LOGICAL UNIT RESET; `over(False)` if there is no such LUN."""

    def nexus_loss(self, nexus: Nexus, over: Callable[[], None]) -> None:
        """The I_T nexus went away (guest reset, front end gone): drop its results, end its tasks."""

    def query_task(self, nexus: Nexus, lun: int, tag: int) -> bool:
        """QUERY TASK: True if the task is still in the task set."""

    def query_task_set(self, nexus: Nexus, lun: int) -> bool:
        """QUERY TASK SET: True if the nexus has any task on the LUN."""
