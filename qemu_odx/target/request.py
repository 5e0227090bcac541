"""One command on its way: the task, its logical unit, and the copy manager, as a handler sees them.

Imports the ports, `lun`, `manager`, `wire/scsi`. Made by `target/target.py`, read by `target/commands/`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from qemu_odx.target.plan import Data

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from qemu_odx.target.lun import LogicalUnit
    from qemu_odx.target.manager import CopyManager
    from qemu_odx.target.plan import Plan
    from qemu_odx.target.port import Nexus, Task
    from qemu_odx.target.target import Target
    from qemu_odx.wire.scsi.opcodes import Operation


@dataclass(frozen=True, slots=True)
class Request:
    """What a handler is given.

    Attributes:
        task: the task; its buffers are guest memory.
        operation: the row of the opcode table.
        unit: the logical unit.
        target: the target, for commands about all its units.
    """

    task: Task
    operation: Operation
    unit: LogicalUnit
    target: Target

    @property
    def cdb(self) -> bytes:
        """The CDB, a private copy."""
        return self.task.cdb

    @property
    def nexus(self) -> Nexus:
        """The I_T nexus."""
        return self.task.nexus

    @property
    def manager(self) -> CopyManager:
        """The copy manager that the target belongs to."""
        return self.target.manager

    def take(self, length: int) -> bool:
        """The command wants so many bytes of data-out; False if there are less: the front door reports that."""
        self.task.taken = length
        return sum(map(len, self.task.data_out)) >= length

    def parameter_list(self, length: int) -> bytes:
        """A private copy of at most `length` bytes of data-out, taken once: the guest may change its own."""
        data = gather(self.task.data_out, length)
        self.task.taken = len(data)
        self.task.parameters = data
        return data


Handler: TypeAlias = "Callable[[Request], Plan]"


def gather(views: Sequence[memoryview], length: int, offset: int = 0) -> bytes:
    """At most `length` bytes of some buffers from `offset` on, copied."""
    parts = []
    for view in views:
        if length <= 0:
            break
        part = bytes(view[offset : offset + length])
        offset = max(0, offset - len(view))
        length -= len(part)
        parts.append(part)
    return b"".join(parts)


def cut(data: bytes, allocation: int) -> Data:
    """Data-in cut to an ALLOCATION LENGTH, which is no error (SPC-4 4.2.5.6)."""
    return Data(data[:allocation])
