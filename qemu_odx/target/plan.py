"""What a command handler answers: a finished reply, or a plan of work on disks that `target/execute.py` does.

Imports `wire/scsi` and the ports. Handlers look at bytes and decide; they never touch a file.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable

    from qemu_odx.disk.port import Disk
    from qemu_odx.tokens.operations import Operation
    from qemu_odx.wire.scsi.sense import Sense, Status


@dataclass(frozen=True, slots=True)
class Data:
    """GOOD with data-in, already cut to the allocation length."""

    data: bytes = b""


GOOD = Data()


@dataclass(frozen=True, slots=True)
class ReadBlocks:
    """Read `length` bytes at `offset` into the data-in buffers."""

    offset: int
    length: int


@dataclass(frozen=True, slots=True)
class WriteBlocks:
    """Write `length` bytes of data-out at `offset`; `stable` puts them on stable storage (FUA)."""

    offset: int
    length: int
    stable: bool


Answer: TypeAlias = "Data | Sense | Status"


@dataclass(frozen=True, slots=True)
class OnDisk:
    """Run `work` on a worker; what it returns is the answer, an OSError becomes a medium error.

    Attributes:
        writes: it changes the disk: without a write cache, that is made stable before the answer.
        stable: made stable in any case (FUA).
    """

    work: Callable[[Disk], Answer]
    writes: bool = False
    stable: bool = False


@dataclass(frozen=True, slots=True)
class StartCopy:
    """Begin a copy operation.

    Attributes:
        operation: entered in the operation table, running.
        work: done on a worker: the slow part.
        settle: called on the event loop with its result or exception; ends `operation` and gives the answer of
            the command (nobody hears it if `immediate`).
        immediate: IMMED: answer GOOD at once and go on in the background.
    """

    operation: Operation
    work: Callable[[], object]
    settle: Callable[[object], Answer]
    immediate: bool


@dataclass(frozen=True, slots=True)
class WaitFor:
    """Answer GOOD once `operation` has ended."""

    operation: Operation


@dataclass(frozen=True, slots=True)
class Deferred:
    """`begin` is given a callback and calls it once with the answer, now or later."""

    begin: Callable[[Callable[[Answer], None]], None]


Plan: TypeAlias = "Answer | ReadBlocks | WriteBlocks | OnDisk | StartCopy | WaitFor | Deferred"
