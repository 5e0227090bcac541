"""A target in this process with what must hold of every command, whatever it is; `scsi_sequences.py` drives it.

After each command: answered exactly once, a status that exists, sense data exactly with CHECK CONDITION, no more
data than there was room for, and no byte of any disk changed by a command that was refused.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from qemu_odx.target.policy import Policy
from qemu_odx.target.port import Task
from qemu_odx.testing.conformance.reference import ReferenceTarget, TargetDescription
from qemu_odx.wire.scsi import sense
from qemu_odx.wire.scsi.sense import FIXED_LENGTH, Key, Status

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

    from qemu_odx.target.port import Reply

DESCRIPTION: TargetDescription = {
    "lus": [
        {"lun": 0, "blocks": 64, "block_size": 512},
        {"lun": 1, "blocks": 64, "block_size": 512},
        {"lun": 2, "blocks": 8, "block_size": 4096},
    ],
    "limits": {"max_ranges": 8, "max_token_transfer_blocks": 128, "max_tokens": 8},
}
BLOCKS = {item["lun"]: item["blocks"] for item in DESCRIPTION["lus"]}
SIZES = {item["lun"]: item["block_size"] for item in DESCRIPTION["lus"]}
NEXUSES = ("I0", "I1")
NOTHING_MOVED = {
    Key.NOT_READY,
    Key.ILLEGAL_REQUEST,
    Key.UNIT_ATTENTION,
    Key.DATA_PROTECT,
    Key.MISCOMPARE,
}
"""Sense keys of commands that were refused as a whole (COPY ABORTED tells of a part that was done)."""

Content = dict[int, bytes]


@dataclass(slots=True)
class Sent:
    """A task, and every answer it got."""

    room: bytearray
    replies: list[Reply] = field(default_factory=list)

    @property
    def reply(self) -> Reply:
        """The answer."""
        return self.replies[0]

    @property
    def good(self) -> bool:
        """It was done."""
        return self.reply.status == Status.GOOD and not self.reply.aborted

    @property
    def data(self) -> bytes:
        """Data-in."""
        return bytes(self.room[: self.reply.data_in_length])

    @property
    def refused(self) -> bool:
        """It was not even begun."""
        found = sense.parse(self.reply.sense)
        return self.reply.status == Status.RESERVATION_CONFLICT or (
            found is not None and found.key in NOTHING_MOVED
        )


class Bench:
    """A fresh target; every command goes through `send` and `wait`."""

    def __init__(self, *, standard: bool) -> None:
        policy = Policy.standard() if standard else Policy()
        self.reference = ReferenceTarget(DESCRIPTION, policy=policy)
        self.sent: list[Sent] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.reference.background.run_all()
            if error is None:
                self.check_all_answered()
        finally:
            self.reference.__exit__(kind, error, trace)

    def content(self) -> Content:
        """Every byte of every disk."""
        return {lun: self.reference.read(lun, 0, count) for lun, count in BLOCKS.items()}

    def send(self, nexus: str, lun: int, cdb: bytes, data_out: bytes = b"", room: int = 2048) -> Sent:
        """Submit a command; its answer may come later."""
        sent = Sent(bytearray(room))
        self.sent.append(sent)
        views = [memoryview(data_out[:7]), memoryview(data_out[7:])] if data_out else []
        room_views = [memoryview(sent.room)[:5], memoryview(sent.room)[5:]]
        task = Task(nexus, lun, cdb.ljust(16, b"\0"), views, room_views, sent.replies.append, len(self.sent))
        self.reference.target.submit(task)
        return sent

    def command(self, nexus: str, lun: int, cdb: bytes, data_out: bytes = b"", room: int = 2048) -> Sent:
        """Submit a command, wait for its answer and check both."""
        alone = len(self.reference.background) == 0
        before = self.content()
        sent = self.send(nexus, lun, cdb, data_out, room)
        while not sent.replies:
            self.reference.background.step()
        check(sent)
        if alone and sent.refused:
            assert self.content() == before, "a refused command moved data"
        return sent

    def settle(self) -> None:
        """Let everything in the background end."""
        self.reference.background.run_all()

    def check_all_answered(self) -> None:
        """Nothing is under way any more."""
        for sent in self.sent:
            check(sent)
        assert len(self.reference.target.tasks) == 0


def check(sent: Sent) -> None:
    """What holds of every answer."""
    assert len(sent.replies) == 1, f"{len(sent.replies)} answers"
    reply = sent.reply
    Status(reply.status)
    assert bool(reply.sense) == (reply.status == Status.CHECK_CONDITION)
    if reply.sense:
        found = sense.parse(reply.sense)
        assert len(reply.sense) == FIXED_LENGTH
        assert found is not None
        assert found.key != Key.NO_SENSE
        assert (found.asc, found.ascq) != (0x44, 0), "an internal failure"
    assert 0 <= reply.data_in_length <= len(sent.room)
    assert reply.overrun >= 0
