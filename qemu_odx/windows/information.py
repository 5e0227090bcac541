"""RECEIVE ROD TOKEN INFORMATION data as the class driver reads it.

Imports `packets`, `sense_rules` and `wire`. After POPULATE TOKEN a token is looked for, after WRITE
USING TOKEN only the count. There is no polling: an operation that is not complete is a failure at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from qemu_odx.windows.sense_rules import forwarded
from qemu_odx.wire.dsm.ntstatus import NtStatus
from qemu_odx.wire.scsi.fields import u32, u64
from qemu_odx.wire.scsi.rod_token import TOKEN_SIZE

if TYPE_CHECKING:
    from qemu_odx.windows.packets import Packets

_HEADER = 32
_DESCRIPTOR_LENGTH = 2 + TOKEN_SIZE
_SUCCESS, _ERROR, _RESIDUAL, _TERMINATED = 0x01, 0x02, 0x03, 0x60
_COMPLETE = {_SUCCESS, _ERROR, _RESIDUAL, _TERMINATED}
"""COPY OPERATION STATUS values that the driver knows; all others, 04h among them, count as not complete."""


@dataclass(frozen=True, slots=True)
class Information:
    """What was read.

    Attributes:
        status: SUCCESS, or why it failed: UNSUCCESSFUL for an operation that is not complete, else what the sense
            data inside says.
        blocks: TRANSFER COUNT, 0 where the driver does not believe it.
        token: 512 bytes, or None.
        token_invalid: the sense data inside says that the token is no good.
    """

    status: NtStatus
    blocks: int = 0
    token: bytes | None = None
    token_invalid: bool = False


def receive(packets: Packets, cdb: bytes, asked: int, room: int, *, retries: int) -> Information:
    """Send RECEIVE ROD TOKEN INFORMATION and read what came; too little data is no error."""
    done = packets.send(cdb, retries=retries)
    if not done.status.ok and done.status is not NtStatus.DATA_OVERRUN:
        return Information(done.status)
    return read_information(done.data, asked, room)


def read_information(data: bytes, asked: int, room: int) -> Information:
    """Read the answer to a command that asked for `asked` blocks.

    Args:
        data: data-in; the buffer of `room` bytes was zero before.
        asked: blocks; a count above it is taken for 0.
        room: allocation length.
    """
    full = data[:room].ljust(room, b"\0")
    state = full[5] & 0x7F
    if state not in _COMPLETE:
        return Information(NtStatus.UNSUCCESSFUL)
    count = u64(full, 16)
    if count > asked or state in {_ERROR, _TERMINATED}:
        count = 0
    reason = _reason(full) if state != _SUCCESS else NtStatus.SUCCESS
    token = _token(full) if count else None
    return Information(reason, count, token, reason is NtStatus.INVALID_TOKEN)


def _reason(full: bytes) -> NtStatus:
    length = full[14]
    return forwarded(full[12], full[_HEADER : _HEADER + length]).status if length else NtStatus.SUCCESS


def _token(full: bytes) -> bytes | None:
    """The token behind the sense data field; a descriptor list of another length than 514 bytes is no token."""
    at = _HEADER + full[13]
    if len(full) < at + 4 + _DESCRIPTOR_LENGTH or u32(full, at) != _DESCRIPTOR_LENGTH:
        return None
    return full[at + 6 : at + 6 + TOKEN_SIZE]


def failure(status: NtStatus) -> NtStatus:
    """A status that says failure: what is no error becomes UNSUCCESSFUL."""
    return NtStatus.UNSUCCESSFUL if status.ok else status
