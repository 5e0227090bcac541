"""The vhost-user session as a table: for each request its shape, what must be negotiated, and what it does.

Imports `wire` and the other modules of `vhost/`. Source: vhost-user specification, "Front-end message types".
A request that is not in the table is not served; protocol features that would need one are not offered.
"""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from qemu_odx.vhost.dirty_log import DirtyLog
from qemu_odx.vhost.inflight import InflightArea, check_shape, create_area
from qemu_odx.vhost.mapping import MAX_SLOTS, add_region, clear_regions, remove_region
from qemu_odx.vhost.message import Message, ProtocolError, RefusedError
from qemu_odx.wire.vhost_user import (
    CONFIG_HEAD_SIZE,
    INFLIGHT_SIZE,
    LOG_BASE_SIZE,
    MAX_CONFIG,
    MAX_FDS,
    REGION_SIZE,
    SINGLE_REGION_SIZE,
    TABLE_HEAD_SIZE,
    U64,
    VRING_ADDRESS_SIZE,
    VRING_INDEX_MASK,
    VRING_NO_FD,
    VRING_STATE_SIZE,
    ConfigSpace,
    Feature,
    Inflight,
    LogBase,
    MemoryRegion,
    ProtocolFeature,
    Request,
    VringAddress,
    VringState,
    WireError,
    unpack_memory_table,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from qemu_odx.vhost.session import Session
    from qemu_odx.vhost.vring import Vring


@dataclass(frozen=True, slots=True)
class Reply:
    """A request's own reply. It owns `fds`."""

    payload: bytes = b""
    fds: tuple[int, ...] = ()

    def close(self) -> None:
        """Close the descriptors, sent or not."""
        for fd in self.fds:
            os.close(fd)


PENDING: Final = Reply()
"""The reply comes later, by `Session.finish`."""


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table.

    Attributes:
        sizes: payload sizes in bytes that are well-formed.
        fds: numbers of descriptors that are well-formed.
        replies: it has a reply of its own, and so never an acknowledgement.
        needs: the protocol feature without which a front end may not send it.
    """

    handler: Callable[[Session, Message], Reply | None]
    sizes: range
    fds: range = range(1)
    replies: bool = False
    needs: ProtocolFeature | None = None

    def check(self, message: Message, negotiated: int) -> None:
        """Raise ProtocolError if the message has not the form of this row."""
        if self.needs is not None and not negotiated & self.needs.mask:
            raise ProtocolError(f"the protocol feature {self.needs.name} was not negotiated")
        if len(message.payload) not in self.sizes:
            raise ProtocolError(f"a payload of {len(message.payload)} bytes, not {_span(self.sizes)}")
        if len(message.fds) not in self.fds:
            raise ProtocolError(f"{len(message.fds)} file descriptors, not {_span(self.fds)}")


def _span(allowed: range) -> str:
    return f"{allowed[0]}" if len(allowed) == 1 else f"{allowed[0]} to {allowed[-1]}"


def _exactly(number: int) -> range:
    return range(number, number + 1)


def _word(value: int) -> Reply:
    return Reply(U64.pack(value))


def _vring(session: Session, index: int) -> Vring:
    if index >= len(session.vrings):
        raise RefusedError(f"there is no queue {index}, only {len(session.vrings)}")
    return session.vrings[index]


def _state(session: Session, message: Message) -> tuple[Vring, int]:
    state = VringState.unpack(message.payload)
    return _vring(session, state.index), state.num


def _vring_fd(session: Session, message: Message) -> tuple[Vring, int]:
    """The queue and the descriptor (or -1) of SET_VRING_KICK, CALL and ERR."""
    (word,) = U64.unpack(message.payload)
    if bool(word & VRING_NO_FD) == bool(message.fds):
        raise ProtocolError("the flag for 'no descriptor' contradicts the descriptors that came")
    vring = _vring(session, word & VRING_INDEX_MASK)
    return vring, message.take_fd() if message.fds else -1


def _get_features(session: Session, _: Message) -> Reply:
    return _word(session.offered_features)


def _set_features(session: Session, message: Message) -> None:
    """Bits never offered are let pass: QEMU gives vhost-user-scsi its own (CHANGE, VERSION_1) unasked."""
    (session.features,) = U64.unpack(message.payload)
    session.device.set_features(session.features)
    session.settle_log()
    if not session.features & Feature.PROTOCOL_FEATURES:
        # Without the protocol features there is no SET_VRING_ENABLE: rings begin enabled.
        for vring in session.vrings:
            vring.enabled = True


def _set_owner(_session: Session, _message: Message) -> None:
    """A connection has one owner anyway."""


def _get_protocol_features(session: Session, _: Message) -> Reply:
    return _word(session.offered_protocol_features)


def _set_protocol_features(session: Session, message: Message) -> None:
    (wanted,) = U64.unpack(message.payload)
    if unknown := wanted & ~session.offered_protocol_features:
        raise ProtocolError(f"the bits {unknown:#x} were not offered")
    session.protocol_features = wanted


def _get_queue_num(session: Session, _: Message) -> Reply:
    return _word(session.device.queue_count)


def _get_max_mem_slots(_session: Session, _message: Message) -> Reply:
    return _word(MAX_SLOTS)


def _set_mem_table(session: Session, message: Message) -> None:
    try:
        regions = unpack_memory_table(message.payload)
    except WireError as error:
        raise ProtocolError(str(error)) from error
    if len(regions) != len(message.fds):
        raise ProtocolError(f"{len(regions)} regions with {len(message.fds)} file descriptors")
    clear_regions(session.memory)
    for region, fd in zip(regions, message.fds, strict=True):
        add_region(session.memory, region, fd, session.memory_lost)


def _add_mem_reg(session: Session, message: Message) -> None:
    region = MemoryRegion.unpack_single(message.payload)
    add_region(session.memory, region, message.fds[0], session.memory_lost)


def _rem_mem_reg(session: Session, message: Message) -> None:
    remove_region(session.memory, MemoryRegion.unpack_single(message.payload))


def _set_log_base(session: Session, message: Message) -> Reply:
    """A new log takes over at once: QEMU sends one when the guest's memory grows, and then drops the old one."""
    session.log = DirtyLog(LogBase.unpack(message.payload), message.fds[0], session.memory_lost)
    session.settle_log()
    return _word(0)


def _set_vring_num(session: Session, message: Message) -> None:
    vring, size = _state(session, message)
    vring.set_size(size)


def _set_vring_addr(session: Session, message: Message) -> None:
    address = VringAddress.unpack(message.payload)
    _vring(session, address.index).set_address(address)


def _set_vring_base(session: Session, message: Message) -> None:
    vring, base = _state(session, message)
    if base > 0xFFFF:
        raise RefusedError(f"the base {base:#x} of queue {vring.index} has more than 16 bits")
    vring.base = base


def _get_vring_base(session: Session, message: Message) -> Reply:
    """Stop the ring; the answer comes when nothing touches the guest's memory any more."""
    vring, _ = _state(session, message)
    vring.kicked = False
    session.settle(vring)

    def drained() -> None:
        vring.close_kick()
        session.finish(Reply(VringState(vring.index, vring.base).pack()))

    vring.when_idle(drained)
    return PENDING


def _set_vring_kick(session: Session, message: Message) -> None:
    vring, fd = _vring_fd(session, message)
    if fd == -1:
        raise RefusedError(f"queue {vring.index} comes without a kick descriptor: polling is not supported")
    vring.set_kick(fd)
    session.settle(vring)


def _set_vring_call(session: Session, message: Message) -> None:
    vring, fd = _vring_fd(session, message)
    vring.set_call(fd)


def _set_vring_err(session: Session, message: Message) -> None:
    vring, fd = _vring_fd(session, message)
    vring.set_error(fd)


def _set_vring_enable(session: Session, message: Message) -> None:
    """QEMU enables every queue, also those without an address; they just never get a kick descriptor."""
    vring, on = _state(session, message)
    vring.enabled = bool(on)
    session.settle(vring)


def _set_backend_req_fd(session: Session, message: Message) -> None:
    fd = message.take_fd()
    try:
        sock = socket.socket(fileno=fd)
    except OSError as error:
        os.close(fd)
        raise RefusedError("the descriptor is no socket") from error
    sock.setblocking(False)
    session.use_backend_socket(sock)


def _get_config(session: Session, message: Message) -> Reply:
    wanted = _config(message)
    if wanted.offset + wanted.size > MAX_CONFIG:
        raise RefusedError(
            f"a configuration space of {wanted.offset + wanted.size} bytes, {MAX_CONFIG} at most"
        )
    space = (session.device.config() or b"").ljust(MAX_CONFIG, b"\0")
    session.config_read = session.device.config()
    data = space[wanted.offset : wanted.offset + wanted.size]
    return Reply(ConfigSpace(wanted.offset, wanted.size, 0, data).pack())


def _set_config(session: Session, message: Message) -> None:
    change = _config(message)
    try:
        session.device.write_config(change.offset, change.data)
    except ValueError as error:
        raise RefusedError(str(error)) from error
    session.config_read = session.device.config()  # the front end knows what it wrote
    if session.inflight:
        session.inflight.keep(session.device.kept())


def _config(message: Message) -> ConfigSpace:
    try:
        return ConfigSpace.unpack(message.payload)
    except WireError as error:
        raise ProtocolError(str(error)) from error


def _get_inflight_fd(session: Session, message: Message) -> Reply:
    wanted = Inflight.unpack(message.payload)
    check_shape(wanted.num_queues, wanted.queue_size)
    if wanted.num_queues > session.device.queue_count:
        raise RefusedError(
            f"an in-flight area for {wanted.num_queues} queues of {session.device.queue_count}"
        )
    description, fd = create_area(wanted.num_queues, wanted.queue_size)
    return Reply(description.pack(), (fd,))


def _set_inflight_fd(session: Session, message: Message) -> None:
    description = Inflight.unpack(message.payload)
    session.use_inflight(InflightArea(description, message.fds[0], session.memory_lost))


def _reset_device(session: Session, _: Message) -> Reply:
    def drained() -> None:
        session.device.reset()
        if session.inflight:
            session.inflight.keep(session.device.kept())
        session.finish(None)

    session.stop_all()
    session.when_idle(drained)
    return PENDING


_NONE, _U64, _STATE = _exactly(0), _exactly(U64.size), _exactly(VRING_STATE_SIZE)
_ONE, _UP_TO_ONE = _exactly(1), range(2)
_SINGLE, _AREA = _exactly(SINGLE_REGION_SIZE), _exactly(INFLIGHT_SIZE)
_REGIONS = range(TABLE_HEAD_SIZE, TABLE_HEAD_SIZE + MAX_FDS * REGION_SIZE + 1)
_CONFIG = range(CONFIG_HEAD_SIZE, CONFIG_HEAD_SIZE + MAX_CONFIG + 1)
_P = ProtocolFeature

TABLE: Final[dict[int, Row]] = {
    Request.GET_FEATURES: Row(_get_features, _NONE, replies=True),
    Request.SET_FEATURES: Row(_set_features, _U64),
    Request.SET_OWNER: Row(_set_owner, _NONE),
    Request.SET_MEM_TABLE: Row(_set_mem_table, _REGIONS, range(MAX_FDS + 1)),
    Request.SET_LOG_BASE: Row(_set_log_base, _exactly(LOG_BASE_SIZE), _ONE, replies=True, needs=_P.LOG_SHMFD),
    Request.SET_VRING_NUM: Row(_set_vring_num, _STATE),
    Request.SET_VRING_ADDR: Row(_set_vring_addr, _exactly(VRING_ADDRESS_SIZE)),
    Request.SET_VRING_BASE: Row(_set_vring_base, _STATE),
    Request.GET_VRING_BASE: Row(_get_vring_base, _STATE, replies=True),
    Request.SET_VRING_KICK: Row(_set_vring_kick, _U64, _UP_TO_ONE),
    Request.SET_VRING_CALL: Row(_set_vring_call, _U64, _UP_TO_ONE),
    Request.SET_VRING_ERR: Row(_set_vring_err, _U64, _UP_TO_ONE),
    Request.GET_PROTOCOL_FEATURES: Row(_get_protocol_features, _NONE, replies=True),
    Request.SET_PROTOCOL_FEATURES: Row(_set_protocol_features, _U64),
    Request.GET_QUEUE_NUM: Row(_get_queue_num, _NONE, replies=True, needs=_P.MQ),
    Request.SET_VRING_ENABLE: Row(_set_vring_enable, _STATE),
    Request.SET_BACKEND_REQ_FD: Row(_set_backend_req_fd, _NONE, _ONE, needs=_P.BACKEND_REQ),
    Request.GET_CONFIG: Row(_get_config, _CONFIG, replies=True, needs=_P.CONFIG),
    Request.SET_CONFIG: Row(_set_config, _CONFIG, needs=_P.CONFIG),
    Request.GET_INFLIGHT_FD: Row(_get_inflight_fd, _AREA, replies=True, needs=_P.INFLIGHT_SHMFD),
    Request.SET_INFLIGHT_FD: Row(_set_inflight_fd, _AREA, _ONE, needs=_P.INFLIGHT_SHMFD),
    Request.RESET_DEVICE: Row(_reset_device, _NONE, needs=_P.RESET_DEVICE),
    Request.GET_MAX_MEM_SLOTS: Row(_get_max_mem_slots, _NONE, replies=True, needs=_P.CONFIGURE_MEM_SLOTS),
    Request.ADD_MEM_REG: Row(_add_mem_reg, _SINGLE, _ONE, needs=_P.CONFIGURE_MEM_SLOTS),
    Request.REM_MEM_REG: Row(_rem_mem_reg, _SINGLE, _UP_TO_ONE, needs=_P.CONFIGURE_MEM_SLOTS),
}
