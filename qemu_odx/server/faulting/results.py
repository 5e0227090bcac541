"""A token command that a fault refuses leaves a result, as one that the target refuses.

Imports `target/manager` and `tokens`. Windows asks for it after most failures, and an unknown list identifier would
hide the real reason from it (24/00 reads as a wrong I_T nexus there).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from qemu_odx.tokens.operations import Event, Operation, OperationStatus
from qemu_odx.wire.scsi.fields import u32
from qemu_odx.wire.scsi.sense import Status

if TYPE_CHECKING:
    from qemu_odx.tap.exchange import Exchange
    from qemu_odx.target.manager import CopyManager
    from qemu_odx.wire.scsi.sense import Sense

_TOKEN_COMMANDS: Final = frozenset({"POPULATE TOKEN", "WRITE USING TOKEN"})


def keep_refusal(manager: CopyManager, exchange: Exchange, sense: Sense) -> None:
    """Enter an operation that has failed with this sense data; a running one of that identifier stays."""
    if exchange.operation not in _TOKEN_COMMANDS or not any(map(len, exchange.data_out)):
        return
    identifier, nexus = u32(exchange.cdb, 6), exchange.nexus
    if manager.operations.active(nexus, identifier) is not None:
        return
    action = exchange.cdb[1] & 0x1F
    operation = Operation(nexus, identifier, exchange.lun or 0, action, OperationStatus.FOREGROUND)
    operation.end(Event.FAIL, sense, Status.CHECK_CONDITION)
    manager.operations.begin(operation)
    manager.operations.finished(operation)
