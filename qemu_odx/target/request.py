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

    def parameter_list(self, length: int) -> bytes:
        """A private copy of at most `length` bytes of data-out, taken once: the guest may change its own."""
        return gather(self.task.data_out, length)


Handler: TypeAlias = "Callable[[Request], Plan]"


def gather(views: Sequence[memoryview], length: int) -> bytes:
    """The first `length` bytes of some buffers, copied."""
    parts = []
    for view in views:
        if length <= 0:
            break
        parts.append(bytes(view[:length]))
        length -= len(parts[-1])
    return b"".join(parts)


def cut(data: bytes, allocation: int) -> Data:
    """Data-in cut to an ALLOCATION LENGTH, which is no error (SPC-4 4.2.5.6)."""
    return Data(data[:allocation])
