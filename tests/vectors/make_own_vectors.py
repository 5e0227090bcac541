"""Makes `own-scsi-vectors.json`: SCSI vectors worked out by hand from SPC-4 and SBC-5, in the shared format.

Imports nothing of ours: what is expected here was written down from the standards' tables, not taken from the target.
`python tests/vectors/make_own_vectors.py` writes the file; `tests/unit/conformance/test_own_vectors.py` replays it.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

Json = dict[str, Any]

PLACE = Path(__file__).with_name("own-scsi-vectors.json")
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


def populate_vectors() -> list[Json]:
    """POPULATE TOKEN, right and wrong."""
    short = refused(5, 0x1A00, "ILLEGAL REQUEST, PARAMETER LIST LENGTH ERROR")
    many = refused(5, 0x2608, "ILLEGAL REQUEST, TOO MANY SEGMENT DESCRIPTORS")
    nine = [(lba * 10, 1) for lba in range(9)]
    return [
        vector("pt-1-range", "one range", SBC_PT, populate(1, (16, 8)), take(1, 8)),
        vector(
            "pt-type-any",
            "any becomes persistent",
            SBC_PT,
            populate(1, (0, 4), flags=2, kind=0x0080FFFF),
            take(1, 4, kind=0x00800002),
        ),
        vector(
            "pt-type-ignored",
            "RTV=0: whatever stands in ROD TYPE",
            SBC_PT,
            populate(1, (0, 4), kind=0xDEADBEEF),
            take(1, 4),
        ),
        vector(
            "pt-type-zero",
            "the zero type cannot be asked for",
            SBC_PT,
            populate(1, (0, 4), flags=2, kind=0xFFFF0001, expect=refused(5, 0x2600, LIST, 8)),
        ),
        vector(
            "pt-plen-0",
            "PARAMETER LIST LENGTH 0: no list identifier is left behind",
            SBC_PT,
            populate(5, cut=0),
            unknown(7, 5),
        ),
        vector("pt-plen-15", "shorter than the header", SBC_PT, populate(5, (0, 4), cut=15, expect=short)),
        vector(
            "pt-descr-none",
            "RANGE DESCRIPTOR LENGTH 0",
            SBC_PT,
            populate(5, (0, 4), described_length=0, expect=refused(5, 0x2600, LIST, 14)),
        ),
        vector("pt-header-only", "a header and no descriptor", SBC_PT, populate(5, expect=INVALID)),
        vector(
            "pt-descr-15",
            "less than one descriptor",
            SBC_PT,
            populate(5, (0, 4), described_length=15, expect=refused(5, 0x2600, LIST, 14)),
        ),
        vector("pt-too-many", "nine ranges of eight", SBC_PT, populate(5, *nine, expect=many), unknown(7, 5)),
        vector("pt-many", "eight ranges", SBC_PT, populate(5, *nine[:8]), take(5, 8)),
        vector("pt-overlap", "a block in two ranges", SBC_PT, populate(5, (0, 8), (7, 4), expect=INVALID)),
        vector("pt-same", "one range twice", SBC_PT, populate(5, (9, 1), (9, 1), expect=INVALID)),
        vector("pt-touching", "ranges that touch", SBC_PT, populate(5, (8, 8), (0, 8)), take(5, 16)),
        vector(
            "pt-sum",
            "more blocks than MAXIMUM TOKEN TRANSFER SIZE",
            SBC_PT,
            populate(5, (0, 8192), (8192, 1), expect=INVALID),
        ),
        vector("pt-sum-one", "one range too long", SBC_PT, populate(5, (0, 8193), expect=INVALID)),
        vector(
            "pt-max",
            "exactly MAXIMUM TOKEN TRANSFER SIZE",
            SBC_PT,
            populate(5, (0, 4096), (8192, 4096)),
            take(5, 8192),
        ),
        vector("pt-last-block", "the last block", SBC_PT, populate(5, (16383, 1)), take(5, 1)),
        vector(
            "pt-wrap",
            "LBA plus count past 2 to the 64",
            SBC_PT,
            populate(5, (0xFFFFFFFFFFFFFFFF, 2), expect=refused(5, 0x2100, OUT_OF_RANGE, 16)),
        ),
        vector("pt-nothing", "a range of no blocks", SBC_PT, populate(5, (0, 0)), take(5, 0)),
        vector(
            "pt-ito-exact",
            "the longest INACTIVITY TIMEOUT",
            SBC_PT,
            populate(5, (0, 1), timeout=600),
            take(5, 1),
        ),
        vector("pt-4096", "blocks of 4096 bytes", SBC_PT, populate(5, (3, 2), lun=2), take(5, 2, lun=2)),
    ]


def identifier_vectors() -> list[Json]:
    """List identifiers and the commands that name them."""
    spc = "SPC-4 5.17.4.2, 6.24, 6.26"
    abort = {"do": "COPY OPERATION ABORT", "lun": 0, "nexus": "I0", "cdb": "831c00000063" + "00" * 10}
    cut = {
        **monitor(7, 7, 32),
        **GOOD,
        "data_in_len": 32,
        "data_in": token_data(4, 512)[:32].hex(),
        "data_in_free": [COUNTER],
    }
    gone = {**monitor(7, 7, 0), **GOOD, "data_in_len": 0}
    attention = refused(6, 0x2907, "UNIT ATTENTION, I_T NEXUS LOSS OCCURRED")
    return [
        vector(
            "lid-reuse",
            "a finished copy's list identifier is free",
            spc,
            populate(7, (0, 4)),
            populate(7, (0, 6)),
            take(7, 6),
        ),
        vector(
            "lid-unknown",
            "no such list identifier",
            spc,
            unknown(7, 99),
            unknown(5, 99),
            abort | refused(5, 0x2400, CDB, 2, cdb=True),
        ),
        vector("lid-zero", "0 is a list identifier like any other", spc, populate(0, (0, 4)), take(0, 4)),
        vector(
            "lid-failed",
            "a refused command leaves none behind",
            spc,
            populate(7, (0, 8193), expect=INVALID),
            unknown(7, 7),
        ),
        vector(
            "rrti-alloc",
            "ALLOCATION LENGTH cuts, changes no field, and 0 gives the result up",
            spc,
            populate(7, (0, 4)),
            cut,
            take(7, 4),
            gone,
            unknown(7, 7),
        ),
        vector(
            "nexus-loss",
            "results go with the nexus, tokens stay",
            spc,
            populate(7, (16, 4)),
            take(7, 4),
            event("nexus_loss", nexus="I0"),
            unknown(7, 7),
            write(8, (300, 4)),
            look(1, 300, blocks(0, 16, 4), "LU0 blocks 16-19"),
        ),
        vector(
            "nexus-loss-told",
            "the nexus is told of its loss first",
            "SAM-5 5.14, 6.3.4",
            populate(7, (16, 4)),
            event("I_T nexus loss", nexus="I0"),
            {**monitor(7, 7), **attention},
            unknown(7, 7),
        ),
        vector(
            "nexus-loss-running",
            "a copy in the background goes on without its nexus",
            "SPC-4 5.17.4",
            populate(1, (16, 4)),
            take(1, 4),
            write(7, (300, 4), flags=1),
            event("nexus loss", nexus="I0"),
            event("background"),
            look(1, 300, blocks(0, 16, 4), "LU0 blocks 16-19"),
            unknown(7, 7, lun=1),
        ),
        vector(
            "lu-reset",
            "a reset drops results",
            spc,
            populate(7, (16, 4)),
            event("lu_reset", lun=0),
            unknown(7, 7),
            basis="inferred",
        ),
        vector(
            "lu-reset-running",
            "a reset ends a copy in the background",
            spc,
            populate(1, (16, 4)),
            take(1, 4),
            write(7, (300, 4), flags=1),
            event("lu reset", lun=1),
            unknown(7, 7, lun=1),
            untouched(1, 300, 4),
        ),
        vector(
            "report-all",
            "management tokens of every token",
            "SPC-4 6.43",
            report_all(),
            populate(1, (0, 4)),
            populate(2, (0, 16)),
            report_all((2048, 0), (8192, 1)),
        ),
    ]


def write_vectors() -> list[Json]:
    """WRITE USING TOKEN that works."""
    got = (populate(1, (16, 8)), take(1, 8))
    return [
        vector(
            "wut-pit",
            "the source is overwritten between the commands: the old data is copied",
            "SPC-4 5.17.6",
            *got,
            plain_write(0, 16, b"new " * 1024),
            write(2, (300, 8)),
            written(2, 8),
            look(1, 300, blocks(0, 16, 8), "LU0 blocks 16-23 as they were"),
        ),
        vector(
            "wut-overlap-self",
            "the destination overlaps the token's own source",
            SBC_WUT,
            *got,
            write(2, (20, 8), lun=0),
            written(2, 8, lun=0),
            look(0, 16, blocks(0, 16, 4) + blocks(0, 16, 8), "blocks 16-19, then 16-23 as they were"),
            write(3, (300, 8)),
            look(1, 300, blocks(0, 16, 8), "the token still stands for the old data"),
        ),
        vector(
            "wut-zero",
            "the block device zero token has no length",
            "SBC-5 4.28.3",
            write(2, (300, 3), (400, 2), token=ZERO, offset=1 << 40),
            written(2, 5),
            look(1, 299, block(1, 299) + bytes(3 * 512) + block(1, 303), "three blocks of zeros"),
            look(1, 400, bytes(2 * 512), "zeros"),
        ),
        vector(
            "wut-zero-4096",
            "zeros in blocks of the destination",
            "SBC-5 4.28.3",
            write(2, (5, 2), lun=2, token=ZERO),
            written(2, 2, lun=2),
            look(2, 5, bytes(8192), "zeros"),
        ),
        vector(
            "wut-zero-len0",
            "early drafts gave the zero token a ROD TOKEN LENGTH of 0",
            "SBC-5 4.28.3",
            write(2, (300, 1), token=bytes.fromhex("ffff0001") + bytes(508)),
            look(1, 300, bytes(512), "zeros"),
            basis="inferred",
        ),
        vector(
            "wut-nothing",
            "a range of no blocks writes nothing",
            SBC_WUT,
            *got,
            write(2, (300, 0)),
            written(2, 0),
            untouched(1, 300),
        ),
        vector(
            "wut-delete-idiom",
            "DEL_TKN with a range of no blocks",
            SBC_WUT,
            *got,
            write(2, (0, 0), flags=2),
            write(
                3,
                (300, 1),
                expect=refused(5, 0x2309, "ILLEGAL REQUEST, INVALID TOKEN OPERATION, TOKEN DELETED"),
            ),
        ),
        vector(
            "wut-timer-restarts",
            "each use starts the inactivity timer anew",
            "SPC-4 5.17.6.7",
            populate(1, (16, 4), timeout=30),
            take(1, 4),
            event("advance", seconds=20),
            write(2, (300, 4)),
            event("advance", seconds=20),
            write(3, (300, 4)),
            event("advance", seconds=31),
            write(
                4,
                (300, 4),
                expect=refused(5, 0x2307, "ILLEGAL REQUEST, INVALID TOKEN OPERATION, TOKEN EXPIRED"),
            ),
        ),
        vector(
            "wut-background",
            "IMMED=1: done later, then told",
            SBC_WUT,
            *got,
            write(2, (300, 8), flags=1),
            untouched(1, 300, 8),
            event("background"),
            written(2, 8),
            look(1, 300, blocks(0, 16, 8), "LU0 blocks 16-23"),
        ),
        vector(
            "wut-touching",
            "destination ranges that touch, in any order",
            SBC_WUT,
            *got,
            write(2, (304, 4), (300, 4)),
            look(1, 300, blocks(0, 20, 4) + blocks(0, 16, 4), "second half first"),
        ),
    ]


def short_vectors() -> list[Json]:
    """WRITE USING TOKEN that asks for more than there is."""
    got = (populate(1, (16, 4)), take(1, 4))
    text = "COPY ABORTED, COPY TARGET DEVICE DATA UNDERRUN"
    partial = refused(10, 0x0D04, text, information=4)
    one = refused(10, 0x0D04, text, information=1)
    return [
        vector(
            "wut-beyond",
            "what there is is written, then COPY ABORTED with the count",
            "SBC-5 4.28.2",
            *got,
            write(2, (300, 8), expect=partial),
            cut_short(2, 4),
            look(1, 300, blocks(0, 16, 4), "LU0 blocks 16-19"),
            untouched(1, 304, 4),
        ),
        vector(
            "wut-beyond-ranges",
            "the count runs through the ranges in their order",
            "SBC-5 4.28.2",
            *got,
            write(2, (400, 2), (300, 8), expect=partial),
            look(1, 400, blocks(0, 16, 2), "LU0 blocks 16-17"),
            look(1, 300, blocks(0, 18, 2), "LU0 blocks 18-19"),
            untouched(1, 302, 6),
        ),
        vector(
            "wut-beyond-immed",
            "the same in the background: told by RECEIVE ROD TOKEN INFORMATION only",
            "SBC-5 4.28.2",
            *got,
            write(2, (300, 8), flags=1),
            event("background"),
            cut_short(2, 4),
            look(1, 300, blocks(0, 16, 4), "LU0 blocks 16-19"),
            untouched(1, 304, 4),
        ),
        vector(
            "wut-beyond-4096",
            "the last block is filled up with zeros and counts as a whole one",
            "SBC-5 5.59",
            *got,
            write(2, (5, 2), lun=2, expect=one),
            cut_short(2, 1, lun=2),
            look(2, 5, blocks(0, 16, 4) + bytes(2048), "LU0 blocks 16-19, then zeros"),
            untouched(2, 6),
        ),
        vector(
            "wut-offset-end",
            "OFFSET INTO ROD at the end of the ROD",
            SBC_WUT,
            *got,
            write(2, (300, 1), offset=4, expect=refused(5, 0x2600, LIST, 8)),
            untouched(1, 300),
        ),
        vector(
            "wut-offset-far",
            "OFFSET INTO ROD that does not fit 64 bits of bytes",
            SBC_WUT,
            *got,
            write(2, (300, 1), offset=0xFFFFFFFFFFFFFFFF, expect=refused(5, 0x2600, LIST, 8)),
            untouched(1, 300),
        ),
        vector(
            "wut-offset-last",
            "the last block of the ROD",
            SBC_WUT,
            *got,
            write(2, (300, 1), offset=3),
            look(1, 300, block(0, 19), "LU0 block 19"),
        ),
    ]


def refusal_vectors() -> list[Json]:
    """WRITE USING TOKEN that is refused: nothing is written."""
    got = (populate(1, (16, 4)), take(1, 4))

    def bad(name: str, title: str, code: int, text: str, **options: Any) -> Json:
        expect = refused(5, code, f"ILLEGAL REQUEST, INVALID TOKEN OPERATION, {text}")
        return vector(
            name, title, SBC_WUT, *got, write(2, (300, 4), expect=expect, **options), untouched(1, 300, 4)
        )

    nine = [(lba * 10, 1) for lba in range(9)]
    return [
        bad(
            "wut-token-type",
            "a type that no token made here has",
            0x2301,
            "UNSUPPORTED TOKEN TYPE",
            change=(0, "00010000"),
        ),
        bad(
            "wut-token-well-known",
            "a well-known token that is not known",
            0x2301,
            "UNSUPPORTED TOKEN TYPE",
            token=bytes.fromhex("ffff0002000001f8") + bytes(504),
        ),
        bad(
            "wut-token-forged",
            "right identifier, wrong secret",
            0x2304,
            "TOKEN UNKNOWN",
            change=(480, "00" * 32),
        ),
        bad(
            "wut-token-forged-1",
            "one wrong byte in the secret",
            0x2304,
            "TOKEN UNKNOWN",
            change=(256, "5a5a5a5a"),
        ),
        vector(
            "wut-overlap",
            "a block in two ranges",
            SBC_WUT,
            *got,
            write(2, (300, 2), (301, 2), expect=INVALID),
            untouched(1, 300, 4),
        ),
        vector(
            "wut-plen-short",
            "shorter than the header",
            SBC_WUT,
            *got,
            write(
                2,
                (300, 4),
                cut=535,
                expect=refused(5, 0x1A00, "ILLEGAL REQUEST, PARAMETER LIST LENGTH ERROR"),
            ),
            untouched(1, 300, 4),
            basis="inferred",
        ),
        vector(
            "wut-sum",
            "more blocks than MAXIMUM TOKEN TRANSFER SIZE",
            SBC_WUT,
            write(2, (0, 8192), (9000, 1), token=ZERO, expect=INVALID),
            untouched(1, 0, 2),
        ),
        vector(
            "wut-max",
            "exactly MAXIMUM TOKEN TRANSFER SIZE",
            SBC_WUT,
            write(2, (0, 8192), token=ZERO),
            written(2, 8192),
        ),
        vector(
            "wut-checks-order",
            "too many ranges is told before a token that is no good",
            SBC_WUT,
            write(
                2,
                *nine,
                token=bytes(512),
                expect=refused(5, 0x2608, "ILLEGAL REQUEST, TOO MANY SEGMENT DESCRIPTORS"),
            ),
            basis="inferred",
        ),
    ]


def other_vectors() -> list[Json]:
    """EXTENDED COPY, and what well-known initiators send."""
    done = {**status_lid1(1), **GOOD, "data_in_len": 12, "data_in": "000000080100010000001000"}
    unreachable = refused(10, 0x0804, "COPY ABORTED, UNREACHABLE COPY TARGET")
    late = "8310000000000000010100000020" + "0000"
    shifted = "001e" + "00" * 12 + "0010" + ranged((16, 4))[1:].hex() + "00"
    return [
        vector(
            "xcopy1",
            "one segment to another logical unit",
            "SPC-4 6.4",
            extended_copy(0, 1, (16, 300, 8)),
            look(1, 300, blocks(0, 16, 8), "LU0 blocks 16-23"),
            done,
            status_lid1(1) | refused(5, 0x2400, CDB, 2, cdb=True),
        ),
        vector(
            "xcopy1-unreachable",
            "a logical unit that is not there",
            "SPC-4 6.4",
            extended_copy(0, 7, (16, 300, 8)) | unreachable,
        ),
        vector(
            "iscsi-test-cu-xcopy",
            "list identifier 1, results held",
            "libiscsi 1.19",
            extended_copy(0, 0, (0, 64, 32)),
            look(0, 64, blocks(0, 0, 32), "blocks 0-31"),
            basis="captured",
        ),
        vector(
            "sg-xcopy",
            "sg_xcopy bs=512 count=64 skip=4 seek=8",
            "sg3_utils 1.46",
            {"do": "INQUIRY", "lun": 0, "cdb": "120000002400"},
            {"do": "READ CAPACITY(10)", "lun": 0, "cdb": "25000000000000000000"},
            {"do": "RECEIVE COPY OPERATING PARAMETERS", "lun": 0, "cdb": "84030000000000000000000000ff0000"},
            {"do": "INQUIRY VPD 83h", "lun": 1, "cdb": "12018300ff00"},
            extended_copy(0, 1, (4, 8, 64), usage=2),
            look(1, 8, blocks(0, 4, 64), "LU0 blocks 4-67"),
            basis="captured",
        ),
        vector(
            "ddpt-097-bug",
            "the range descriptor one byte early: LBA and count are 256 times as large",
            "ddptctl 0.97",
            {"do": "POPULATE TOKEN", "lun": 0, "nexus": "I0", "cdb": late, "data_out": shifted} | GOOD,
            take(0x101, 1024),
            basis="captured",
        ),
        vector(
            "ddpt-fixed-pt",
            "the same command from a mended ddptctl",
            "ddptctl 0.97 with three lines changed",
            populate(0x101, (16, 4)),
            take(0x101, 4),
            basis="captured",
        ),
    ]


def document() -> Json:
    """The whole file."""
    return {
        "about": "SCSI token copy vectors worked out by hand from the standards, in the format of "
        "scsi-odx-vectors.json; computed by this project, so a second opinion is still wanted.",
        "vectors": [
            *populate_vectors(),
            *identifier_vectors(),
            *write_vectors(),
            *short_vectors(),
            *refusal_vectors(),
            *other_vectors(),
        ],
    }


if __name__ == "__main__":
    PLACE.write_text(json.dumps(document(), indent=1) + "\n", encoding="utf-8")
