"""A vhost-user session without its socket: messages in, replies and device calls out.

Imports `wire`, the other modules of `vhost/` and the seam `virtio/port.py`. What a message does stands in the
table of `vhost/requests.py`; this module keeps the state, the acknowledgement rule and the order of things: while a
message waits (for a ring to drain), those behind it wait too, the thread does not. Fed by `server/export.py`.
"""

from __future__ import annotations

import functools
import logging
from typing import TYPE_CHECKING, Protocol

from qemu_odx.vhost.dirty_log import atomic_or
from qemu_odx.vhost.mapping import clear_regions
from qemu_odx.vhost.message import Message, ProtocolError, RefusedError
from qemu_odx.vhost.requests import PENDING, TABLE, Reply
from qemu_odx.vhost.vring import State, Vring, Watcher
from qemu_odx.virtio.memory import GuestMemory
from qemu_odx.wire.vhost_user import (
    HEADER,
    U64,
    VERSION,
    BackendRequest,
    Feature,
    ProtocolFeature,
)

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Sequence

    from qemu_odx.vhost.dirty_log import DirtyLog
    from qemu_odx.vhost.inflight import InflightArea
    from qemu_odx.vhost.watch import Watch
    from qemu_odx.virtio.port import Device

log = logging.getLogger(__name__)

_PROTOCOL = (
    ProtocolFeature.MQ,
    ProtocolFeature.REPLY_ACK,
    ProtocolFeature.INFLIGHT_SHMFD,
    ProtocolFeature.RESET_DEVICE,
    ProtocolFeature.CONFIGURE_MEM_SLOTS,
)
_PROTOCOL_WITH_CONFIG = (*_PROTOCOL, ProtocolFeature.CONFIG, ProtocolFeature.BACKEND_REQ)
_ACK, _NACK = 0, 1


class Link(Watcher, Protocol):
    """The session's way out: the event loop and the front end's socket."""

    def send(self, request: int, payload: bytes, fds: Sequence[int]) -> None:
        """Send a reply, or drop the front end that cannot take it; the descriptors stay the caller's."""

    def resume(self) -> None:
        """The message in hand is finished: the next one may come."""

    def drop(self, reason: str) -> None:
        """Log the reason and end the connection. May call `Session.close` before it returns."""


class Session:
    """One front end's conversation with one device.

    Attributes:
        features: virtio feature bits acknowledged, bits we never offered included.
        protocol_features: protocol feature bits acknowledged.
        vrings: one per queue of the device.
        inflight: the in-flight area in use, if the front end set one.
        log: the dirty log in use, if the front end set one.
        config_read: the configuration space as the front end saw it last, None before that.
    """

    def __init__(self, device: Device, link: Link, watches: Sequence[Watch] = ()) -> None:
        self.device = device
        self.link = link
        self.features = 0
        self.protocol_features = 0
        self.memory = GuestMemory()
        self.vrings = [Vring(index, device, link) for index in range(device.queue_count)]
        self.inflight: InflightArea | None = None
        self.log: DirtyLog | None = None
        self.config_read: bytes | None = None
        self._watches = watches
        self._backend_socket: socket.socket | None = None
        self._pending: Message | None = None
        self._closed = False

    @property
    def busy(self) -> bool:
        """True while a message waits for its reply: hand over no other one."""
        return self._pending is not None

    @property
    def offered_features(self) -> int:
        """Answer of GET_FEATURES."""
        ring = Feature.VERSION_1 | Feature.EVENT_IDX | Feature.INDIRECT_DESC | Feature.PROTOCOL_FEATURES
        return ring | self.device.features | (Feature.LOG_ALL if atomic_or() else 0)

    @property
    def offered_protocol_features(self) -> int:
        """Answer of GET_PROTOCOL_FEATURES: what is implemented; QEMU acknowledges all that it knows."""
        has_config = self.device.config() is not None
        bits = sum(bit.mask for bit in (_PROTOCOL_WITH_CONFIG if has_config else _PROTOCOL))
        return bits | (ProtocolFeature.LOG_SHMFD.mask if atomic_or() else 0)

    def receive(self, message: Message) -> None:
        """Act on a message: the session owns its descriptors. Never raises for what a front end can send."""
        self._pending = message
        for watch in self._watches:
            watch.received(message.request, message.payload, len(message.fds))
        try:
            reply = self._dispatch(message)
            if reply is not PENDING:
                self.finish(reply)
        except ProtocolError as error:
            self._pending = None
            self.link.drop(f"{message.name}: {error}")
        except RefusedError as error:
            self._pending = None
            self._refuse(message, str(error))
        finally:
            message.close()

    def finish(self, reply: Reply | None) -> None:
        """Answer the message in hand: with its own reply, or the acknowledgement it asked for, never both."""
        message, self._pending = self._pending, None
        if message is None or self._closed:
            return
        if reply is not None:
            self._send(message.request, reply.payload, reply.fds)
            reply.close()
        elif self._acknowledges(message):
            self._send(message.request, U64.pack(_ACK), ())
        self.link.resume()

    def settle(self, vring: Vring) -> None:
        """Start or stop a ring as its state asks, once it has drained from an earlier stop.

        Raises:
            RefusedError: it cannot be started as described.
        """
        if vring.state is State.DRAINING:
            vring.when_idle(functools.partial(self._settle_later, vring))
            return
        was_idle = vring.state is State.IDLE
        vring.settle(self.memory, self.inflight, event_idx=bool(self.features & Feature.EVENT_IDX))
        if was_idle and vring.state is State.RUNNING:
            self._on_start(vring)

    def use_inflight(self, area: InflightArea) -> None:
        """An area, new or given back; the device learns from it what its predecessor kept there."""
        self.inflight = area
        kept = area.kept()
        if kept is not None:
            self.device.restore(kept)
            return
        self._meet_predecessor()
        area.keep(self.device.kept())

    def _meet_predecessor(self) -> None:
        """A front end that has not asked for the configuration on this connection knows another process'."""
        if self.config_read is None:
            self.device.restore(None)

    def settle_log(self) -> None:
        """Log what devices write to guest memory, or do so no more, as features and log ask."""
        log = self.log if self.features & Feature.LOG_ALL else None
        self.memory.mark_written = log.mark if log else None

    def memory_lost(self) -> None:
        """A file that the front end shares has become shorter: pages of it that we touched are gone."""
        if not self._closed:
            self.link.drop("a memory file that it shares was made shorter than it said; do not truncate it")

    def when_idle(self, then: Callable[[], None]) -> None:
        """Call `then` once every ring has drained, perhaps now."""
        for vring in self.vrings:
            if vring.state is not State.IDLE:
                vring.when_idle(functools.partial(self.when_idle, then))
                return
        then()

    def stop_all(self) -> None:
        """Stop every ring; what is in flight goes on."""
        for vring in self.vrings:
            vring.kicked = False
            if vring.state is State.RUNNING:
                self.settle(vring)

    def use_backend_socket(self, sock: socket.socket) -> None:
        """Take over the socket on which the back end may speak first."""
        if self._backend_socket:
            self._backend_socket.close()
        self._backend_socket = sock

    def config_may_have_changed(self) -> None:
        """If it has, tell the front end now or, if nothing runs, at the next start."""
        if self.config_read != self.device.config() and any(v.state is State.RUNNING for v in self.vrings):
            self.config_changed()

    def config_changed(self) -> None:
        """Tell the front end to read the configuration space again, which QEMU does if the device is started.

        Without need_reply: QEMU acknowledges only after its GET_CONFIG was answered, which would wait for us.
        """
        if self._backend_socket is None:
            return
        try:
            self._backend_socket.send(HEADER.pack(BackendRequest.CONFIG_CHANGE_MSG, VERSION, 0))
            for watch in self._watches:
                watch.notified(BackendRequest.CONFIG_CHANGE_MSG)
        except OSError as error:
            log.warning("the front end was not told of a configuration change: %s", error)

    def close(self, closed: Callable[[], None]) -> None:
        """The front end is gone: stop every ring, and call `closed` when nothing is in flight any more."""
        self._closed = True
        if self._backend_socket:
            self._backend_socket.close()
            self._backend_socket = None
        self.stop_all()
        self.when_idle(functools.partial(self._release, closed))

    def _on_start(self, vring: Vring) -> None:
        """With its first ring a device starts: only then QEMU listens, and it does not ask when it reconnects."""
        others = any(other.state is State.RUNNING for other in self.vrings if other is not vring)
        if not others and self.inflight is None:
            self._meet_predecessor()
        if not others and self.config_read != self.device.config():
            self.config_changed()

    def _dispatch(self, message: Message) -> Reply | None:
        row = TABLE.get(message.request)
        if row is None:
            raise ProtocolError("this back end does not know the request")
        row.check(message, self.protocol_features)
        return row.handler(self, message)

    def _send(self, request: int, payload: bytes, fds: Sequence[int]) -> None:
        for watch in self._watches:
            watch.sent(request, payload, len(fds))
        self.link.send(request, payload, fds)

    def _refuse(self, message: Message, reason: str) -> None:
        for watch in self._watches:
            watch.refused(message.request, reason)
        if self._acknowledges(message) and not TABLE[message.request].replies:
            log.warning("%s refused: %s", message.name, reason)
            self._send(message.request, U64.pack(_NACK), ())
        else:
            self.link.drop(f"{message.name}: {reason}")

    def _acknowledges(self, message: Message) -> bool:
        return message.wants_ack and bool(self.protocol_features & ProtocolFeature.REPLY_ACK.mask)

    def _settle_later(self, vring: Vring) -> None:
        try:
            self.settle(vring)
        except RefusedError as error:
            self.link.drop(str(error))

    def _release(self, closed: Callable[[], None]) -> None:
        self.device.disconnected()
        for vring in self.vrings:
            vring.close()
        clear_regions(self.memory)
        self.inflight = self.log = None
        self.settle_log()
        closed()
