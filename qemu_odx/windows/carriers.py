"""Carriers of the model's commands: a target in this process, or disk nodes behind Linux.

May import `testing`. Both give a SCSI status, sense data and data-in; neither tells a residual of data-out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from qemu_odx.windows.port import Completion

if TYPE_CHECKING:
    from qemu_odx.testing import initiator
    from qemu_odx.windows.port import Carrier

_CDB_SIZE = 16


def to_unit(carry: initiator.Carrier, lun: int) -> Carrier:
    """Commands to one logical unit, by whatever carries an initiator's commands."""

    def send(cdb: bytes, data_out: bytes) -> Completion:
        answer = carry(lun, cdb.ljust(_CDB_SIZE, b"\0"), data_out)
        return Completion(answer.status, answer.sense, answer.data)

    return send
