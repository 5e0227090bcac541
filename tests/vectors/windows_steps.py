"""Bytes that Windows vectors are made of, packed by hand: nothing of the package is used here."""

from __future__ import annotations

import struct
from typing import Any

Json = dict[str, Any]
GIB, MIB, KIB = 1 << 30, 1 << 20, 1 << 10
READ, WRITE = 0x80000003, 0x00000004
TOKEN = bytes.fromhex("00800000000001f8") + bytes(n % 251 for n in range(504))
STATUS = {
    "SUCCESS": 0x00000000,
    "DEVICE_BUSY": 0x80000011,
    "NO_DATA_DETECTED": 0x80000022,
    "CLEANER_CARTRIDGE_INSTALLED": 0x80000027,
    "UNSUCCESSFUL": 0xC0000001,
    "INVALID_PARAMETER": 0xC000000D,
    "NO_SUCH_DEVICE": 0xC000000E,
    "INVALID_DEVICE_REQUEST": 0xC0000010,
    "NO_MEDIA_IN_DEVICE": 0xC0000013,
    "UNRECOGNIZED_MEDIA": 0xC0000014,
    "NONEXISTENT_SECTOR": 0xC0000015,
    "ACCESS_DENIED": 0xC0000022,
    "BUFFER_TOO_SMALL": 0xC0000023,
    "DATA_OVERRUN": 0xC000003C,
    "INSUFFICIENT_RESOURCES": 0xC000009A,
    "DEVICE_DATA_ERROR": 0xC000009C,
    "DEVICE_NOT_READY": 0xC00000A3,
    "IO_TIMEOUT": 0xC00000B5,
    "NOT_SUPPORTED": 0xC00000BB,
    "INVALID_LEVEL": 0xC0000148,
    "INVALID_BLOCK_LENGTH": 0xC0000173,
    "IO_DEVICE_ERROR": 0xC0000185,
    "RETRY": 0xC000022D,
    "COPY_PROTECTION_FAILURE": 0xC0000305,
    "CSS_AUTHENTICATION_FAILURE": 0xC0000306,
    "CSS_RESETS_EXHAUSTED": 0xC000030B,
    "DISK_RESOURCES_EXHAUSTED": 0xC0000461,
    "DEVICE_FEATURE_NOT_SUPPORTED": 0xC0000463,
    "DEVICE_UNREACHABLE": 0xC0000464,
    "INVALID_TOKEN": 0xC0000465,
    "TOO_MANY_SEGMENT_DESCRIPTORS": 0xC0000473,
    "INVALID_OFFSET_ALIGNMENT": 0xC0000474,
    "INVALID_FIELD_IN_PARAMETER_LIST": 0xC0000475,
    "OPERATION_IN_PROGRESS": 0xC0000476,
    "INVALID_INITIATOR_TARGET_PATH": 0xC0000477,
    "DEVICE_HARDWARE_ERROR": 0xC0000483,
}


def expected(name: str, **others: object) -> Json:
    """What a request ends with."""
    return {"ntstatus": f"STATUS_{name}", "ntstatus_value": f"0x{STATUS[name]:08X}", **others}


def dsm(
    action: int,
    parameters: bytes,
    ranges: list[tuple[int, int]],
    *,
    places: tuple[int, int] | None = None,
    lengths: tuple[int, int] | None = None,
    size: int = 28,
    flags: int = 0,
) -> bytes:
    """An input buffer; `places` and `lengths` of parameter block and ranges replace the usual ones."""
    block_at, ranges_at = places or ((28, 48) if action == READ else (32, 560))
    packed = b"".join(struct.pack("<qQ", offset, length) for offset, length in ranges)
    block_length, ranges_length = lengths or (len(parameters), len(packed))
    head = struct.pack("<7I", size, action, flags, block_at, block_length, ranges_at, ranges_length)
    data = bytearray(max(28, block_at + len(parameters), ranges_at + len(packed)))
    data[:28] = head
    data[block_at : block_at + len(parameters)] = parameters
    data[ranges_at : ranges_at + len(packed)] = packed
    return bytes(data)


def read_parameters(ttl: int = 0) -> bytes:
    """DEVICE_DSM_OFFLOAD_READ_PARAMETERS."""
    return struct.pack("<4I", 0, ttl, 0, 0)


def write_parameters(offset: int = 0, token: bytes = TOKEN) -> bytes:
    """DEVICE_DSM_OFFLOAD_WRITE_PARAMETERS."""
    return struct.pack("<IIQ", 0, 0, offset) + token


def read_input(ranges: list[tuple[int, int]], ttl: int = 0) -> bytes:
    """Offload read."""
    return dsm(READ, read_parameters(ttl), ranges)


def write_input(ranges: list[tuple[int, int]], offset: int = 0, token: bytes = TOKEN) -> bytes:
    """Offload write."""
    return dsm(WRITE, write_parameters(offset, token), ranges)


def read_output(blocks: int, *, size: int = 512, truncated: bool = False, token: bytes = TOKEN) -> bytes:
    """STORAGE_OFFLOAD_READ_OUTPUT without its padding."""
    return struct.pack("<IIQI", truncated, 0, blocks * size, 512) + token


def write_output(blocks: int, *, size: int = 512, flags: int = 0) -> bytes:
    """STORAGE_OFFLOAD_WRITE_OUTPUT."""
    return struct.pack("<IIQ", flags, 0, blocks * size)


def fixed(
    key: int, asc: int, ascq: int, information: int = 0, *, valid: bool | None = None, bits: int = 0
) -> bytes:
    """Fixed-format sense data; VALID follows from INFORMATION unless told."""
    head = 0xF0 if (information if valid is None else valid) else 0x70
    return struct.pack(">BBBIB4xBB4x", head, 0, key | bits, information, 10, asc, ascq)


def step(
    cdb: bytes, data_out: bytes = b"", data_in: bytes = b"", sense: bytes = b"", **others: object
) -> Json:
    """An exchange; CHECK CONDITION if there is sense data."""
    return {
        "cdb_hex": cdb.hex(),
        "param_hex": data_out.hex(),
        "response_hex": data_in.hex(),
        "scsi_status": 2 if sense else 0,
        "sense_hex": sense.hex(),
        **others,
    }


def descriptors(ranges: list[tuple[int, int]]) -> bytes:
    """Range descriptors of LBA and blocks."""
    return b"".join(struct.pack(">QI4x", lba, blocks) for lba, blocks in ranges)


def populate(identifier: int, ranges: list[tuple[int, int]], ttl: int = 0, **others: Any) -> Json:
    """POPULATE TOKEN."""
    body = descriptors(ranges)
    data = struct.pack(">HBBI6xH", 14 + len(body), 0, 0, ttl, len(body)) + body
    return step(struct.pack(">BB4xII2x", 0x83, 0x10, identifier, len(data)), data, **others)


def write(
    identifier: int, ranges: list[tuple[int, int]], offset: int = 0, token: bytes = TOKEN, **others: Any
) -> Json:
    """WRITE USING TOKEN."""
    body = descriptors(ranges)
    data = (
        struct.pack(">HB5xQ", 534 + len(body), 0, offset)
        + token
        + bytes(6)
        + struct.pack(">H", len(body))
        + body
    )
    return step(struct.pack(">BB4xII2x", 0x83, 0x11, identifier, len(data)), data, **others)


def receive(identifier: int, data_in: bytes = b"", allocation: int = 805, **others: Any) -> Json:
    """RECEIVE ROD TOKEN INFORMATION."""
    return step(struct.pack(">BBI4xI2x", 0x84, 0x07, identifier, allocation), data_in=data_in, **others)


def information(
    action: int,
    status: int,
    count: int,
    *,
    sense: bytes = b"",
    completion: int | None = None,
    token: bytes = b"",
    field: int | None = None,
    length: int | None = None,
    units: int = 0xF1,
) -> bytes:
    """RECEIVE ROD TOKEN INFORMATION data; `field` and `length` replace the sense and token descriptor lengths."""
    ended = (2 if sense else 0) if completion is None else completion
    room = len(sense) if field is None else field
    head = struct.pack(">BBHIBBBBQ8x", action, status, 0, 0, ended, room, len(sense), units, count)
    described = bytes(2) + token if token else b""
    tail = struct.pack(">I", len(described) if length is None else length) + described
    body = head + sense.ljust(room, b"\0") + tail
    return struct.pack(">I", len(body)) + body


def limits(ranges: int = 64, most: int = 120, usual: int = 30, size: int = 0, optimal: int = 0) -> Json:
    """The `vpd8f` object."""
    return {
        "maximum_range_descriptors": ranges,
        "maximum_inactivity_timer": most,
        "default_inactivity_timer": usual,
        "maximum_token_transfer_size": size,
        "optimal_transfer_count": optimal,
    }


def vector(
    name: str, data: bytes, steps: list[Json], wanted: Json, output: bytes = b"", **others: Any
) -> Json:
    """A request; the action in `data` decides the room for its answer."""
    action = struct.unpack_from("<I", data, 4)[0] if len(data) >= 8 else READ
    device = {"sector_size": 512, "disk_bytes": 1 << 40, "vpd8f": limits(), "adapter_max_transfer": 2 * MIB}
    device |= others.pop("device", {})
    return {
        "name": name,
        "ioctl_code": "0x002D9404",
        "ioctl_in_hex": data.hex(),
        "output_buffer_length": 16 if action == WRITE else 536,
        "expected": wanted,
        "steps": steps,
        "ioctl_out_hex": output.hex(),
        "device": device,
        "computed": True,
        **others,
    }


def start(name: str, steps: list[Json], wanted: Json, **device: Any) -> Json:
    """Device start."""
    return {
        "name": name,
        "ioctl_code": "",
        "steps": steps,
        "expected": wanted,
        "device": device,
        "computed": True,
    }


def inquiry(code: int, data: bytes = b"", **others: Any) -> Json:
    """INQUIRY for a page."""
    return step(bytes((0x12, 1, code, 0, 255, 0)), data_in=data, **others)
