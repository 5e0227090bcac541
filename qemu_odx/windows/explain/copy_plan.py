"""How Windows would cut the copy of a large file: the model itself, on a target that does all it is told.

Imports the model and `wire`. The file lies in one piece; CopyFile asks for tokens of the rest of the file and writes
each token in 256 MiB pieces (MS-FSCC product behaviour notes 42 and 43).
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from qemu_odx.windows.commands import POPULATE, RECEIVE, WRITE
from qemu_odx.windows.driver import ClassDriver, Environment
from qemu_odx.windows.limits import MIB
from qemu_odx.windows.packets import Packets
from qemu_odx.windows.port import Completion
from qemu_odx.windows.request import Request, Volume
from qemu_odx.wire.dsm import build
from qemu_odx.wire.dsm.codes import ControlCode
from qemu_odx.wire.dsm.structures import OffloadReadOutput, OffloadWriteOutput
from qemu_odx.wire.scsi.sense import Status
from qemu_odx.wire.scsi.token_lists import BLOCKS_UNITS, CopyStatus, PopulateToken, WriteUsingToken

if TYPE_CHECKING:
    from qemu_odx.windows.discovery import Discovery

COPY_BYTES = 10 << 30
_PIECE = 256 * MIB
"""CopyFile's writes of a token."""
_START = MIB
"""Where the file begins: behind the usual first partition's start."""
_TOKEN = bytes(512)
_DONE = 0x01
_MOST_COMMANDS = 5_000
"""More than any sensible disk needs; then the plan ends unfinished."""


class _EnoughError(Exception):
    """The copy takes too many commands to go through all of them."""


@dataclass(slots=True)
class PerfectTarget:
    """Ends every command with GOOD and says that all of it was done.

    Attributes:
        tokens: blocks of each POPULATE TOKEN.
        writes: blocks of each WRITE USING TOKEN.
        received: RECEIVE ROD TOKEN INFORMATION commands.
    """

    tokens: list[int] = field(default_factory=list)
    writes: list[int] = field(default_factory=list)
    received: int = 0

    def __call__(self, cdb: bytes, data_out: bytes) -> Completion:
        """Take note and agree."""
        if self.commands >= _MOST_COMMANDS:
            raise _EnoughError
        if cdb.startswith(POPULATE):
            self.tokens.append(sum(item.blocks for item in PopulateToken.parse(data_out).ranges))
        elif cdb.startswith(WRITE):
            self.writes.append(sum(item.blocks for item in WriteUsingToken.parse(data_out).ranges))
        elif cdb.startswith(RECEIVE):
            self.received += 1
            told = CopyStatus(POPULATE[1], _DONE, 0, 0, 0, b"", BLOCKS_UNITS, self.tokens[-1])
            return Completion(Status.GOOD, data=told.with_token(_TOKEN))
        return Completion(Status.GOOD)

    @property
    def commands(self) -> int:
        """All commands."""
        return len(self.tokens) + len(self.writes) + self.received


@dataclass(frozen=True, slots=True)
class CopyPlan:
    """A copy in commands, sizes in bytes.

    Attributes:
        size: bytes that were copied: 10 GiB, or less if the plan was given up.
        tokens: bytes of each POPULATE TOKEN, in order.
        requests: offload write requests of CopyFile.
        writes: bytes of each WRITE USING TOKEN, in order.
        commands: all SCSI commands, RECEIVE ROD TOKEN INFORMATION among them.
    """

    size: int
    tokens: tuple[int, ...]
    requests: int
    writes: tuple[int, ...]
    commands: int

    @property
    def finished(self) -> bool:
        """False if the limits are so small that the plan was given up."""
        return self.size == COPY_BYTES


def plan_copy(known: Discovery, block_size: int) -> CopyPlan:
    """Copy 10 GiB on one disk that has room for it."""
    target = PerfectTarget()
    still = Environment(clock=lambda: 0.0)
    volume = Volume(known, block_size, size=4 * COPY_BYTES)
    driver = ClassDriver(Packets(target, still.wait), volume, still)
    requests: list[int] = []
    with suppress(_EnoughError):
        _copy(driver, requests)
    tokens, writes = (
        tuple(blocks * block_size for blocks in them) for them in (target.tokens, target.writes)
    )
    return CopyPlan(sum(writes), tokens, len(requests), writes, target.commands)


def _copy(driver: ClassDriver, requests: list[int]) -> None:
    """What CopyFile does; the length of each write request is noted before it is sent."""
    done = 0
    while done < COPY_BYTES:
        protected = _token(driver, done)
        written = 0
        while written < protected:
            requests.append(min(_PIECE, protected - written))
            written += _write(driver, done + written, requests[-1], written)
        done += written


def _token(driver: ClassDriver, done: int) -> int:
    data = build.offload_read([(_START + done, COPY_BYTES - done)])
    code = ControlCode.IOCTL_STORAGE_MANAGE_DATA_SET_ATTRIBUTES
    end = driver.control(Request(code, data, OffloadReadOutput.SIZE))
    return OffloadReadOutput.parse(end.output).length_protected


def _write(driver: ClassDriver, place: int, length: int, offset: int) -> int:
    data = build.offload_write(_TOKEN, [(2 * COPY_BYTES + place, length)], token_offset=offset)
    code = ControlCode.IOCTL_STORAGE_MANAGE_DATA_SET_ATTRIBUTES
    end = driver.control(Request(code, data, OffloadWriteOutput.SIZE))
    return OffloadWriteOutput.parse(end.output).length_copied
