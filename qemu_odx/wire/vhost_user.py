"""Bytes of the vhost-user protocol: message header, every payload we speak, numbers and their names.

Source: QEMU `docs/interop/vhost-user.rst` ("Front-end message types", "Message specification") as spoken by
QEMU 7.2 and 10.0. Pure: imports nothing of ours. Next: `vhost/transport.py` cuts the stream into messages,
`vhost/session.py` gives them their meaning. Integers travel in the byte order of the host.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum
from typing import ClassVar, Self

HEADER = struct.Struct("=III")
"""Request u32, flags u32, size of the payload u32 ("Message Specification", Header)."""

VERSION = 0x1
VERSION_MASK = 0x3
FLAG_REPLY = 0x4
FLAG_NEED_REPLY = 0x8
REPLY_FLAGS = VERSION | FLAG_REPLY
"""QEMU takes a reply with exactly these flags and no others."""

MAX_PAYLOAD = 4096
"""Far above the largest payload in use (a memory table or a configuration space, under 300 bytes)."""
MAX_FDS = 8
"""VHOST_USER_MAX_RAM_SLOTS of the SET_MEM_TABLE message; no message carries more descriptors."""
MAX_CONFIG = 256
"""VHOST_USER_MAX_CONFIG_SIZE ("Virtio device config space")."""
MAX_RING = 32768
"""Largest split virtqueue (virtio 1.2, 2.7)."""

VRING_INDEX_MASK = 0xFF
VRING_NO_FD = 0x100
"""SET_VRING_KICK/CALL/ERR: bits 0-7 are the queue, bit 8 says that no descriptor comes along."""
VRING_LOG = 0x1
"""SET_VRING_ADDR, flags: VHOST_VRING_F_LOG, log the writes to the used ring."""


class Request(IntEnum):
    """Front-end message types, by their number."""

    GET_FEATURES = 1
    SET_FEATURES = 2
    SET_OWNER = 3
    RESET_OWNER = 4
    SET_MEM_TABLE = 5
    SET_LOG_BASE = 6
    SET_LOG_FD = 7
    SET_VRING_NUM = 8
    SET_VRING_ADDR = 9
    SET_VRING_BASE = 10
    GET_VRING_BASE = 11
    SET_VRING_KICK = 12
    SET_VRING_CALL = 13
    SET_VRING_ERR = 14
    GET_PROTOCOL_FEATURES = 15
    SET_PROTOCOL_FEATURES = 16
    GET_QUEUE_NUM = 17
    SET_VRING_ENABLE = 18
    SEND_RARP = 19
    NET_SET_MTU = 20
    SET_BACKEND_REQ_FD = 21
    IOTLB_MSG = 22
    SET_VRING_ENDIAN = 23
    GET_CONFIG = 24
    SET_CONFIG = 25
    CREATE_CRYPTO_SESSION = 26
    CLOSE_CRYPTO_SESSION = 27
    POSTCOPY_ADVISE = 28
    POSTCOPY_LISTEN = 29
    POSTCOPY_END = 30
    GET_INFLIGHT_FD = 31
    SET_INFLIGHT_FD = 32
    GPU_SET_SOCKET = 33
    RESET_DEVICE = 34
    VRING_KICK = 35
    GET_MAX_MEM_SLOTS = 36
    ADD_MEM_REG = 37
    REM_MEM_REG = 38
    SET_STATUS = 39
    GET_STATUS = 40
    GET_SHARED_OBJECT = 41
    SET_DEVICE_STATE_FD = 42
    CHECK_DEVICE_STATE = 43


class BackendRequest(IntEnum):
    """Back-end message types, sent on the socket of SET_BACKEND_REQ_FD."""

    CONFIG_CHANGE_MSG = 2


class Feature:
    """Virtio feature bits that belong to the ring and the transport (virtio 1.2, 6), as masks."""

    LOG_ALL: ClassVar[int] = 1 << 26
    INDIRECT_DESC: ClassVar[int] = 1 << 28
    EVENT_IDX: ClassVar[int] = 1 << 29
    PROTOCOL_FEATURES: ClassVar[int] = 1 << 30
    VERSION_1: ClassVar[int] = 1 << 32


class ProtocolFeature(IntEnum):
    """VHOST_USER_PROTOCOL_F_* bits that this program knows, by their number."""

    MQ = 0
    LOG_SHMFD = 1
    REPLY_ACK = 3
    BACKEND_REQ = 5
    CONFIG = 9
    INFLIGHT_SHMFD = 12
    RESET_DEVICE = 13
    CONFIGURE_MEM_SLOTS = 15

    @property
    def mask(self) -> int:
        """The bit as it stands in the 64-bit word."""
        return 1 << self


U64 = struct.Struct("=Q")
_VRING_STATE = struct.Struct("=II")
_VRING_ADDRESS = struct.Struct("=IIQQQQ")
_REGION = struct.Struct("=QQQQ")
_TABLE_HEAD = struct.Struct("=I4x")
_SINGLE_HEAD = struct.Struct("=8x")
_CONFIG_HEAD = struct.Struct("=III")
_INFLIGHT = struct.Struct("=QQHH4x")
_LOG_BASE = struct.Struct("=QQ")

SINGLE_REGION_SIZE = _SINGLE_HEAD.size + _REGION.size
CONFIG_HEAD_SIZE = _CONFIG_HEAD.size
INFLIGHT_SIZE = _INFLIGHT.size
"""24: the C structure ends in 4 bytes of padding that the specification's field list does not show."""
LOG_BASE_SIZE = _LOG_BASE.size
VRING_STATE_SIZE = _VRING_STATE.size
VRING_ADDRESS_SIZE = _VRING_ADDRESS.size
TABLE_HEAD_SIZE = _TABLE_HEAD.size
REGION_SIZE = _REGION.size


class WireError(ValueError):
    """A payload whose bytes contradict each other."""


@dataclass(frozen=True, slots=True)
class VringState:
    """A vring state description: queue index and one number (size, base or on/off)."""

    index: int
    num: int

    def pack(self) -> bytes:
        """8 bytes."""
        return _VRING_STATE.pack(self.index, self.num)

    @classmethod
    def unpack(cls, payload: bytes) -> Self:
        """From 8 bytes."""
        return cls(*_VRING_STATE.unpack(payload))


@dataclass(frozen=True, slots=True)
class VringAddress:
    """A vring address description: where the three parts of a ring are, as front-end virtual addresses.

    Attributes:
        flags: bit 0 asks for dirty logging of the used ring.
        log: guest physical address of the used ring, for that log.
    """

    index: int
    flags: int
    descriptor: int
    used: int
    available: int
    log: int

    def pack(self) -> bytes:
        """40 bytes."""
        return _VRING_ADDRESS.pack(
            self.index, self.flags, self.descriptor, self.used, self.available, self.log
        )

    @classmethod
    def unpack(cls, payload: bytes) -> Self:
        """From 40 bytes."""
        return cls(*_VRING_ADDRESS.unpack(payload))


@dataclass(frozen=True, slots=True)
class MemoryRegion:
    """A memory region description: `size` bytes of guest RAM, `mmap_offset` bytes into its descriptor."""

    guest_address: int
    size: int
    user_address: int
    mmap_offset: int

    def pack(self) -> bytes:
        """32 bytes, as in a table."""
        return _REGION.pack(self.guest_address, self.size, self.user_address, self.mmap_offset)

    def pack_single(self) -> bytes:
        """40 bytes: 8 of padding come first (ADD_MEM_REG, REM_MEM_REG)."""
        return _SINGLE_HEAD.pack() + self.pack()

    @classmethod
    def unpack(cls, payload: bytes, offset: int = 0) -> Self:
        """From the 32 bytes at `offset`."""
        return cls(*_REGION.unpack_from(payload, offset))

    @classmethod
    def unpack_single(cls, payload: bytes) -> Self:
        """From the 40 bytes of a single memory region description."""
        return cls.unpack(payload, _SINGLE_HEAD.size)


def pack_memory_table(regions: tuple[MemoryRegion, ...]) -> bytes:
    """SET_MEM_TABLE: count u32, padding u32, the regions."""
    return _TABLE_HEAD.pack(len(regions)) + b"".join(region.pack() for region in regions)


def unpack_memory_table(payload: bytes) -> tuple[MemoryRegion, ...]:
    """The regions of SET_MEM_TABLE.

    Raises:
        WireError: the count does not fit the size.
    """
    (count,) = _TABLE_HEAD.unpack_from(payload)
    if count > MAX_FDS or len(payload) != TABLE_HEAD_SIZE + count * REGION_SIZE:
        raise WireError(f"a table of {count} regions in {len(payload)} bytes")
    return tuple(MemoryRegion.unpack(payload, TABLE_HEAD_SIZE + i * REGION_SIZE) for i in range(count))


@dataclass(frozen=True, slots=True)
class ConfigSpace:
    """A piece of the virtio device configuration space: `size` bytes from `offset` on."""

    offset: int
    size: int
    flags: int
    data: bytes

    def pack(self) -> bytes:
        """12 bytes of head and the data."""
        return _CONFIG_HEAD.pack(self.offset, self.size, self.flags) + self.data

    @classmethod
    def unpack(cls, payload: bytes) -> Self:
        """From a GET_CONFIG or SET_CONFIG payload.

        Raises:
            WireError: the data is not `size` bytes.
        """
        offset, size, flags = _CONFIG_HEAD.unpack_from(payload)
        data = payload[_CONFIG_HEAD.size :]
        if len(data) != size:
            raise WireError(f"a configuration space of {size} bytes in {len(data)} bytes")
        return cls(offset, size, flags, data)


@dataclass(frozen=True, slots=True)
class Inflight:
    """An inflight description: the shared area that keeps the requests in flight over our death."""

    mmap_size: int
    mmap_offset: int
    num_queues: int
    queue_size: int

    def pack(self) -> bytes:
        """24 bytes."""
        return _INFLIGHT.pack(self.mmap_size, self.mmap_offset, self.num_queues, self.queue_size)

    @classmethod
    def unpack(cls, payload: bytes) -> Self:
        """From 24 bytes."""
        return cls(*_INFLIGHT.unpack(payload))


@dataclass(frozen=True, slots=True)
class LogBase:
    """A log description: where in its descriptor the bitmap of dirty pages is, in bytes."""

    mmap_size: int
    mmap_offset: int

    def pack(self) -> bytes:
        """16 bytes."""
        return _LOG_BASE.pack(self.mmap_size, self.mmap_offset)

    @classmethod
    def unpack(cls, payload: bytes) -> Self:
        """From 16 bytes."""
        return cls(*_LOG_BASE.unpack(payload))


def request_name(number: int) -> str:
    """The specification's name of a request, or its number if it has none."""
    try:
        return Request(number).name
    except ValueError:
        return f"request {number}"
