"""The gate of an export: with taps on it every request passes here, from taken to ended; without, nobody knows of it.

Imports `tap/{exchange,decision}`. Devices and targets own a gate and look at `gate.taps` only. While that is empty,
everything runs as if there were no gate, express lanes included; as soon as it is not, the lanes are closed and every
request takes the plain way through `run`. How to use it:

    class Slow:
        def taken(self, exchange: Exchange) -> Decision | None:
            return Decision(before=Delay(0.5)) if exchange.operation == "WRITE USING TOKEN" else None

        def ended(self, exchange: Exchange, outcome: Outcome) -> None:
            print(exchange.operation, exchange.lba, outcome.status)

    slow = Slow()
    gate.add(slow)        # from now on, also between two requests of a running guest
    gate.remove(slow)     # what it saw taken it also sees end

Taps stack: each sees every exchange, in the order in which they were added; the first decision is carried out, and
the later taps find it in `exchange.decision`. All calls come on the event loop's thread. A tap that raises is logged
and has decided nothing.

Every exchange ends exactly once, whatever was decided. For those that are held, the rules are:

- A task management function or the loss of the nexus that hits a held command ends it at once, aborted; what was not
  executed yet never is.
- When any queue of the export stops (GET_VRING_BASE, device reset, the front end leaves), everything that is held
  goes on at once: what is delayed or stalled as if its time had come, what is never to be answered (`Never`) is
  completed with its own result if it was executed, else unexecuted (TASK ABORTED, IOERR). A queue cannot stop before.
"""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from qemu_odx.tap.exchange import Exchange, Kind, Outcome

if TYPE_CHECKING:
    from collections.abc import Callable

    from qemu_odx.tap.decision import Answer, Decision, Hold, Later

T = TypeVar("T")

log = logging.getLogger(__name__)


class Turns:
    """Counts what the process gives to disks and targets while it is watched.

    Attributes:
        given: how many so far.
    """

    def __init__(self) -> None:
        self.given = 0

    def take(self) -> int:
        """The next one."""
        self.given += 1
        return self.given


TURNS = Turns()
"""All gates': the order of requests at different exports."""


class Tap(Protocol):
    """Somebody who watches an export."""

    def taken(self, exchange: Exchange) -> Decision | None:
        """A request has been taken from its queue; None: let it go on."""

    def ended(self, exchange: Exchange, outcome: Outcome) -> None:
        """It is about to be completed; the last moment at which its buffers may be looked at."""


class Job(Protocol[T]):
    """What to do with an exchange; `T` is how its kind of request ends."""

    def execute(self, blocks: int | None, done: Callable[[T], None]) -> None:
        """Execute it, or only its first blocks; `done` is called once, now or later."""

    def answered(self, answer: Answer | None, result: T | None) -> T:
        """The end with another answer; no result: it was not executed; no answer: as if all were well."""

    def given_up(self) -> T:
        """The end of one that was never executed and never will be."""

    def outcome(self, result: T, executed: bool, ended: float) -> Outcome:
        """An end as taps see it; whether it was executed, and when it ended, is the gate's to say."""

    def finish(self, result: T) -> None:
        """Complete the request. Called once."""


def no_later(_seconds: float, _callback: Callable[[], None]) -> None:
    """For gates where no delay is ever decided.

    Raises:
        RuntimeError: one was.
    """
    raise RuntimeError("a delay was decided, and this gate was given nothing that calls back later")


class Gate:
    """Where the requests of one export pass while somebody watches.

    Args:
        export: the name that exchanges carry.
        clock: seconds, monotonic.
        later: for delays, on the same clock.

    Attributes:
        taps: who watches; replaced as a whole by `add` and `remove`.
        held: what is held now, in the order in which it came.
    """

    def __init__(
        self,
        export: str = "",
        *,
        clock: Callable[[], float] = time.monotonic,
        later: Later = no_later,
    ) -> None:
        self.export = export
        self.clock = clock
        self.later = later
        self.taps: tuple[Tap, ...] = ()
        self.held: dict[Course[Any], None] = {}
        self._number = 0
        self._first = 0  # how many of the taps do not want to be last

    def add(self, tap: Tap, *, last: bool = False) -> None:
        """Let somebody watch, behind those who do already.

        Args:
            tap: who.
            last: behind those, too, who come later: it wants to see what has become of things.
        """
        place = self._first
        self.taps = (*self.taps, tap) if last else (*self.taps[:place], tap, *self.taps[place:])
        self._first += not last

    def remove(self, tap: Tap) -> None:
        """Let it see no new exchanges. ValueError if it watches not."""
        place = self.taps.index(tap)
        self.taps = self.taps[:place] + self.taps[place + 1 :]
        self._first -= place < self._first

    def exchange(self, kind: Kind, operation: str) -> Exchange:
        """A new exchange of this export, taken now; the caller fills in what it knows."""
        self._number += 1
        return Exchange(self._number, self.export, kind, operation, taken=self.clock())

    def run(self, exchange: Exchange, job: Job[T]) -> Course[T]:
        """Let an exchange through as the taps decide. Its course may be given up (`Course.abort`)."""
        course = Course(self, exchange, job)
        course.begin()
        return course

    def refused(self, exchange: Exchange) -> None:
        """Show the taps a chain that was no request: nothing can be decided about it."""
        for tap in self.taps:
            _ask(tap, exchange)
        outcome = Outcome(0, executed=False, ended=self.clock())
        for tap in self.taps:
            _tell(tap, exchange, outcome)

    def stop(self) -> None:
        """A queue stops: nothing is held any longer. Until all queues are stopped, more may come and be held."""
        for course in tuple(self.held):  # in the order in which they came
            course.stop()


class Course(Generic[T]):
    """The way of one exchange from taken to ended."""

    def __init__(self, gate: Gate, exchange: Exchange, job: Job[T]) -> None:
        self._gate = gate
        self._exchange = exchange
        self._job = job
        self._taps = gate.taps
        self._result: T | None = None
        self._hold: Hold | None = None
        self._go_on: Callable[[], None] | None = None

    def begin(self) -> None:
        """Ask every tap; the first decision counts."""
        exchange = self._exchange
        for tap in self._taps:
            decision = _ask(tap, exchange)
            if exchange.decision is None:
                exchange.decision = decision
        decision = exchange.decision
        self._wait(decision.before if decision else None, self._execute)

    def abort(self) -> None:
        """A task management function hit it: end it if it is held; else it ends by itself."""
        if self._go_on is not None:
            self._give_up()

    def stop(self) -> None:
        """Its queue stops: see the module."""
        if self._hold is not None and self._hold.outlasts_stop:
            self._give_up()
        elif self._go_on is not None:
            self._go_on()

    def _wait(self, hold: Hold | None, then: Callable[[], None]) -> None:
        if hold is None:
            then()
            return

        def go_on() -> None:
            if self._go_on is go_on:  # not given up, and not gone on before
                self._forget()
                then()

        self._hold, self._go_on = hold, go_on
        self._gate.held[self] = None
        hold.keep(go_on, self._gate.later)

    def _forget(self) -> None:
        self._hold = self._go_on = None
        self._gate.held.pop(self, None)

    def _execute(self) -> None:
        decision = self._exchange.decision
        if decision is not None and not decision.execute:
            self._executed(self._job.answered(decision.answer, None))
            return
        self._exchange.started, self._exchange.turn = self._gate.clock(), TURNS.take()
        self._job.execute(decision.blocks if decision else None, self._answered)

    def _answered(self, result: T) -> None:
        decision = self._exchange.decision
        answer = decision.answer if decision else None
        self._executed(result if answer is None else self._job.answered(answer, result))

    def _executed(self, result: T) -> None:
        self._result = result
        decision = self._exchange.decision
        self._wait(decision.after if decision else None, self._end)

    def _give_up(self) -> None:
        self._forget()
        if self._result is None:
            self._result = self._job.given_up()
        self._end()

    def _end(self) -> None:
        assert self._result is not None  # noqa: S101 - both ways here have set it
        outcome = self._job.outcome(self._result, self._exchange.started is not None, self._gate.clock())
        for tap in self._taps:
            _tell(tap, self._exchange, outcome)
        self._job.finish(self._result)


def _ask(tap: Tap, exchange: Exchange) -> Decision | None:
    try:
        return tap.taken(exchange)
    except Exception:
        log.exception("tap %r failed when %s was taken: it decides nothing", tap, exchange.operation)
        return None


def _tell(tap: Tap, exchange: Exchange, outcome: Outcome) -> None:
    try:
        tap.ended(exchange, outcome)
    except Exception:
        log.exception("tap %r failed when %s ended", tap, exchange.operation)
