"""The control queue of a virtio-scsi device: task management, and notifications that nobody sends.

Imports `wire/virtio/scsi`, `virtio/chain` and the seam `target/port`. Owned by `virtio/scsi.py`, which tells it
which commands are open. A function is answered once every command it hit is completed and published (SAM-5 7.1).
Clauses: VIRTIO 1.2, 5.6.6.2.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from qemu_odx.tap.exchange import Kind, Origin, Outcome
from qemu_odx.virtio.chain import fill
from qemu_odx.wire.virtio import scsi as wire
from qemu_odx.wire.virtio.scsi import Response, TaskManagement

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

    from qemu_odx.tap.decision import Answer
    from qemu_odx.target.port import ScsiTarget
    from qemu_odx.virtio.chain import Chain
    from qemu_odx.virtio.scsi import Command

    Function = Callable[[Hashable, int, int, Callable[[Response], None]], None]
    """Carries out a task management function on (nexus, LUN, tag), then gives its response."""

_RESETS = (TaskManagement.I_T_NEXUS_RESET, TaskManagement.LOGICAL_UNIT_RESET)


class ControlJob:
    """A task management function at the gate; see `tap/gate.Job`."""

    def __init__(
        self, carry_out: Callable[[Callable[[Response], None]], None], over: Callable[[Response], None]
    ) -> None:
        self._carry_out = carry_out
        self._over = over

    def execute(self, blocks: int | None, done: Callable[[Response], None]) -> None:
        """Carry it out; there is nothing to cut."""
        del blocks
        self._carry_out(done)

    def answered(self, answer: Answer | None, result: Response | None) -> Response:
        """The response replaced."""
        return Response(answer.status) if answer else result or Response.OK

    def given_up(self) -> Response:
        """The function was not carried out."""
        return Response.FAILURE

    def outcome(self, result: Response, executed: bool, ended: float) -> Outcome:
        """The response, in a tap's words."""
        return Outcome(result, executed=executed, ended=ended)

    def finish(self, result: Response) -> None:
        """Answer the driver."""
        self._over(result)


class Control:
    """Handles control requests for one target.

    Args:
        target: carries out task management.
        publish: makes the completions of all commands visible to the driver.

    Attributes:
        open: the commands that the target has.
    """

    def __init__(self, target: ScsiTarget, publish: Callable[[], None]) -> None:
        self.open: set[Command] = set()
        self._target = target
        self._publish = publish
        self._functions: dict[int, Function] = {
            TaskManagement.ABORT_TASK: self._abort_task,
            TaskManagement.ABORT_TASK_SET: self._abort_task_set,
            TaskManagement.CLEAR_TASK_SET: self._clear_task_set,
            TaskManagement.I_T_NEXUS_RESET: self._nexus_reset,
            TaskManagement.LOGICAL_UNIT_RESET: self._lun_reset,
            TaskManagement.QUERY_TASK: self._query_task,
            TaskManagement.QUERY_TASK_SET: self._query_task_set,
        }

    def handle(self, chain: Chain, nexus: Hashable) -> None:
        """Carry out one control request."""
        if chain.fault is not None or chain.readable_length < wire.CONTROL_TYPE.size:
            chain.complete(0)
            return
        body = chain.read_exact(min(chain.readable_length, wire.TMF_SIZE))
        (kind,) = wire.CONTROL_TYPE.unpack_from(body)
        if kind == wire.Control.TMF and len(body) == wire.TMF_SIZE:
            self._task_management(chain, nexus, body)
        elif kind in (wire.Control.AN_QUERY, wire.Control.AN_SUBSCRIBE) and len(body) >= wire.AN_SIZE:
            # No asynchronous notification is ever sent: none of the events asked for is supported.
            _answer(chain, wire.AN_RESPONSE.pack(0, Response.OK))
        else:
            _answer(chain, bytes([Response.FAILURE]))

    def _task_management(self, chain: Chain, nexus: Hashable, body: bytes) -> None:
        _, subtype, lun, tag = wire.TMF.unpack(body)
        address = wire.decode_lun(lun)
        function = self._functions.get(subtype)
        if address is None or address.target or address.well_known:
            _answer(chain, bytes([Response.BAD_TARGET]))
        elif function is None:  # CLEAR ACA too: no unit here ever establishes an ACA condition
            _answer(chain, bytes([Response.FUNCTION_REJECTED]))
        elif address.lun not in self._target.luns() and subtype != TaskManagement.I_T_NEXUS_RESET:
            _answer(chain, bytes([Response.INCORRECT_LUN]))
        else:
            carry_out = partial(self._carry_out, function, (nexus, subtype, address.lun, tag))
            if self._target.gate.taps:
                self._watched(chain, (nexus, subtype, address.lun, tag), carry_out)
            else:
                carry_out(partial(self._over, chain))

    def _carry_out(
        self, function: Function, what: tuple[Hashable, int, int, int], over: Callable[[Response], None]
    ) -> None:
        nexus, subtype, lun, tag = what
        self._mark_hit(subtype, lun, tag)
        function(nexus, lun, tag, over)

    def _watched(
        self,
        chain: Chain,
        what: tuple[Hashable, int, int, int],
        carry_out: Callable[[Callable[[Response], None]], None],
    ) -> None:
        """Through the gate, since somebody watches."""
        gate, subtype = self._target.gate, TaskManagement(what[1])
        exchange = gate.exchange(Kind.CONTROL, subtype.name.replace("_", " "))
        exchange.origin = Origin(wire.CONTROL_QUEUE, chain.head, *chain.shape())
        exchange.nexus, exchange.code, exchange.lun, exchange.tag = what
        exchange.disk = self._target.disk_name(exchange.lun)
        gate.run(exchange, ControlJob(carry_out, partial(self._over, chain)))

    def _over(self, chain: Chain, response: Response) -> None:
        self._publish()
        _answer(chain, bytes([response]))

    def _mark_hit(self, subtype: int, lun: int, tag: int) -> None:
        """Tell the open commands that a function ends what their responses are to say (5.6.6.1.1)."""
        ended_as = Response.RESET if subtype in _RESETS else Response.ABORTED
        for command in self.open:
            on_unit = command.lun == lun or subtype == TaskManagement.I_T_NEXUS_RESET
            if on_unit and (command.tag == tag or subtype != TaskManagement.ABORT_TASK):
                command.ended_as = ended_as

    # -- functions (SAM-5 7) -----------------------------------------------------------------------

    def _abort_task(self, nexus: Hashable, lun: int, tag: int, over: Callable[[Response], None]) -> None:
        # A task that is not there any more counts as aborted (SAM-5 7.2).
        self._target.abort_task(nexus, lun, tag, lambda _found: over(Response.OK))

    def _abort_task_set(self, nexus: Hashable, lun: int, _tag: int, over: Callable[[Response], None]) -> None:
        self._target.abort_task_set(nexus, lun, lambda: over(Response.OK))

    def _clear_task_set(
        self, _nexus: Hashable, lun: int, _tag: int, over: Callable[[Response], None]
    ) -> None:
        self._target.clear_task_set(lun, lambda: over(Response.OK))

    def _nexus_reset(self, nexus: Hashable, _lun: int, _tag: int, over: Callable[[Response], None]) -> None:
        self._target.nexus_loss(nexus, lambda: over(Response.OK))

    def _lun_reset(self, _nexus: Hashable, lun: int, _tag: int, over: Callable[[Response], None]) -> None:
        self._target.reset_lun(lun, lambda found: over(Response.OK if found else Response.INCORRECT_LUN))

    def _query_task(self, nexus: Hashable, lun: int, tag: int, over: Callable[[Response], None]) -> None:
        over(_found(self._target.query_task(nexus, lun, tag)))

    def _query_task_set(self, nexus: Hashable, lun: int, _tag: int, over: Callable[[Response], None]) -> None:
        over(_found(self._target.query_task_set(nexus, lun)))


def _found(present: bool) -> Response:
    """The response of a query (SAM-5 7.6, 7.7)."""
    return Response.FUNCTION_SUCCEEDED if present else Response.OK


def _answer(chain: Chain, response: bytes) -> None:
    """Write a response, as far as there is room for it, and complete."""
    chain.complete(fill(chain.writable, response))
