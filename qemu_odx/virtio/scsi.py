"""The virtio-scsi device: queue requests become SCSI tasks, replies become responses.

Imports `wire/virtio/scsi`, `virtio/*` and the seam `target/port`. Knows no SCSI command but for two facts about
residuals and well-known units. The parts of a request may be cut into descriptors at any byte.
Next: `ScsiTarget.submit`. Clauses: VIRTIO 1.2, 5.6.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

from qemu_odx.tap.exchange import Kind, Origin
from qemu_odx.target.port import LoginNexus, Task
from qemu_odx.virtio.chain import fill, split
from qemu_odx.virtio.queues import Queues
from qemu_odx.virtio.scsi_control import Control
from qemu_odx.virtio.scsi_events import EventQueue
from qemu_odx.virtio.scsi_express import ScsiExpress
from qemu_odx.wire.virtio import scsi as wire
from qemu_odx.wire.virtio.scsi import Response

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

    from qemu_odx.target.port import PlainAccess, Reply, ScsiTarget
    from qemu_odx.virtio.chain import Chain
    from qemu_odx.virtio.meter import Meter
    from qemu_odx.virtio.port import Load, Ring

_GOOD: Final = 0x00
"""Status GOOD (SAM-5 5.3.1)."""
_REPORT_LUNS: Final = 0xA0
"""Operation code (SPC-4 6.33)."""
_THIRD_PARTY_COPY_OUT: Final = 0x83
"""Operation code of POPULATE TOKEN and WRITE USING TOKEN (SPC-4 6.4)."""
_COMPARE_AND_WRITE: Final = 0x89
"""Operation code (SBC-3 5.3)."""
_STAMPED: Final = frozenset({_THIRD_PARTY_COPY_OUT, _COMPARE_AND_WRITE})
"""Commands that must not be done twice if the process is killed and they are sent again."""
_VARIABLE_LENGTH: Final = 0x7F
"""Operation code of commands longer than 16 bytes (SPC-4 4.2.3)."""
_CAPACITY_CHANGED: Final = wire.param_change(0x2A, 0x09)
"""CAPACITY DATA HAS CHANGED (SPC-4 D.2)."""
_MALFORMED: Final = wire.RESPONSE.pack(0, 0, 0, 0, Response.FAILURE, b"")


class Command:
    """A task that the target has, and what its response needs.

    Attributes:
        lun: the logical unit it went to.
        tag: the driver's tag.
        ended_as: what the response says if a task management function ends it.
    """

    __slots__ = ("_given_in", "_given_out", "_opcode", "chain", "ended_as", "lun", "tag")

    def __init__(self, chain: Chain, lun: int, tag: int, opcode: int) -> None:
        self.chain = chain
        self.lun = lun
        self.tag = tag
        self.ended_as = Response.ABORTED
        self._opcode = opcode
        self._given_in = chain.writable_length - wire.RESPONSE_SIZE
        self._given_out = chain.readable_length

    def respond(self, reply: Reply) -> None:
        """Write the response, in one go, and complete."""
        sense = reply.sense[: wire.SENSE_SIZE]
        response = self._response(reply)
        status = 0 if reply.aborted else reply.status
        packed = wire.RESPONSE.pack(len(sense), self._residual(reply), 0, status, response, sense)
        fill(self.chain.writable, packed)
        self.chain.complete(wire.RESPONSE_SIZE + reply.data_in_length)

    def _response(self, reply: Reply) -> Response:
        if reply.aborted:
            return self.ended_as
        too_small = reply.overrun > 0 or reply.data_out_length > self._given_out
        return Response.OVERRUN if too_small and reply.status == _GOOD else Response.OK

    def _residual(self, reply: Reply) -> int:
        """Bytes of the buffers that were not used.

        Windows takes a residual of a successful POPULATE TOKEN as failure, of a WRITE USING TOKEN as a reason
        to ask for its result: there never is one.
        """
        if self._opcode == _THIRD_PARTY_COPY_OUT and reply.status == _GOOD:
            return 0
        unused_in = self._given_in - reply.data_in_length
        return unused_in + self._given_out - min(reply.data_out_length, self._given_out)


class ScsiDevice:
    """A virtio-scsi host with one target, behind one front-end connection.

    Each life of a driver is an I_T nexus of its own: what an earlier one left in the target is not its.

    Args:
        target: who executes commands.
        num_queues: request queues; the control and the event queue come on top.
        new_nexus: makes the identity of a nexus.
    """

    def __init__(
        self, target: ScsiTarget, num_queues: int = 1, *, new_nexus: Callable[[], Hashable] = object
    ) -> None:
        self._target = target
        self._new_nexus = new_nexus
        self._num_queues = num_queues
        self._queues = Queues("virtio-scsi")
        self._events = EventQueue("virtio-scsi")
        self._nexus = new_nexus()
        self._acked = 0
        self.gate = target.gate
        self._control = Control(target, self._queues.publish)

    # -- virtio/port.Device ------------------------------------------------------------------------

    @property
    def queue_count(self) -> int:
        """Control, event and request queues (5.6.2)."""
        return wire.FIRST_REQUEST_QUEUE + self._num_queues

    @property
    def features(self) -> int:
        """No INOUT (bidirectional commands are refused), no T10_PI (5.6.3)."""
        return wire.F_HOTPLUG | wire.F_CHANGE

    def config(self) -> None:
        """QEMU owns the configuration space of a SCSI host."""

    def write_config(self, offset: int, data: bytes) -> None:
        """Nothing of it can be changed here.

        Raises:
            ValueError: always.
        """
        raise ValueError(f"configuration write of {data.hex()} at {offset}: virtio-scsi has none here")

    def kept(self) -> bytes:
        """The nexus: to the driver it is the same in another process."""
        return self._nexus.kept() if isinstance(self._nexus, LoginNexus) else b""

    def restore(self, kept: bytes | None) -> None:
        """Go on with the predecessor's nexus, if one was kept."""
        if kept and isinstance(self._nexus, LoginNexus):
            self._nexus = self._nexus.again(kept)

    def set_features(self, features: int) -> None:
        """Remember what the driver acknowledged; QEMU adds bits that were never offered."""
        self._acked = features

    def start_queue(self, index: int, ring: Ring) -> None:
        """Serve a ring."""
        if index == wire.EVENT_QUEUE:
            self._events.start(ring)
        elif index == wire.CONTROL_QUEUE:
            self._queues.start(index, ring, self._handle_control)
        else:
            lane = ScsiExpress(ring, self._plain_access)
            self._queues.start(index, ring, partial(self._handle, index), lane)

    def kick(self, index: int) -> None:
        """Process what is available."""
        if index == wire.EVENT_QUEUE:
            self._events.kick()
        else:
            self._queues.kick(index)

    def stop_queue(self, index: int, stopped: Callable[[int], None]) -> None:
        """Stop serving a ring."""
        if index == wire.EVENT_QUEUE:
            self._events.stop(stopped)
        else:
            self._queues.stop(index, stopped)
        self.gate.stop()

    def measure(self, meters: Callable[[int], Meter]) -> None:
        """Measure every queue that is started from now on."""
        self._queues.meters = meters

    def queue_load(self, index: int) -> Load:
        """What a queue has to do now."""
        return self._queues.load(index)

    def resized(self, disk_name: str) -> None:
        """Say so for each logical unit on the disk; drivers that take no events meet a unit attention."""
        for lun in self._target.luns_on(disk_name):
            self.notify(lun, wire.Event.PARAM_CHANGE, _CAPACITY_CHANGED)

    def reset(self) -> None:
        """The driver is gone: so is its nexus."""
        old, self._nexus = self._nexus, self._new_nexus()
        self._acked = 0
        self._events.forget()
        self._target.nexus_loss(old, _nothing)

    def disconnected(self) -> None:
        """As a reset."""
        self.reset()

    # -- events ------------------------------------------------------------------------------------

    def notify(self, lun: int, event: wire.Event, reason: int) -> bool:
        """Tell the driver about a logical unit (`wire.param_change(0x2A, 0x09)`: capacity data have changed).

        Returns:
            False if the driver did not acknowledge such events, or had no buffer (then it will rescan).
        """
        needed = wire.F_HOTPLUG if event is wire.Event.TRANSPORT_RESET else wire.F_CHANGE
        return bool(self._acked & needed) and self._events.send(event, wire.encode_lun(0, lun), reason)

    # -- requests ----------------------------------------------------------------------------------

    def _plain_access(self, lun: int) -> PlainAccess | None:
        return self._target.plain_access(self._nexus, lun)

    def _handle_control(self, chain: Chain) -> None:
        self._control.handle(chain, self._nexus)

    def _handle(self, queue: int, chain: Chain) -> None:
        if chain.fault is not None:
            self._watch_refused(queue, chain, chain.fault)
            chain.complete(wire.RESPONSE_SIZE if chain.patch(0, _MALFORMED) else 0)
            return
        if chain.writable_length < wire.RESPONSE_SIZE:
            self._watch_refused(queue, chain, "no room for a response")
            chain.complete(0)
            return
        if chain.readable_length < wire.COMMAND_SIZE:
            self._refuse(queue, chain, Response.FAILURE, "no whole command")
            return
        lun, tag, _, _, _, cdb = wire.COMMAND.unpack(chain.read_exact(wire.COMMAND_SIZE))
        address = wire.decode_lun(lun)
        if chain.readable and chain.writable_length > wire.RESPONSE_SIZE:
            # Without INOUT (5.6.6.1.2).
            self._refuse(queue, chain, Response.FAILURE, "data both ways")
        elif address is None or address.target or (address.well_known and cdb[0] != _REPORT_LUNS):
            self._refuse(queue, chain, Response.BAD_TARGET, f"no such target or unit: {lun.hex()}")
        else:
            self._submit(queue, chain, address.lun, tag, cdb)

    def _submit(self, queue: int, chain: Chain, lun: int, tag: int, cdb: bytes) -> None:
        command = Command(chain, lun, tag, cdb[0])
        self._control.open.add(command)
        task = Task(
            nexus=self._nexus,
            lun=lun,
            cdb=cdb if cdb[0] == _VARIABLE_LENGTH else cdb[:16],
            data_out=chain.readable,
            data_in=split(chain.writable, wire.RESPONSE_SIZE)[1],
            done=partial(self._done, command),
            tag=tag,
        )
        if cdb[0] in _STAMPED:
            task.stamp = chain.stamp()
        if self.gate.taps:
            task.origin = Origin(queue, chain.head, *chain.shape())
        self._target.submit(task)

    def _done(self, command: Command, reply: Reply) -> None:
        self._control.open.discard(command)
        command.respond(reply)

    def _refuse(self, queue: int, chain: Chain, response: Response, why: str) -> None:
        self._watch_refused(queue, chain, why)
        fill(chain.writable, wire.RESPONSE.pack(0, 0, 0, 0, response, b""))
        chain.complete(wire.RESPONSE_SIZE)

    def _watch_refused(self, queue: int, chain: Chain, why: str) -> None:
        if self.gate.taps:
            exchange = self.gate.exchange(Kind.REFUSED, why)
            exchange.origin = Origin(queue, chain.head, *chain.shape())
            self.gate.refused(exchange)


def _nothing() -> None:
    """All queues are stopped: no task of the old nexus is left to wait for."""
