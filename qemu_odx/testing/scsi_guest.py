"""A SCSI guest over the Python front end: carries an initiator's commands to a real server over a real socket.

May import `frontend`, `initiator` and `wire/virtio`. Next: `Initiator` has the commands.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

from qemu_odx.testing.frontend import FrontEnd
from qemu_odx.testing.initiator import Answer, Initiator
from qemu_odx.testing.ram import GuestRam
from qemu_odx.wire.virtio import scsi

if TYPE_CHECKING:
    from pathlib import Path

    from qemu_odx.testing.driver import DriverQueue, Request

RAM = 64 << 20
DATA_IN_ROOM = 1 << 20
"""Bytes offered for data-in."""


class ScsiGuest:
    """A connected, started virtio-scsi guest with one request queue.

    Args:
        path: the socket of a vhost-user-scsi export.
    """

    def __init__(self, path: str | Path) -> None:
        self.front = FrontEnd(path, queues=3, config_size=0, ram=GuestRam(RAM))
        self.initiator = Initiator(self._carry)

    def __enter__(self) -> Self:
        self.go()
        return self

    def __exit__(self, *_: object) -> None:
        self.front.close()

    def go(self) -> None:
        """Connect, start, and take the unit attentions of a new nexus."""
        self.front.connect()
        self.front.start()
        for lun in self.luns():
            self.initiator.command(lun, "00")

    def luns(self) -> list[int]:
        """The logical units that REPORT LUNS lists."""
        data = self.initiator.command(0, "a0000000000000001000").data
        return [int.from_bytes(data[at : at + 2], "big") & scsi.MAX_LUN for at in range(8, len(data), 8)]

    @property
    def queue(self) -> DriverQueue:
        """The request queue."""
        return self.front.queues[scsi.FIRST_REQUEST_QUEUE]

    def submit(self, lun: int, cdb: bytes, data_out: bytes = b"", room: int = 0) -> Request:
        """Post a command without waiting for it."""
        request = scsi.COMMAND.pack(_address(lun), 0, 0, 0, 0, cdb)
        return self.queue.submit(request + data_out, scsi.RESPONSE_SIZE + room)

    def task_management(self, subtype: scsi.TaskManagement, lun: int) -> int:
        """A task management function; its response code."""
        request = scsi.TMF.pack(scsi.Control.TMF, subtype, _address(lun), 0)
        return self.front.queues[scsi.CONTROL_QUEUE].execute(request, 1).data_in[0]

    def _carry(self, lun: int, cdb: bytes, data_out: bytes) -> Answer:
        room = 0 if data_out else DATA_IN_ROOM
        request = scsi.COMMAND.pack(_address(lun), 0, 0, 0, 0, cdb) + data_out
        done = self.queue.execute(request, scsi.RESPONSE_SIZE + room)
        sense_length, residual, _, status, response, sense = scsi.RESPONSE.unpack_from(done.data_in)
        if response != scsi.Response.OK:
            raise AssertionError(f"virtio-scsi response {scsi.Response(response).name}")
        data = done.data_in[scsi.RESPONSE_SIZE :][: room - residual] if room else b""
        return Answer(status, sense[:sense_length], data)


def _address(lun: int) -> bytes:
    """As Linux addresses a unit of target 0."""
    return bytes((1, 0, 0x40 | lun >> 8, lun & 0xFF)) + bytes(4)
