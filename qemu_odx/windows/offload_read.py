"""Offload read: one POPULATE TOKEN, and one RECEIVE ROD TOKEN INFORMATION if it did not fail (class.c).

Imports the model's parts and `wire`. What does not fit one command is dropped: the caller is told by LengthProtected.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from qemu_odx.windows.commands import POPULATE, originating_cdb, populate_token, receiving_cdb
from qemu_odx.windows.information import failure, receive
from qemu_odx.windows.limits import READ_ALLOCATION, populate_limits
from qemu_odx.wire.dsm.codes import ReadFlag
from qemu_odx.wire.dsm.ntstatus import NtStatus
from qemu_odx.wire.dsm.structures import TOKEN_SIZE, OffloadReadOutput, OffloadReadParameters

if TYPE_CHECKING:
    from qemu_odx.windows.commands import ListIdentifiers
    from qemu_odx.windows.limits import TokenLimits
    from qemu_odx.windows.packets import Packets
    from qemu_odx.windows.request import Buffer, IoStatus

_POPULATE_RETRIES, _RECEIVE_RETRIES = 1, 1
"""Retry budgets (classp.h, xferpkt.c)."""
_NUMBERS = 20
"""Bytes of the answer before the token: all that is written when there is none."""


def offload_read(
    buffer: Buffer, packets: Packets, limits: TokenLimits, block_size: int, identifiers: ListIdentifiers
) -> IoStatus:
    """Carry out a request that has passed all checks."""
    raw = buffer.block(buffer.head.parameter_offset, OffloadReadParameters.SIZE)
    time_to_live = OffloadReadParameters.parse(raw).time_to_live
    ranges = buffer.ranges(block_size)
    descriptors = ranges.piece(0, populate_limits(limits, time_to_live))
    asked = sum(item.blocks for item in descriptors)
    identifier = identifiers.take()
    data = populate_token(descriptors, time_to_live)
    done = packets.send(originating_cdb(POPULATE, identifier, len(data)), data, retries=_POPULATE_RETRIES)
    if not done.status.ok:
        return _failed(buffer, done.status)
    cdb = receiving_cdb(identifier, READ_ALLOCATION)
    told = receive(packets, cdb, asked, READ_ALLOCATION, retries=_RECEIVE_RETRIES)
    if told.token is None:
        return _failed(buffer, failure(told.status))
    truncated = ReadFlag.RANGE_TRUNCATED if told.blocks < ranges.blocks else 0
    answer = OffloadReadOutput(truncated, 0, told.blocks * block_size, TOKEN_SIZE, told.token).packed()
    return buffer.answered(NtStatus.SUCCESS, answer[: _NUMBERS + TOKEN_SIZE], OffloadReadOutput.SIZE)


def _failed(buffer: Buffer, status: NtStatus) -> IoStatus:
    """All numbers 0; where the token would stand, the input is left. Information is that of a success."""
    return buffer.answered(status, bytes(_NUMBERS), OffloadReadOutput.SIZE)
