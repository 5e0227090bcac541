"""vhost-user messages in words.

Imports `wire/`. Whatever bytes come in, a record comes out: what contradicts itself is shown as bytes.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any, Final

from qemu_odx.wire import vhost_user as wire
from qemu_odx.wire.names import bits
from qemu_odx.wire.vhost_user import (
    ConfigSpace,
    Inflight,
    LogBase,
    MemoryRegion,
    Request,
    VringAddress,
    VringState,
)
from qemu_odx.wire.virtio import blk, features, scsi

if TYPE_CHECKING:
    from collections.abc import Callable

    from qemu_odx.trace.schema import Record

_VRING_STATES: Final = (
    Request.SET_VRING_NUM,
    Request.SET_VRING_BASE,
    Request.GET_VRING_BASE,
    Request.SET_VRING_ENABLE,
)
_VRING_FDS: Final = (Request.SET_VRING_KICK, Request.SET_VRING_CALL, Request.SET_VRING_ERR)
_PROTOCOL_NAMES: Final = {bit.value: bit.name for bit in wire.ProtocolFeature}


def message(request: int, payload: bytes, fds: int, *, device: str, reply: bool) -> Record:
    """A message as a record, without its time.

    Args:
        request: message type.
        payload: without the header.
        fds: descriptors that came with it.
        device: "blk" or "scsi": says what the feature bits are called.
        reply: it is an answer of ours.
    """
    record: Record = {
        "event": "message",
        "direction": "out" if reply else "in",
        "name": wire.request_name(request),
        "number": request,
        "size": len(payload),
        "fds": fds,
    }
    return record | _fields(request, payload, device, reply=reply)


def _fields(request: int, payload: bytes, device: str, *, reply: bool) -> dict[str, Any]:
    if not payload:
        return {}
    try:
        kind = Request(request)
        if reply and kind not in _REPLY_LIKE_REQUEST and len(payload) == wire.U64.size:
            return _answer(kind, payload, device)
        decode = _DECODERS.get(kind)
        return decode(payload, device) if decode else {"hex": payload.hex()}
    except (struct.error, ValueError):
        return {"hex": payload.hex()}


def _answer(kind: Request, payload: bytes, device: str) -> dict[str, Any]:
    """A u64: what a GET asked for, or the acknowledgement of REPLY_ACK."""
    if kind in {Request.GET_FEATURES, Request.GET_PROTOCOL_FEATURES}:
        return _DECODERS[kind](payload, device)
    value = wire.U64.unpack(payload)[0]
    return {"value" if kind.name.startswith("GET") else "ack": value}


def _features(payload: bytes, device: str) -> dict[str, Any]:
    (word,) = wire.U64.unpack(payload)
    own = blk.FEATURE_NAMES if device == "blk" else scsi.FEATURE_NAMES
    return {"value": f"{word:#x}", "features": features.feature_names(word, own)}


def _protocol_features(payload: bytes, _device: str) -> dict[str, Any]:
    (word,) = wire.U64.unpack(payload)
    return {"value": f"{word:#x}", "features": bits(word, _PROTOCOL_NAMES)}


def _vring_state(payload: bytes, _device: str) -> dict[str, Any]:
    state = VringState.unpack(payload)
    return {"queue": state.index, "num": state.num}


def _vring_address(payload: bytes, _device: str) -> dict[str, Any]:
    found = VringAddress.unpack(payload)
    places = {name: f"{getattr(found, name):#x}" for name in ("descriptor", "available", "used", "log")}
    return {"queue": found.index, "flags": found.flags} | places


def _vring_fd(payload: bytes, _device: str) -> dict[str, Any]:
    (word,) = wire.U64.unpack(payload)
    return {"queue": word & wire.VRING_INDEX_MASK, "with_fd": not word & wire.VRING_NO_FD}


def _region(region: MemoryRegion) -> dict[str, Any]:
    return {
        "guest_address": f"{region.guest_address:#x}",
        "size": region.size,
        "user_address": f"{region.user_address:#x}",
        "mmap_offset": region.mmap_offset,
    }


def _table(payload: bytes, _device: str) -> dict[str, Any]:
    return {"regions": [_region(region) for region in wire.unpack_memory_table(payload)]}


def _single(payload: bytes, _device: str) -> dict[str, Any]:
    return _region(MemoryRegion.unpack_single(payload))


def _config(payload: bytes, _device: str) -> dict[str, Any]:
    space = ConfigSpace.unpack(payload)
    return {"offset": space.offset, "bytes": space.size, "hex": space.data.hex()}


def _inflight(payload: bytes, _device: str) -> dict[str, Any]:
    area = Inflight.unpack(payload)
    return {
        "mmap_size": area.mmap_size,
        "mmap_offset": area.mmap_offset,
        "queues": area.num_queues,
        "queue_size": area.queue_size,
    }


def _log(payload: bytes, _device: str) -> dict[str, Any]:
    base = LogBase.unpack(payload)
    return {"mmap_size": base.mmap_size, "mmap_offset": base.mmap_offset}


def _number(payload: bytes, _device: str) -> dict[str, Any]:
    return {"value": wire.U64.unpack(payload)[0]}


_DECODERS: Final[dict[Request, Callable[[bytes, str], dict[str, Any]]]] = {
    Request.GET_FEATURES: _features,
    Request.SET_FEATURES: _features,
    Request.GET_PROTOCOL_FEATURES: _protocol_features,
    Request.SET_PROTOCOL_FEATURES: _protocol_features,
    Request.SET_MEM_TABLE: _table,
    Request.ADD_MEM_REG: _single,
    Request.REM_MEM_REG: _single,
    Request.SET_VRING_ADDR: _vring_address,
    Request.GET_CONFIG: _config,
    Request.SET_CONFIG: _config,
    Request.GET_INFLIGHT_FD: _inflight,
    Request.SET_INFLIGHT_FD: _inflight,
    Request.SET_LOG_BASE: _log,
    Request.GET_QUEUE_NUM: _number,
    Request.GET_MAX_MEM_SLOTS: _number,
    **dict.fromkeys(_VRING_STATES, _vring_state),
    **dict.fromkeys(_VRING_FDS, _vring_fd),
}
_REPLY_LIKE_REQUEST: Final = frozenset({Request.GET_VRING_BASE, Request.GET_CONFIG, Request.GET_INFLIGHT_FD})
"""Their replies have the form of the request."""
