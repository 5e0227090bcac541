"""Offload write: WRITE USING TOKEN after WRITE USING TOKEN, one at a time, until all is written or something ends it.

Imports the model's parts and `wire` (class.c). The target's count decides where the next command goes on, so what it
has done must be the front part of what was asked. 4 s after the request began no further command is sent.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from qemu_odx.windows.commands import WRITE, originating_cdb, receiving_cdb, write_using_token
from qemu_odx.windows.information import failure, receive
from qemu_odx.windows.limits import write_allocation, write_limits
from qemu_odx.wire.dsm.codes import WriteFlag
from qemu_odx.wire.dsm.ntstatus import NtStatus
from qemu_odx.wire.dsm.structures import OffloadWriteOutput, OffloadWriteParameters

if TYPE_CHECKING:
    from collections.abc import Callable

    from qemu_odx.windows.commands import ListIdentifiers
    from qemu_odx.windows.limits import TokenLimits
    from qemu_odx.windows.packets import Packets
    from qemu_odx.windows.ranges import BlockRanges
    from qemu_odx.windows.request import Buffer, IoStatus

TARGET_DURATION = 4.0
"""Seconds: default and least value of CopyOffloadMaxTargetDuration (classp.h, registry key Control/DISK)."""
_WRITE_RETRIES, _RECEIVE_RETRIES = 2, 2
"""Retry budgets (classp.h, xferpkt.c)."""
_NOT_ASKED_ABOUT = frozenset({NtStatus.INVALID_TOKEN, NtStatus.INVALID_PARAMETER})
"""Failures after which no RECEIVE ROD TOKEN INFORMATION is sent."""


class UndefinedError(Exception):
    """From here on Windows works with stray memory: what it would do cannot be said."""


@dataclass(frozen=True, slots=True)
class Session:
    """What offload writes on one disk have in common.

    Attributes:
        adapter_bytes: the adapter's largest transfer.
        duration: seconds after which no further command is sent.
        clock: seconds that go by.
    """

    packets: Packets
    limits: TokenLimits
    block_size: int
    identifiers: ListIdentifiers
    adapter_bytes: int
    duration: float
    clock: Callable[[], float]


@dataclass(slots=True)
class OffloadWrite:
    """One request under way.

    Attributes:
        offset: of the token, in blocks.
        written: blocks that the target has confirmed.
        status: why it ended.
        invalid: the token is no good.
    """

    session: Session
    ranges: BlockRanges
    token: bytes
    offset: int
    written: int = 0
    status: NtStatus = NtStatus.SUCCESS
    invalid: bool = field(default=False)

    def run(self) -> None:
        """Send commands until the request is over."""
        start = self.session.clock()
        while self._write():
            if self.written == self.ranges.blocks:
                return
            if self.session.clock() - start >= self.session.duration:
                self.status = NtStatus.UNSUCCESSFUL
                return

    def _write(self) -> bool:
        """One WRITE USING TOKEN; True if it brought the request on."""
        session = self.session
        descriptors = self.ranges.piece(self.written, write_limits(session.limits, session.block_size))
        asked = sum(item.blocks for item in descriptors)
        data = write_using_token(descriptors, self.token, self.offset + self.written)
        identifier = session.identifiers.take()
        cdb = originating_cdb(WRITE, identifier, len(data))
        done = session.packets.send(cdb, data, retries=_WRITE_RETRIES)
        if done.exact:
            return self._advance(asked)
        if done.status.ok and done.written:
            return self._advance(done.written)
        if done.status in _NOT_ASKED_ABOUT:
            self.invalid = done.status is NtStatus.INVALID_TOKEN
            self.status = done.status
            return False
        return self._ask(identifier, asked)

    def _ask(self, identifier: int, asked: int) -> bool:
        """RECEIVE ROD TOKEN INFORMATION: its count, or its failure instead of the first one."""
        room = write_allocation(self.session.limits, self.session.adapter_bytes)
        cdb = receiving_cdb(identifier, room)
        told = receive(self.session.packets, cdb, asked, room, retries=_RECEIVE_RETRIES)
        self.invalid = self.invalid or told.token_invalid
        if told.blocks:
            return self._advance(told.blocks)
        self.status = failure(told.status)
        return False

    def _advance(self, blocks: int) -> bool:
        self.written += blocks
        if self.written > self.ranges.blocks:
            raise UndefinedError(
                f"the target says it has written {self.written} of {self.ranges.blocks} blocks: Windows does not "
                "check INFORMATION, runs past its list of ranges and goes on with block addresses from stray memory"
            )
        return True


def offload_write(buffer: Buffer, session: Session) -> IoStatus:
    """Carry out a request that has passed all checks.

    Raises:
        UndefinedError: the target's answer makes Windows misbehave.
    """
    raw = buffer.block(buffer.head.parameter_offset, OffloadWriteParameters.SIZE)
    parameters = OffloadWriteParameters.parse(raw)
    ranges = buffer.ranges(session.block_size)
    offset = parameters.token_offset // session.block_size
    write = OffloadWrite(session, ranges, parameters.token, offset)
    write.run()
    flags = WriteFlag.TOKEN_INVALID if write.invalid else 0
    if 0 < write.written < ranges.blocks:
        flags |= WriteFlag.RANGE_TRUNCATED
    answer = OffloadWriteOutput(flags, 0, write.written * session.block_size).packed()
    status = NtStatus.SUCCESS if write.written else write.status
    return buffer.answered(status, answer, OffloadWriteOutput.SIZE)
