"""A user of the mailbox: carries an initiator's commands over any pair of functions that read and write sectors.

May import `wire/mailbox` and `initiator`. It does what a driver is told to do in `docs/mailbox.md`, and no more:

    client = MailboxClient(guest.write, guest.read)
    token = client.initiator().token(0, [Range(0, 8)])
"""

from __future__ import annotations

import secrets
from itertools import count
from typing import TYPE_CHECKING

from qemu_odx.testing.initiator import Answer, Initiator
from qemu_odx.wire import mailbox as wire

if TYPE_CHECKING:
    from collections.abc import Callable

SECTOR = 512
_TEST_UNIT_READY = bytes(6)


class RefusedError(Exception):
    """The mailbox did not execute a request.

    Attributes:
        result: why.
    """

    def __init__(self, result: int) -> None:
        super().__init__(f"the mailbox refused a request: {wire.Result(result).name}")
        self.result = wire.Result(result)


class MailboxClient:
    """One user of one slot.

    Args:
        write: writes bytes from a sector on.
        read: reads from a sector on as many bytes.
        slot: which one to use.
        user: who it is, by default somebody new.
        offset: where the window is, in bytes.

    Raises:
        MailboxFormatError: there is no mailbox.
    """

    def __init__(
        self,
        write: Callable[[int, bytes], None],
        read: Callable[[int, int], bytes],
        *,
        slot: int = 0,
        user: int | None = None,
        offset: int = wire.DEFAULT_OFFSET,
    ) -> None:
        self._write = write
        self._read = read
        self.user = user or secrets.randbits(63) + 1
        self.sequences = count(1)
        self.head = wire.Head.parse(read(offset // SECTOR, wire.ALIGNMENT))
        self.place = self.head.offset + wire.HEAD_PAGE + slot * wire.SLOT

    def initiator(self) -> Initiator:
        """An initiator on logical unit 0 that has already been told what a new nexus is told."""
        initiator = Initiator(self)
        initiator.command(0, _TEST_UNIT_READY)
        return initiator

    def __call__(self, lun: int, cdb: bytes, data_out: bytes) -> Answer:
        """See `Carrier`.

        Raises:
            RefusedError: the mailbox did not execute it.
            MailboxFormatError: there is no sound response.
        """
        if lun:
            raise ValueError(f"a mailbox has no logical unit {lun}, only 0")
        wanted = 0 if data_out else wire.MAX_DATA
        response = self.exchange(wire.Request(next(self.sequences), self.user, cdb, data_out, wanted))
        if response.result:
            raise RefusedError(response.result)
        return Answer(response.status, response.sense, response.data_in)

    def exchange(self, request: wire.Request) -> wire.Response:
        """Send a request and take its response.

        Raises:
            MailboxFormatError: there is no sound one, or it is somebody else's.
        """
        self.post(request.packed())
        response = self.response()
        if (response.sequence, response.user) != (request.sequence, request.user):
            raise wire.MailboxFormatError("the response is to another request")
        return response

    def post(self, page: bytes) -> None:
        """Write anything to the request area, filled up to whole blocks."""
        self._write(self.place // SECTOR, page + bytes(-len(page) % self.head.block_size))

    def response(self) -> wire.Response:
        """What the slot's response area holds.

        Raises:
            MailboxFormatError: no sound response.
        """
        return wire.Response.parse(self._read((self.place + wire.AREA) // SECTOR, wire.AREA))
