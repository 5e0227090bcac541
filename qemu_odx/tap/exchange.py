"""One request on its way through an export, as a tap sees it, and how it ended.

Imports `wire/scsi/spans`. Made only while somebody watches: by `target/tapped.py` (SCSI commands),
`virtio/blk_tapped.py` (virtio-blk requests) and `virtio/scsi_control.py` (task management). Next: `tap/gate.py`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Sequence

    from qemu_odx.tap.decision import Decision
    from qemu_odx.wire.scsi.spans import Span


class Kind(Enum):
    """What an exchange is."""

    SCSI = "scsi"
    """A SCSI command: of a virtio-scsi queue, or sent through the mailbox of a virtio-blk disk (no origin then)."""
    BLK = "blk"
    """A virtio-blk request; those that carry a mailbox page too."""
    CONTROL = "control"
    """A task management function."""
    REFUSED = "refused"
    """A descriptor chain that holds no request; nothing can be decided about it."""


class Origin(NamedTuple):
    """Where a request came from: queue, head, and the lengths of its descriptors in bytes, out and in."""

    queue: int
    head: int
    out: tuple[int, ...]
    into: tuple[int, ...]


@dataclass(slots=True, eq=False)
class Exchange:
    """One request.

    Attributes:
        number: counts the exchanges of the export, from 1.
        export: the export's name.
        kind: which of the following are of use.
        operation: "WRITE USING TOKEN", "READ(16)", "OUT", "LOGICAL UNIT RESET".
        origin: queue and descriptors; None for a command through a mailbox.
        disk: name of the disk, "" if there is none.
        block_size: bytes of one block of `spans`; virtio-blk counts in sectors of 512.
        lun: logical unit number, None for virtio-blk.
        tag: the driver's tag, 0 if it has none.
        nexus: the I_T nexus of a SCSI command.
        cdb: a private copy, b"" for virtio-blk.
        code: virtio-blk request type, or the subtype of a task management function; -1 otherwise.
        data_out: the initiator's data, guest memory. Valid until `ended` returns. The guest may change it: what the
            device copies later may differ from what a tap reads here.
        data_in: where data for the initiator goes; filled when `ended` is called.
        find_spans: see `spans`.
        taken: when it was taken from its queue, by the gate's clock, in seconds.
        started: when it was given to the disk; None before, and if it never was.
        turn: counts what the process gave to disks and targets while it was watched, from 1; 0 before.
        decision: what a tap decided, None if nothing.
    """

    number: int
    export: str
    kind: Kind
    operation: str
    origin: Origin | None = None
    disk: str = ""
    block_size: int = 512
    lun: int | None = None
    tag: int = 0
    nexus: Hashable = None
    cdb: bytes = b""
    code: int = -1
    data_out: Sequence[memoryview] = ()
    data_in: Sequence[memoryview] = ()
    find_spans: Callable[[], tuple[Span, ...]] = tuple
    taken: float = 0.0
    started: float | None = None
    turn: int = 0
    decision: Decision | None = None
    _spans: tuple[Span, ...] | None = field(default=None, repr=False)

    @property
    def spans(self) -> tuple[Span, ...]:
        """The blocks it names, in its order; found when asked for the first time, while the buffers are valid."""
        if self._spans is None:
            self._spans = self.find_spans()
        return self._spans

    @property
    def lba(self) -> int | None:
        """The first block it names."""
        return self.spans[0].lba if self.spans else None

    @property
    def blocks(self) -> int:
        """How many blocks it names."""
        return sum(span.blocks for span in self.spans)

    @property
    def length(self) -> int:
        """Bytes of its data, whichever way they go."""
        return sum(map(len, self.data_out)) + sum(map(len, self.data_in))


class Outcome(NamedTuple):
    """How an exchange ended.

    Attributes:
        status: SAM status of a SCSI command, status byte of a virtio-blk request, response of a task management
            function (VIRTIO 1.2, 5.6.6.2).
        sense: sense data, b"" without.
        data_in: bytes written to the data-in buffers.
        data_out: bytes of data-out that were asked for.
        aborted: a task management function or the end of the queue ended it: `status` was not shown.
        executed: False if the disk or target never saw it.
        ended: when, by the gate's clock, in seconds.
    """

    status: int
    sense: bytes = b""
    data_in: int = 0
    data_out: int = 0
    aborted: bool = False
    executed: bool = True
    ended: float = 0.0
