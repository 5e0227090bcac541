"""What happens to all logical units on one disk, through whatever target: news, preemption, a new size, removal.

Imports `manager`, the ports and `wire/scsi`. Called by `target/commands/reservation.py` and `target/target.py`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from qemu_odx.target.port import initiator_port
from qemu_odx.tokens.token import Fault
from qemu_odx.wire.scsi import sense

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping

    from qemu_odx.disk.port import Disk, Extent
    from qemu_odx.target.lun import LogicalUnit
    from qemu_odx.target.manager import CopyManager
    from qemu_odx.target.port import Nexus, Task
    from qemu_odx.target.target import Target
    from qemu_odx.target.tasks import Entry
    from qemu_odx.tokens.operations import Operation
    from qemu_odx.wire.scsi.sense import Sense


def units_on(manager: CopyManager, disk: Disk) -> Iterator[tuple[Target, LogicalUnit]]:
    """Every logical unit on a disk, with its target."""
    for target in manager.targets:
        for unit in tuple(target.units.values()):
            if unit.disk is disk:
                yield target, unit


def _nexuses_on(
    manager: CopyManager, disk: Disk, ports: Iterable[Hashable]
) -> Iterator[tuple[Target, LogicalUnit, Nexus]]:
    """The I_T nexuses of some initiator ports, at every logical unit on a disk."""
    wanted = frozenset(ports)
    for target, unit in units_on(manager, disk):
        for nexus in target.nexuses():
            if initiator_port(nexus) in wanted:
                yield target, unit, nexus


def tell(manager: CopyManager, disk: Disk, told: Mapping[Hashable, Sense]) -> None:
    """Establish unit attentions for initiator ports."""
    for _, unit, nexus in _nexuses_on(manager, disk, told):
        unit.attend(nexus, told[initiator_port(nexus)])


def end_work_of(
    manager: CopyManager, disk: Disk, ports: Iterable[Hashable], but: Task, over: Callable[[], None]
) -> None:
    """End the tasks and copies of some ports on a disk, all but one task; `over` once they have ended."""
    entries: list[Entry] = []
    operations: list[Operation] = []
    for target, unit, nexus in _nexuses_on(manager, disk, ports):
        unit.prevented.discard(nexus)
        entries += (item for item in target.tasks.select(nexus, unit.number) if item.task is not but)
        operations += (item for item in manager.operations.running(nexus) if item.lun == unit.number)
    end_all(manager, entries, operations, over)


def end_all(
    manager: CopyManager, entries: list[Entry], operations: Iterable[Operation], over: Callable[[], None]
) -> None:
    """Stop tasks and copies; `over` is called once all have ended, at once if there are none."""
    operations = list(operations)
    waiting = 1 + len(entries) + len(operations)

    def one_over() -> None:
        nonlocal waiting
        waiting -= 1
        if not waiting:
            over()

    for operation in operations:
        manager.operations.stop(operation)
        operation.when_over.append(one_over)
    for entry in entries:
        entry.abort(one_over)
    one_over()


def resized(manager: CopyManager, disk: Disk) -> None:
    """The disk has another size: tokens of blocks that are gone are cancelled, every nexus is told 2A/09."""
    manager.tokens.expire()  # what has died already, died of that
    for token in manager.tokens:
        if token.creator == disk.name and _beyond(token.payload.extents, disk.size):
            manager.tokens.kill(token, Fault.CANCELLED)
    for target, unit in units_on(manager, disk):
        for nexus in target.nexuses():
            unit.attend(nexus, sense.CAPACITY_CHANGED)


def _beyond(extents: Iterable[Extent], size: int) -> bool:
    return any(extent.length and extent.end > size for extent in extents)


def removed(manager: CopyManager, target: Target, unit: LogicalUnit, over: Callable[[], None]) -> None:
    """A logical unit has left its target: its tasks end, and with the last unit on its disk so does all of that."""
    manager.end_copies(target, unit.number)
    entries = target.tasks.select(None, unit.number)
    if any(units_on(manager, unit.disk)):
        end_all(manager, entries, (), over)
        return
    touching = manager.operations.touching(unit.disk.name)
    manager.disk_removed(unit.disk)
    end_all(manager, entries, touching, over)
