"""A vhost-user front end without QEMU: says what QEMU 7.2 and 10.0 say, in their order, over a real socket.

May import anything but `lab` and `cli`. Guest RAM is `testing/ram.py`, the guest's side of each queue
`testing/driver.py`. For tests of any back end:

    with FrontEnd("/run/odx/b.sock", queues=1) as front:
        front.connect()
        front.start()
        done = front.queues[0].execute(header, in_length=513)

`request`, `send` and `reply` break every rule if asked to. Source of the order of messages: QEMU
`hw/virtio/{vhost,vhost-user}.c`, `hw/block/vhost-user-blk.c`, `hw/scsi/vhost-{user-scsi,scsi-common}.c`.
"""

from __future__ import annotations

import os
import select
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from qemu_odx.testing.driver import DriverQueue
from qemu_odx.testing.message_socket import PATIENCE, MessageSocket, wait_for
from qemu_odx.testing.ram import GuestRam
from qemu_odx.wire.vhost_user import (
    FLAG_NEED_REPLY,
    HEADER,
    INFLIGHT_SIZE,
    U64,
    VERSION,
    VRING_LOG,
    ConfigSpace,
    Feature,
    Inflight,
    LogBase,
    MemoryRegion,
    ProtocolFeature,
    Request,
    VringAddress,
    VringState,
    pack_memory_table,
    request_name,
)

if TYPE_CHECKING:
    import os as _os
    from collections.abc import Sequence

BLK_CONFIG_SIZE = 57
"""What QEMU asks of a virtio-blk back end with discard and write zeroes on."""

QEMU_7_2_PROTOCOL = sum(1 << bit for bit in range(17))
QEMU_10_0_PROTOCOL = sum(1 << bit for bit in range(20))


class RefusedError(Exception):
    """The back end answered a request that asked for it with failure."""


@dataclass(slots=True)
class Vring:
    """What the front end keeps of a queue: its event descriptors and the index to go on from."""

    kick: int
    call: int
    error: int
    base: int = 0


class FrontEnd(MessageSocket):
    """One virtio device's front end.

    Args:
        path: the back end's socket.
        queues: queues of the device that the "guest" sets up.
        extra: further queues that exist but get no address (QEMU enables those too).
        queue_size: entries of each.
        config_size: bytes of configuration space to read, 0 for a device whose front end owns it (scsi).
        ram: guest memory, made here by default.
        driver_features: virtio features the "guest driver" takes if offered.
        protocol: protocol features known to this front end.
        modern: as QEMU 10.0 does (SET_VRING_ENABLE wants an acknowledgement, virtio reset is announced).
    """

    def __init__(
        self,
        path: str | _os.PathLike[str],
        *,
        queues: int = 1,
        extra: int = 0,
        queue_size: int = 128,
        config_size: int = BLK_CONFIG_SIZE,
        ram: GuestRam | None = None,
        driver_features: int = (1 << 64) - 1,
        protocol: int = QEMU_7_2_PROTOCOL,
        modern: bool = False,
    ) -> None:
        super().__init__(path)
        self.ram = ram or GuestRam()
        self.config = b""
        self.features = 0
        self.protocol = 0
        self.offered_protocol = 0
        self.max_queues = 1
        self.queue_size = queue_size
        self._extra = extra
        self._config_size = config_size
        self._driver_features = driver_features
        self._known_protocol = protocol
        self._modern = modern
        self._backend: socket.socket | None = None
        self._inflight: tuple[Inflight, int] | None = None
        self._log: tuple[LogBase, int] | None = None
        self._sent_regions: set[int] = set()
        self.vrings = [_new_vring() for _ in range(queues)]
        self.queues = [self._queue(vring) for vring in self.vrings]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # -- life --------------------------------------------------------------------------------------

    def connect(self, *, again: bool = False) -> None:
        """Connect and introduce ourselves; `again`: after a lost connection (the configuration is kept)."""
        self.open()
        self._sent_regions.clear()
        self._negotiate_protocol()
        self.send(Request.SET_OWNER)
        wanted = self._driver_features & ~Feature.LOG_ALL | Feature.PROTOCOL_FEATURES
        self.features = self.ask(Request.GET_FEATURES) & wanted
        for index, (vring, queue) in enumerate(zip(self.vrings, self.queues, strict=True)):
            queue.event_idx = bool(self.features & Feature.EVENT_IDX)
            self.send(Request.SET_VRING_CALL, U64.pack(index), [vring.call])
            self.send(Request.SET_VRING_ERR, U64.pack(index), [vring.error])
        if self._config_size and not again:
            self.config = self.get_config(0, self._config_size)

    def start(self) -> None:
        """The guest's driver is ready: describe memory and rings, enable every queue."""
        self._set_features()
        if self.has(ProtocolFeature.INFLIGHT_SHMFD):
            self._share_inflight()
        for index, vring in enumerate(self.vrings):
            self.send(Request.SET_VRING_CALL, U64.pack(index), [vring.call])
        self._set_features()
        self._share_memory()
        for index in range(len(self.vrings)):
            self.start_ring(index)
        self._share_log()
        for index in range(len(self.vrings) + self._extra):
            self.enable(index, on=True)

    def start_log(self, fd: int, size: int, offset: int = 0) -> None:
        """A migration of the guest begins: dirty pages are logged in `fd`, while the rings run."""
        self._log = LogBase(size, offset), fd
        self._share_log()
        self._settle_log()

    def stop_log(self) -> None:
        """It was cancelled."""
        self._log = None
        self._settle_log()

    def stop(self) -> None:
        """The guest stops or its driver leaves: the rings are ours again, with what was done in them."""
        for index in range(len(self.vrings) + self._extra):
            self.enable(index, on=False)
        for index, vring in enumerate(self.vrings):
            reply = VringState.unpack(self.request(Request.GET_VRING_BASE, VringState(index, 0).pack()))
            vring.base = reply.num

    def reset(self) -> None:
        """The guest resets the device: stop, forget what was in flight, fresh rings."""
        self.stop()
        if self._modern and self.has(ProtocolFeature.RESET_DEVICE):
            self.send(Request.RESET_DEVICE)
        self._drop_inflight()

    def lose(self) -> None:
        """Drop the connection without a word, as a killed QEMU does."""
        super().lose()
        if self._backend:
            self._backend.close()
            self._backend = None

    def resume(self) -> None:
        """Connect and start again after a lost connection, going on from what the used rings say."""
        self.lose()
        self.connect(again=True)
        for vring, queue in zip(self.vrings, self.queues, strict=True):
            vring.base = (queue.last_used + queue.used_pending()) & 0xFFFF
        self.start()

    def close(self) -> None:
        """Drop the connection and everything this front end holds."""
        self.lose()
        self._drop_inflight()
        for vring in self.vrings:
            for fd in (vring.kick, vring.call, vring.error):
                os.close(fd)
        self.vrings = []
        self.ram.close()

    def use_inflight(self, fd: int, size: int) -> None:
        """Hand over this file as the in-flight area, instead of one that the back end made; `fd` is ours now."""
        self._inflight = Inflight(size, 0, len(self.vrings) + self._extra, self.queue_size), fd

    # -- single steps ------------------------------------------------------------------------------

    def has(self, feature: ProtocolFeature) -> bool:
        """True if a protocol feature was negotiated."""
        return bool(self.protocol & feature.mask)

    def start_ring(self, index: int) -> None:
        """Describe one ring and hand over its kick descriptor."""
        queue, vring = self.queues[index], self.vrings[index]
        self.send(Request.SET_VRING_NUM, VringState(index, queue.size).pack())
        self.send(Request.SET_VRING_BASE, VringState(index, vring.base).pack())
        self.send(Request.SET_VRING_ADDR, self.ring_address(index).pack())
        self.send(Request.SET_VRING_KICK, U64.pack(index), [vring.kick])

    def ring_address(self, index: int) -> VringAddress:
        """Where a queue's ring is, in this front end's own addresses."""
        queue, uva = self.queues[index], self.ram.uva
        flags = VRING_LOG if self._log else 0
        return VringAddress(
            index, flags, uva(queue.desc_gpa), uva(queue.used_gpa), uva(queue.avail_gpa), queue.used_gpa
        )

    def plug(self, region: MemoryRegion, fd: int) -> None:
        """More memory for the guest."""
        self.tell(Request.ADD_MEM_REG, region.pack_single(), [fd])

    def unplug(self, region: MemoryRegion) -> None:
        """Take memory away, whatever is in flight there."""
        self.tell(Request.REM_MEM_REG, region.pack_single())

    def enable(self, index: int, *, on: bool) -> None:
        """SET_VRING_ENABLE, acknowledged as QEMU 10.0 wants it, or not as 7.2 does."""
        payload = VringState(index, int(on)).pack()
        (self.tell if self._modern else self.send)(Request.SET_VRING_ENABLE, payload)

    def get_config(self, offset: int, size: int) -> bytes:
        """Read the device's configuration space."""
        payload = self.request(Request.GET_CONFIG, ConfigSpace(offset, size, 0, bytes(size)).pack())
        return ConfigSpace.unpack(payload).data

    def config_change_pending(self, patience: float = PATIENCE) -> bool:
        """True if the back end says, or in so many seconds will say, that its configuration changed."""
        if self._backend is None:
            return False
        readable, _, _ = select.select([self._backend], [], [], patience)
        return bool(readable) and len(self._backend.recv(HEADER.size)) == HEADER.size

    def config_unchanged(self) -> bool:
        """True if it has seen all messages so far, and says no such thing: a test of nothing has to wait for some."""
        self.sync()
        return not self.config_change_pending(0.2)

    def sync(self) -> None:
        """Return when the back end has seen every message sent so far."""
        self.ask(Request.GET_FEATURES)

    # -- messages ----------------------------------------------------------------------------------

    def acknowledged(self, request: int, payload: bytes = b"", fds: Sequence[int] = ()) -> None:
        """Send a message that wants an acknowledgement, and wait for it.

        Raises:
            RefusedError: it says failure.
        """
        self.send(request, payload, fds, VERSION | FLAG_NEED_REPLY)
        (result,) = U64.unpack(self.reply(request)[0])
        if result:
            raise RefusedError(f"{request_name(request)} was refused ({result})")

    def tell(self, request: int, payload: bytes = b"", fds: Sequence[int] = ()) -> None:
        """Send a message, and wait for its acknowledgement if that was negotiated."""
        (self.acknowledged if self.has(ProtocolFeature.REPLY_ACK) else self.send)(request, payload, fds)

    # -- inside ------------------------------------------------------------------------------------

    def _queue(self, vring: Vring) -> DriverQueue:
        queue = DriverQueue(self.ram, self.queue_size, kick=lambda: os.eventfd_write(vring.kick, 1))

        def wait() -> None:
            while not queue.arm_interrupt():  # a call may mean nothing: one comes with every start
                wait_for(vring.call)

        queue.wait = wait
        return queue

    def _negotiate_protocol(self) -> None:
        if not self.ask(Request.GET_FEATURES) & Feature.PROTOCOL_FEATURES:
            raise AssertionError("the back end has no protocol features: QEMU would refuse it")
        self.offered_protocol = self.ask(Request.GET_PROTOCOL_FEATURES)
        self.protocol = self.offered_protocol & self._known_protocol
        self.send(Request.SET_PROTOCOL_FEATURES, U64.pack(self.protocol))
        if self.has(ProtocolFeature.MQ):
            self.max_queues = self.ask(Request.GET_QUEUE_NUM)
        if self.has(ProtocolFeature.CONFIGURE_MEM_SLOTS):
            self.ask(Request.GET_MAX_MEM_SLOTS)
        if self.has(ProtocolFeature.BACKEND_REQ):
            self._offer_backend_socket()

    def _offer_backend_socket(self) -> None:
        self._backend, theirs = socket.socketpair()
        with theirs:
            self.tell(Request.SET_BACKEND_REQ_FD, b"", [theirs.fileno()])

    def _share_inflight(self) -> None:
        """First start: let the back end make the area. Every start: hand it over."""
        if self._inflight is None:
            wanted = Inflight(0, 0, len(self.vrings) + self._extra, self.queue_size)
            self.send(Request.GET_INFLIGHT_FD, wanted.pack())
            payload, fds = self.reply(Request.GET_INFLIGHT_FD)
            if len(payload) != INFLIGHT_SIZE or len(fds) != 1:
                raise AssertionError(f"an in-flight area of {len(payload)} bytes and {len(fds)} descriptors")
            self._inflight = Inflight.unpack(payload), fds[0]
        description, fd = self._inflight
        self.send(Request.SET_INFLIGHT_FD, description.pack(), [fd])

    def _drop_inflight(self) -> None:
        if self._inflight:
            os.close(self._inflight[1])
            self._inflight = None

    def _set_features(self) -> None:
        self.tell(Request.SET_FEATURES, U64.pack(self.features | (Feature.LOG_ALL if self._log else 0)))

    def _share_log(self) -> None:
        if self._log:
            description, fd = self._log
            self.send(Request.SET_LOG_BASE, description.pack(), [fd])
            if self.has(ProtocolFeature.LOG_SHMFD):
                self.reply(Request.SET_LOG_BASE)

    def _settle_log(self) -> None:
        """As QEMU switches logging while the device runs."""
        self._set_features()
        for index in range(len(self.vrings)):
            self.tell(Request.SET_VRING_ADDR, self.ring_address(index).pack())

    def _share_memory(self) -> None:
        regions = [MemoryRegion(r.gpa, r.size, r.uva, r.offset) for r in self.ram.regions]
        if not self.has(ProtocolFeature.CONFIGURE_MEM_SLOTS):
            self.send(Request.SET_MEM_TABLE, pack_memory_table(tuple(regions)), [self.ram.fd] * len(regions))
            return
        for region in regions:
            if region.guest_address not in self._sent_regions:
                self.tell(Request.ADD_MEM_REG, region.pack_single(), [self.ram.fd])
                self._sent_regions.add(region.guest_address)


def _new_vring() -> Vring:
    kick, call, error = (os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC) for _ in range(3))
    return Vring(kick, call, error)
