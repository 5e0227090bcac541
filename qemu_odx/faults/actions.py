"""What a rule can do, as a table: for each action its options, where it happens, and one sentence about it.

Imports `wire` and the names of sense codes. `rule.py` parses by this table, `docs/generate_faults.py` writes a page
for each row, `qemu-odx fault catalogue` prints it.
"""

from __future__ import annotations

import errno
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from qemu_odx.faults.event import Level
from qemu_odx.wire.scsi.sense import Status
from qemu_odx.wire.virtio import blk

if TYPE_CHECKING:
    from qemu_odx.wire.scsi.sense import Sense


@dataclass(frozen=True, slots=True)
class Action:
    """What happens to a request that a rule hits. Which attributes mean something, the row of `ACTIONS` says.

    Attributes:
        name: a key of `ACTIONS`.
        after: it happens after the request was executed, before it is answered.
        sense: sense data for CHECK CONDITION.
        status: SCSI or virtio-blk status.
        blocks: how many blocks are done, from the first on.
        seconds: how long, on the server's clock.
        byte: which byte of the data, None for any.
        bit: which bit of it, 0 the lowest, None for any.
        outgoing: data on its way to the disk, not to the guest.
        length: bytes of the data that reach the disk.
        silent: the guest is told that all is well.
        error: errno of the host.
    """

    name: str
    after: bool = False
    sense: Sense | None = None
    status: int = 0
    blocks: int = 0
    seconds: float = 0.0
    byte: int | None = None
    bit: int | None = None
    outgoing: bool = False
    length: int = 0
    silent: bool = False
    error: int = errno.EIO

    @property
    def levels(self) -> frozenset[Level]:
        """Where it can happen."""
        return _DISK if self.outgoing else ACTIONS[self.name].levels


@dataclass(frozen=True, slots=True)
class ActionKind:
    """A row of the table.

    Attributes:
        summary: what it does, in one sentence.
        levels: where it can happen.
        options: keys that it knows, besides those of every rule.
        required: those of them that must be there.
        operations: what it means without `op=`; empty for all that is possible.
        only: what is possible at all; empty for everything at its levels.
    """

    summary: str
    levels: frozenset[Level]
    options: tuple[str, ...] = ()
    required: tuple[str, ...] = ()
    operations: str = ""
    only: str = ""


_IN_PARTS: Final = "read+WRITE(6)+WRITE(10)+WRITE(12)+WRITE(16)+OUT+token"
_SCSI: Final = frozenset({Level.SCSI})
_BLK: Final = frozenset({Level.BLK})
_DATA: Final = frozenset({Level.SCSI, Level.BLK})
_DOORS: Final = frozenset({Level.SCSI, Level.BLK, Level.CONTROL})
_DISK: Final = frozenset({Level.DISK})

ACTIONS: Final[dict[str, ActionKind]] = {
    "sense": ActionKind(
        "The command ends with CHECK CONDITION and the sense code given.",
        _SCSI,
        ("sense", "key", "information", "when"),
        ("sense",),
    ),
    "status": ActionKind(
        "The command ends with a SCSI status and no sense data: BUSY, TASK SET FULL, RESERVATION CONFLICT, ...",
        _SCSI,
        ("status", "when"),
        ("status",),
    ),
    "blk-status": ActionKind(
        "The virtio-blk request ends with status IOERR or UNSUPP.", _BLK, ("status", "when"), ("status",)
    ),
    "partial": ActionKind(
        "The first blocks are done and no more, then the request fails; a token copy tells how far it came.",
        _DATA,
        ("blocks", "sense", "key"),
        ("blocks",),
        only=_IN_PARTS,
    ),
    "short-read": ActionKind(
        "Only the first blocks of the data come, and the request ends well.",
        _DATA,
        ("blocks",),
        ("blocks",),
        only="read",
    ),
    "bit-flip": ActionKind(
        "One bit of the data is wrong: in what the guest reads, or (way=out) in what reaches the disk.",
        _DATA,
        ("way", "byte", "bit"),
        (),
        "read",
    ),
    "delay": ActionKind(
        "The request waits so many seconds of the server's clock, before it is executed or before its answer.",
        _DOORS,
        ("seconds", "when"),
        ("seconds",),
    ),
    "stall": ActionKind("The request waits until the rule is released.", _DOORS, ("when",)),
    "never-answer": ActionKind(
        "The request gets no answer, and neither does who aborts it or resets the logical unit, "
        "until the driver resets the device or leaves.",
        _DOORS,
        ("when",),
    ),
    "answer-after-reset": ActionKind(
        "The request gets no answer until its logical unit, its I_T nexus or the device is reset; "
        "an abort is of no use.",
        _DOORS,
        ("when",),
    ),
    "drop-connection": ActionKind(
        "The server closes the vhost-user connection of the export; the request at hand goes on.",
        _DOORS,
        ("when",),
    ),
    "kill-backend": ActionKind("The server kills itself by SIGKILL.", _DOORS, ("when",)),
    "disk-error": ActionKind(
        "The host's disk fails with an errno: EIO if nothing else is said.",
        _DISK,
        ("errno",),
        (),
        "disk-read+disk-write+disk-flush+disk-discard+disk-write-zeroes",
    ),
    "out-of-space": ActionKind(
        "The host's file system is full: ENOSPC, for the image or (op=snapshot-keep) for a snapshot's side file.",
        _DISK,
        (),
        (),
        "disk-write+disk-write-zeroes+disk-snapshot",
    ),
    "torn-write": ActionKind(
        "Only the first bytes of a write reach the disk; then it fails or (report=ok) seems to have succeeded.",
        _DISK,
        ("bytes", "report"),
        ("bytes",),
        only="disk-write",
    ),
}
"""Every action, in the order of the documentation."""

STATUSES: Final[dict[str, int]] = {
    status.name.lower().replace("_", "-"): status.value
    for status in Status
    if status != Status.CHECK_CONDITION
}
"""SCSI status words (SAM-5 5.3.1); CHECK CONDITION is `action=sense`."""
BLK_STATUSES: Final[dict[str, int]] = {"ioerr": blk.Status.IOERR, "unsupp": blk.Status.UNSUPP}
"""Status bytes of virtio-blk (VIRTIO 1.2, 5.2.6)."""
ERRNOS: Final[dict[str, int]] = {
    name: getattr(errno, name) for name in ("EIO", "ENOSPC", "EDQUOT", "EROFS", "ETIMEDOUT", "ENODEV")
}
"""What a host's disk may say."""
