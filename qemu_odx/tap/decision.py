"""What a tap may decide about an exchange: to hold it, to execute all, a part or nothing of it, to answer otherwise.

Imports nothing of ours. Carried out by `tap/gate.py`, in this order: `before` holds, then it is executed as far as
`execute` and `blocks` say, then `answer` takes the place of the result, then `after` holds, then it is completed.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

    Later = Callable[[float, Callable[[], None]], object]
    """Calls back once, so many seconds from now, on the event loop's thread: `Loop.call_later` or such."""


class Hold(Protocol):
    """Keeps exchanges for a while."""

    @property
    def outlasts_stop(self) -> bool:
        """False: when the queue stops, what is held goes on at once. True: it is given up."""

    def keep(self, go_on: Callable[[], None], later: Later) -> None:
        """Call `go_on` when it is over, perhaps at once, perhaps never."""


@dataclass(frozen=True, slots=True)
class Delay:
    """Holds for some seconds, on the gate's clock."""

    seconds: float
    outlasts_stop: bool = field(default=False, init=False)

    def keep(self, go_on: Callable[[], None], later: Later) -> None:
        """Call `go_on` when the time is over."""
        later(self.seconds, go_on)


@dataclass(slots=True, eq=False)
class Stall:
    """Holds every exchange that comes to it until it is released, and none after that."""

    released: bool = False
    outlasts_stop: bool = field(default=False, init=False)
    _waiting: list[Callable[[], None]] = field(default_factory=list)

    def keep(self, go_on: Callable[[], None], later: Later) -> None:
        """Call `go_on` at the release."""
        del later
        if self.released:
            go_on()
        else:
            self._waiting.append(go_on)

    def release(self) -> None:
        """Let everything go on, in the order in which it came. On the event loop's thread."""
        self.released = True
        waiting, self._waiting = self._waiting, []
        for go_on in waiting:
            go_on()


@dataclass(frozen=True, slots=True)
class Never:
    """Holds for ever: the guest gets no answer until it aborts the request, resets or leaves."""

    outlasts_stop: bool = field(default=True, init=False)

    def keep(self, go_on: Callable[[], None], later: Later) -> None:
        """Forget it."""
        del go_on, later


NEVER: Final = Never()


@dataclass(frozen=True, slots=True)
class Answer:
    """How an exchange is to end, whatever it came to.

    Attributes:
        status: SAM status for a SCSI command, status byte for a virtio-blk request, response (VIRTIO 1.2, 5.6.6.2)
            for a task management function.
        sense: sense data of a SCSI command, 18 bytes of fixed format as a rule (`wire/scsi/sense.Sense.fixed`).
    """

    status: int
    sense: bytes = b""


@dataclass(frozen=True, slots=True)
class Decision:
    """What is to become of an exchange.

    Attributes:
        before: holds it before it is executed.
        execute: False: it is not executed; without `answer` it then ends as if it had been, with nothing moved.
        blocks: execute only so many blocks (`Exchange.block_size`) of it, from its first on. READ, WRITE and their
            forms, IN, OUT, the token commands; others are executed whole. A WRITE USING TOKEN that is cut ends as one
            whose ROD is too short; the others end with their own status, if `answer` says nothing, and a residual.
        answer: replaces status and sense.
        after: holds it when it was executed, before it is completed.
        note: why, for traces: the name of the rule that decided.
    """

    before: Hold | None = None
    execute: bool = True
    blocks: int | None = None
    answer: Answer | None = None
    after: Hold | None = None
    note: str = ""
