"""Steps of SCSI vectors, worked out by hand from the tables of SPC-4 and SBC-5.

Imports nothing of ours: what is expected here was written down from the standards, not taken from the target.
"""

from __future__ import annotations

import hashlib
from typing import Any

Json = dict[str, Any]

UNITS = {0: (16384, 512), 1: (16384, 512), 2: (2048, 4096)}
COUNTER = {"offset": 6, "length": 2, "what": "OPERATION COUNTER"}
TOKEN_FREE = [
    COUNTER,
    {"offset": 46, "length": 8, "what": "COPY MANAGER ROD TOKEN IDENTIFIER"},
    {"offset": 54, "length": 32, "what": "CREATOR LOGICAL UNIT DESCRIPTOR"},
    {"offset": 138, "length": 28, "what": "device type specific data after the block length"},
    {"offset": 166, "length": 128, "what": "TARGET DEVICE DESCRIPTOR"},
    {"offset": 294, "length": 256, "what": "EXTENDED ROD TOKEN DATA"},
]
ZERO = bytes.fromhex("ffff0001000001f8") + bytes(504)


def number(value: int, width: int) -> bytes:
    """A big-endian field."""
    return value.to_bytes(width, "big")


def block(lun: int, lba: int) -> bytes:
    """Content of a block at the start."""
    return f"L{lun}B{lba:08d}".encode().ljust(UNITS[lun][1], b".")


def blocks(lun: int, first: int, count: int) -> bytes:
    """Content of some blocks at the start."""
    return b"".join(block(lun, lba) for lba in range(first, first + count))


def ranged(*items: tuple[int, int]) -> bytes:
    """Range descriptors."""
    return b"".join(number(lba, 8) + number(count, 4) + bytes(4) for lba, count in items)


def refused(key: int, code: int, text: str, at: int | None = None, *, cdb: bool = False, **more: Any) -> Json:
    """What a refusal adds to a step. `code` is ASC and ASCQ; `at` the byte of an optional field pointer."""
    said = {"key": key, "asc": code >> 8, "ascq": code & 0xFF, "text": text, **more}
    if at is not None:
        said["sks_optional"] = {"in_cdb": cdb, "byte": at}
    return {"status": "CHECK CONDITION", "sense": said}


LIST = "ILLEGAL REQUEST, INVALID FIELD IN PARAMETER LIST"
CDB = "ILLEGAL REQUEST, INVALID FIELD IN CDB"
GOOD: Json = {"status": "GOOD"}


def populate(lid: int, *items: tuple[int, int], lun: int = 0, nexus: str = "I0", **options: Any) -> Json:
    """POPULATE TOKEN (SBC-5 5.12). Options: flags, timeout, kind, list_length, data_length, cut, expect."""
    described = options.get("descriptors", ranged(*items))
    described_length = options.get("described_length", len(described))
    data = (
        number(options.get("data_length", 14 + len(described)), 2)
        + bytes((options.get("flags", 0), 0))
        + number(options.get("timeout", 0), 4)
        + number(options.get("kind", 0), 4)
        + bytes(2)
        + number(described_length, 2)
        + described
    )[: options.get("cut", 65535)]
    cdb = bytes((0x83, 0x10)) + bytes(4) + number(lid, 4) + number(len(data), 4) + bytes(2)
    step = {"do": "POPULATE TOKEN", "lun": lun, "nexus": nexus, "cdb": cdb.hex()}
    if data:
        step["data_out"] = data.hex()
    return {**step, **options.get("expect", GOOD)}


def write(lid: int, *items: tuple[int, int], lun: int = 1, nexus: str = "I0", **options: Any) -> Json:
    """WRITE USING TOKEN (SBC-5 5.59). Options: flags, offset, token, change, cut, expect."""
    described = ranged(*items)
    token = options.get("token", bytes(512))
    data = (
        number(534 + len(described), 2)
        + bytes((options.get("flags", 0),))
        + bytes(5)
        + number(options.get("offset", 0), 8)
        + token
        + bytes(6)
        + number(len(described), 2)
        + described
    )[: options.get("cut", 65535)]
    cdb = bytes((0x83, 0x11)) + bytes(4) + number(lid, 4) + number(len(data), 4) + bytes(2)
    step: Json = {
        "do": "WRITE USING TOKEN",
        "lun": lun,
        "nexus": nexus,
        "cdb": cdb.hex(),
        "data_out": data.hex(),
    }
    if "token" not in options:
        step["data_out_token"] = {"name": options.get("name", "T"), "offset": 16, "length": 512}
        if "change" in options:
            at, new = options["change"]
            step["data_out_token"]["then_set"] = {"offset_in_token": at, "hex": new}
    return {**step, **options.get("expect", GOOD)}


def monitor(action: int, lid: int, allocation: int = 1024, lun: int = 0, nexus: str = "I0") -> Json:
    """A command 84h with a list identifier."""
    cdb = bytes((0x84, action)) + number(lid, 4) + bytes(4) + number(allocation, 4) + bytes(2)
    names = {5: "RECEIVE COPY STATUS(LID4)", 7: "RECEIVE ROD TOKEN INFORMATION"}
    return {"do": names[action], "lun": lun, "nexus": nexus, "cdb": cdb.hex()}


def token_data(count: int, size: int, kind: int = 0x00800000) -> bytes:
    """RECEIVE ROD TOKEN INFORMATION data after a POPULATE TOKEN of `count` blocks."""
    head = bytes.fromhex("0000022210010000fffffffe000000f1") + number(count, 8) + bytes(8)
    token = number(kind, 4) + bytes.fromhex("000001f8") + bytes(40) + number(count * size, 16) + bytes(32)
    return head + number(514, 4) + bytes(2) + (token + number(size, 4)).ljust(512, b"\0")


def take(lid: int, count: int, lun: int = 0, nexus: str = "I0", name: str = "T", **options: Any) -> Json:
    """RECEIVE ROD TOKEN INFORMATION that brings a token, saved."""
    data = token_data(count, UNITS[lun][1], **options)
    return {
        **monitor(7, lid, lun=lun, nexus=nexus),
        **GOOD,
        "data_in_len": 550,
        "data_in": data.hex(),
        "data_in_free": TOKEN_FREE,
        "save": {"name": name, "offset": 38, "length": 512},
    }


def written(lid: int, count: int, lun: int = 1, nexus: str = "I0") -> Json:
    """RECEIVE ROD TOKEN INFORMATION after a WRITE USING TOKEN of `count` blocks."""
    data = bytes.fromhex("0000002011010000fffffffe000000f1") + number(count, 8) + bytes(12)
    return {
        **monitor(7, lid, lun=lun, nexus=nexus),
        **GOOD,
        "data_in_len": 36,
        "data_in": data.hex(),
        "data_in_free": [COUNTER],
    }


def cut_short(lid: int, count: int, lun: int = 1) -> Json:
    """RECEIVE ROD TOKEN INFORMATION after a copy that ran out of data: 03h and the sense data inside."""
    said = bytes.fromhex("f0000a") + number(count, 4) + bytes.fromhex("0a000000000d0400000000")
    data = bytes.fromhex("0000003411030000fffffffe021412f1") + number(count, 8) + bytes(8) + said + bytes(6)
    return {
        **monitor(7, lid, lun=lun),
        **GOOD,
        "data_in_len": 56,
        "data_in": data.hex(),
        "data_in_free": [COUNTER],
    }


def unknown(action: int, lid: int, nexus: str = "I0", lun: int = 0) -> Json:
    """A list identifier that nobody knows."""
    return {**monitor(action, lid, nexus=nexus, lun=lun), **refused(5, 0x2400, CDB, 2, cdb=True)}


def look(lun: int, lba: int, data: bytes, meaning: str) -> Json:
    """What the disk must hold."""
    count = len(data) // UNITS[lun][1]
    digest = hashlib.sha256(data).hexdigest()
    return {
        "check_data": {"lun": lun, "lba": lba, "blocks": count, "sha256": digest, "first16": data[:16].hex()}
        | {"meaning": meaning}
    }


def untouched(lun: int, lba: int, count: int = 1) -> Json:
    """What the disk held at the start."""
    return look(lun, lba, blocks(lun, lba, count), "untouched")


def plain_write(lun: int, lba: int, data: bytes) -> Json:
    """WRITE(10)."""
    cdb = bytes((0x2A, 0)) + number(lba, 4) + b"\0" + number(len(data) // UNITS[lun][1], 2) + b"\0"
    return {
        "do": "WRITE(10)",
        "lun": lun,
        "nexus": "I0",
        "cdb": cdb.hex(),
        "data_out": data.hex(),
        **GOOD,
    }


def event(name: str, **more: Any) -> Json:
    """Something that happens to the target."""
    return {"event": name, **more}


def unit(number_: int) -> bytes:
    """An E4h CSCD descriptor with the NAA designator of a logical unit."""
    naa = bytes.fromhex(f"6{number_:031x}")
    size = UNITS.get(number_, (0, 512))[1]
    return bytes.fromhex("e400000001030010") + naa + bytes(4) + b"\0" + number(size, 3)


def extended_copy(
    source: int, target: int, place: tuple[int, int, int], lid: int = 1, usage: int = 0
) -> Json:
    """EXTENDED COPY(LID1) of one block to block segment: source LBA, destination LBA, blocks."""
    start, end, count = place
    segment = bytes.fromhex("0200001800000001") + bytes(2) + number(count, 2) + number(start, 8)
    cscds = unit(source) + unit(target)
    body = cscds + segment + number(end, 8)
    head = bytes((lid, usage << 3)) + number(len(cscds), 2) + bytes(4) + number(28, 4) + bytes(4)
    data = head + body
    cdb = bytes((0x83, 0)) + bytes(8) + number(len(data), 4) + bytes(2)
    return {
        "do": "EXTENDED COPY(LID1)",
        "lun": source if source in UNITS else 0,
        "nexus": "I0",
        "cdb": cdb.hex(),
        "data_out": data.hex(),
        **GOOD,
    }


def status_lid1(lid: int) -> Json:
    """RECEIVE COPY STATUS(LID1)."""
    cdb = bytes((0x84, 0, lid)) + bytes(7) + number(1024, 4) + bytes(2)
    return {"do": "RECEIVE COPY STATUS(LID1)", "lun": 0, "nexus": "I0", "cdb": cdb.hex()}


def report_all(*lengths: tuple[int, int]) -> Json:
    """REPORT ALL ROD TOKENS; (bytes represented, place of its management token) of each."""
    cdb = bytes((0x84, 8)) + bytes(8) + number(3080, 4) + bytes(2)
    listed = b"".join(
        bytes.fromhex("00800000000001f8") + bytes(40) + number(length, 16) + bytes(32)
        for length, _ in lengths
    )
    free = [
        {"offset": 8 + 96 * place + 8, "length": 40, "what": "identifier and CREATOR LOGICAL UNIT DESCRIPTOR"}
        for _, place in lengths
    ]
    return {
        "do": "REPORT ALL ROD TOKENS",
        "lun": 0,
        "nexus": "I0",
        "cdb": cdb.hex(),
        **GOOD,
        "data_in_len": 8 + len(listed),
        "data_in": (number(len(listed) + 4, 4) + bytes(4) + listed).hex(),
        "data_in_free": free,
    }


def vector(name: str, title: str, cite: str, *steps: Json, basis: str = "standard", note: str = "") -> Json:
    """One vector."""
    head: Json = {"id": name, "title": title, "basis": basis, "cite": cite}
    return {**head, **({"note": note} if note else {}), "steps": list(steps)}


SBC_PT, SBC_WUT = "SBC-5 5.12", "SBC-5 5.59"
INVALID = refused(5, 0x2600, LIST)
OUT_OF_RANGE = "ILLEGAL REQUEST, LOGICAL BLOCK ADDRESS OUT OF RANGE"
