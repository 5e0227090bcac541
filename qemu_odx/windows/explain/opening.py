"""The disk that is asked: an image behind our own target in this process, or a disk node behind Linux.

May import `target`, `disk`, `testing` and the model. Nothing is ever written: commands that change something are
answered here and do not reach the disk.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from qemu_odx.disk.file import DiskError, open_disk
from qemu_odx.target.manager import CopyManager
from qemu_odx.target.port import Task
from qemu_odx.target.target import Target
from qemu_odx.testing.conformance.sg import SgDevice, SgError
from qemu_odx.testing.initiator import Answer
from qemu_odx.testing.runner import InlineRunner
from qemu_odx.windows.carriers import to_unit
from qemu_odx.windows.port import Completion
from qemu_odx.wire.scsi.sense import Status

if TYPE_CHECKING:
    from collections.abc import Iterator

    from qemu_odx.disk.port import Disk
    from qemu_odx.target.port import Reply
    from qemu_odx.windows.port import Carrier

__all__ = ["DiskError", "SgError", "image", "looking_only", "node", "on_disk"]

_HARMLESS = frozenset({0x00, 0x12, 0x1A, 0x25, 0x9E})
"""TEST UNIT READY, INQUIRY, MODE SENSE(6), READ CAPACITY."""
_ROOM = 4096
_UNIT = 0


def looking_only(carry: Carrier) -> Carrier:
    """Lets through what only asks; the rest ends with GOOD and goes nowhere."""

    def send(cdb: bytes, data_out: bytes) -> Completion:
        if cdb[0] not in _HARMLESS or data_out:
            return Completion(Status.GOOD)
        return carry(cdb, data_out)

    return send


@contextmanager
def image(path: str, *, block_size: int = 512, physical_block_size: int | None = None) -> Iterator[Carrier]:
    """An image file or block device, opened for reading, as our own target would show it.

    Raises:
        DiskError: it cannot be opened; the text names the cure.
    """
    with_disk = open_disk(
        "disk", path, block_size=block_size, physical_block_size=physical_block_size, readonly=True
    )
    try:
        yield on_disk(with_disk)
    finally:
        with_disk.close()


def on_disk(disk: Disk) -> Carrier:
    """Our own target, with its defaults, on a disk in this process."""
    runner = InlineRunner()
    target = Target.on({_UNIT: disk}, CopyManager(runner), runner)

    def carry(lun: int, cdb: bytes, data_out: bytes) -> Answer:
        replies: list[Reply] = []
        room = memoryview(bytearray(_ROOM))
        given = [memoryview(data_out)] if data_out else []
        target.submit(Task("explain", lun, cdb, given, [room], replies.append))
        return Answer(replies[0].status, replies[0].sense, bytes(room[: replies[0].data_in_length]))

    return looking_only(to_unit(carry, _UNIT))


@contextmanager
def node(path: str) -> Iterator[Carrier]:
    """A disk node such as /dev/sg1.

    Raises:
        SgError: it cannot be opened or is no SCSI disk; the text names the cure.
    """
    device = SgDevice([path])
    try:
        yield looking_only(to_unit(lambda lun, cdb, data_out: device.carry(0, lun, cdb, data_out), _UNIT))
    finally:
        device.close()
