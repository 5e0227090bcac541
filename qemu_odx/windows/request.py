"""An I/O control request, its end, and the disk it goes to, as the class driver sees them.

Imports `discovery` and `wire`. Next: `validation.py`, `driver.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from qemu_odx.windows.ranges import BlockRanges
from qemu_odx.wire.dsm.structures import DataSetRange, DsmInput

if TYPE_CHECKING:
    from collections.abc import Callable

    from qemu_odx.windows.discovery import Discovery
    from qemu_odx.wire.dsm.ntstatus import NtStatus


@dataclass(frozen=True, slots=True)
class Request:
    """A control request.

    Attributes:
        code: control code.
        data: the input buffer.
        room: bytes of the output buffer.
        kernel: it comes from kernel mode; the offload actions refuse user mode.
        raised: IRQL is DISPATCH_LEVEL or higher.
    """

    code: int
    data: bytes
    room: int
    kernel: bool = True
    raised: bool = False


@dataclass(frozen=True, slots=True)
class IoStatus:
    """How a request ended.

    Attributes:
        status: NTSTATUS.
        information: IoStatus.Information.
        output: the output buffer; where nothing was written it holds the input, which shares the memory.
    """

    status: NtStatus
    information: int = 0
    output: bytes = b""


@dataclass(slots=True)
class Volume:
    """The disk as the class driver's device object knows it.

    Attributes:
        known: what came of discovery.
        block_size: bytes, 0 if it is not known yet.
        size: bytes of the disk.
        is_disk: FILE_DEVICE_DISK, and no floppy.
        read_capacity: asks the disk for block size and size in bytes; None if it does not tell.
    """

    known: Discovery
    block_size: int
    size: int
    is_disk: bool = True
    read_capacity: Callable[[], tuple[int, int] | None] = lambda: None


@dataclass(slots=True)
class Buffer:
    """The system buffer of a DSM request: input first, the answer over it."""

    request: Request

    @property
    def head(self) -> DsmInput:
        """Its head."""
        return DsmInput.parse(self.request.data)

    def block(self, start: int, length: int) -> bytes:
        """Bytes of it; the driver does not check that they lie inside, what is beyond reads as zero here."""
        return self.request.data[start : start + length].ljust(length, b"\0")

    def extents(self) -> list[tuple[int, int]]:
        """Offset and length of each range, in bytes."""
        head, found = self.head, []
        for number in range(head.ranges_length // DataSetRange.SIZE):
            raw = self.block(head.ranges_offset + number * DataSetRange.SIZE, DataSetRange.SIZE)
            item = DataSetRange.parse(raw)
            found.append((item.offset, item.length))
        return found

    def ranges(self, block_size: int) -> BlockRanges:
        """The ranges in blocks."""
        return BlockRanges.of(self.extents(), block_size)

    def answered(self, status: NtStatus, answer: bytes, information: int) -> IoStatus:
        """The end of the request with `answer` laid over the input."""
        rest = self.request.data[len(answer) :]
        return IoStatus(
            status, information, (answer + rest).ljust(self.request.room, b"\0")[: self.request.room]
        )
