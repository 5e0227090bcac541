"""What odx.exe is told to do in the Wine guest, and what has to come of it: data and statuses.

Imports nothing of ours. `wine.py` runs it and judges. Statuses of refused input are those of Windows' class driver
(microsoft/Windows-driver-samples, classpnp: class.c, utils.c), checks in its order.
"""

from __future__ import annotations

import hashlib
from array import array
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

DISK = r"\\.\PhysicalDrive1"
PLAIN = r"\\.\PhysicalDrive2"
"""The same disk through an export without a mailbox."""
KIB = 1 << 10
MIB = 1 << 20
DISK_BYTES = 64 * MIB
SOURCE = 2 * MIB
DESTINATION = 16 * MIB
LENGTH = MIB
OLD, NEW = 1, 2
"""Seeds of the source before and after the token was made."""

SUCCESS = 0
INVALID_PARAMETER = 0xC000000D
INVALID_DEVICE_REQUEST = 0xC0000010
NONEXISTENT_SECTOR = 0xC0000015
ACCESS_DENIED = 0xC0000022
BUFFER_TOO_SMALL = 0xC0000023
NOT_SUPPORTED = 0xC00000BB
FEATURE_NOT_SUPPORTED = 0xC0000463
INVALID_TOKEN = 0xC0000465
INVALID_FIELD = 0xC0000475

UNSUPPORTED = 3
"""odx.exe's exit code for "not supported by this path"."""


@dataclass(frozen=True, slots=True)
class Piece:
    """Bytes of the disk that a case changes: where they go, and what they are."""

    offset: int
    content: bytes


@dataclass(frozen=True, slots=True)
class Case:
    """One line for odx.exe and what must come of it.

    Attributes:
        title: for people.
        line: the command.
        ntstatus: of its last IOCTL.
        results: further members of its JSON.
        pieces: what the disk holds afterwards; elsewhere it is as it was.
        by_token: the pieces were written by a token.
        hash_name: what the result calls the hash this case takes, if it takes one.
    """

    title: str
    line: str
    ntstatus: int = SUCCESS
    results: Mapping[str, int | str] = field(default_factory=dict)
    pieces: tuple[Piece, ...] = ()
    by_token: bool = False
    hash_name: str = ""


def pattern(seed: int, offset: int, length: int) -> bytes:
    """What `odx disk fill` writes: every 8 bytes hold the seed and their own offset on the disk."""
    return array("Q", range(seed << 48 | offset, seed << 48 | (offset + length), 8)).tobytes()


def old(offset: int, length: int) -> bytes:
    """Part of the source as it was when the token was made; the offset counts from the source's start."""
    return pattern(OLD, SOURCE + offset, length)


def _fill(title: str, offset: int, length: int, seed: int) -> Case:
    line = f"disk fill {DISK} --from {offset} --length {length} --set seed={seed}"
    return Case(title, line, pieces=(Piece(offset, pattern(seed, offset, length)),))


def _hash(title: str, piece: Piece, name: str = "") -> Case:
    """The guest reads a piece of the disk and hashes it."""
    line = f"disk hash {DISK} --from {piece.offset} --length {len(piece.content)}"
    expected = {"sha256": hashlib.sha256(piece.content).hexdigest()}
    return Case(title, line, results=expected, hash_name=name)


def _looked_at(cases: list[Case]) -> Iterator[Case]:
    """The cases, each copy followed by a look at what it wrote."""
    for case in cases:
        yield case
        if case.by_token:
            for piece in case.pieces:
                name = "destination" if piece.offset == DESTINATION else ""
                yield _hash(f"read back: {case.title}", piece, name)


def _ranges(ranges: list[tuple[int, int]]) -> str:
    return " ".join(f"--range {offset}:{length}" for offset, length in ranges)


def _write(title: str, ranges: list[tuple[int, int]], content: bytes, more: str = "--token t.bin") -> Case:
    """A copy that must succeed, `content` laid out over the ranges in their order."""
    pieces, start = [], 0
    for offset, length in ranges:
        pieces.append(Piece(offset, content[start : start + length]))
        start += length
    line = f"ioctl write {DISK} {_ranges(ranges)} {more}"
    return Case(
        title, line, SUCCESS, {"length_copied": len(content), "flags": 0}, tuple(pieces), by_token=True
    )


def _read(title: str, more: str, protected: int, flags: int = 0) -> Case:
    results = {"length_protected": protected, "flags": flags}
    return Case(title, f"ioctl read {DISK} {more}", SUCCESS, results)


def refused_by_policy() -> list[Case]:
    """For programs the IOCTL is closed, as with Windows' own driver; the property is not."""
    read = f"ioctl read {DISK} --range {SOURCE}:{LENGTH}"
    return [
        Case("the property is open to programs", f"property {DISK}"),
        Case("row 5: from a program, without the policy", read, ACCESS_DENIED),
        Case("row 5 comes before row 6", f"{read} --set ranges-offset=0", ACCESS_DENIED),
    ]


def copies() -> list[Case]:
    """The copy: a token, the source overwritten, and then everything the token still brings."""
    source_old, source_new = old(0, LENGTH), pattern(NEW, SOURCE, LENGTH)
    scattered = [(24 * MIB, 64 * KIB), (22 * MIB, 128 * KIB), (23 * MIB, 64 * KIB)]
    many = [(40 * MIB + index * 8 * KIB, 4 * KIB) for index in range(65)]
    before = [
        Case("property: which limits the disk has", f"property {DISK}"),
        Case("property: exists?", f"property {DISK} --exists"),
        Case("no mailbox, no filter: the disk below answers", f"property {PLAIN}", FEATURE_NOT_SUPPORTED),
        _fill("source filled", SOURCE, LENGTH, OLD),
        _hash("source, when the token is made", Piece(SOURCE, source_old), "source_before"),
        _read("token of 1 MiB", f"--range {SOURCE}:{LENGTH} --token t.bin", LENGTH),
        _read("token of two ranges", f"--range 3M:0x10000 --range {SOURCE}:64K --token two.bin", 128 * KIB),
        _fill("source overwritten", SOURCE, LENGTH, NEW),
        _hash("source, overwritten before the copy", Piece(SOURCE, source_new), "source_after"),
    ]
    writes = [
        _write("Token: the data of then", [(DESTINATION, LENGTH)], old(0, LENGTH)),
        _write(
            "TokenOffset: 512 KiB into the data",
            [(20 * MIB, 256 * KIB)],
            old(512 * KIB, 256 * KIB),
            "--token t.bin --token-offset 512K",
        ),
        _write(
            "TokenOffset counts bytes; what is less than a block is dropped",
            [(21 * MIB, 64 * KIB)],
            old(64 * KIB, 64 * KIB),
            f"--token t.bin --token-offset {64 * KIB + 100}",
        ),
        _write(
            "several ranges are filled in their order",
            scattered,
            old(4 * KIB, 256 * KIB),
            "--token t.bin --token-offset 4K",
        ),
        _write(
            "Flags and Reserved are for later use, not looked at",
            [(26 * MIB, 64 * KIB)],
            old(0, 64 * KIB),
            "--token t.bin --set write-flags=0xffffffff --set write-reserved=0xffffffff",
        ),
        _write(
            "a token of two ranges brings both",
            [(27 * MIB, 128 * KIB)],
            bytes(64 * KIB) + old(0, 64 * KIB),
            "--token two.bin",
        ),
        _write(
            "the zero token needs no source",
            [(SOURCE + 512 * KIB, 64 * KIB)],
            bytes(64 * KIB),
            "--token zero",
        ),
        _read("65 ranges: 64 fit, a flag tells", _ranges(many), 64 * 4 * KIB, flags=1),
        Case(
            "read and write in one command",
            f"ioctl copy {DISK} {DISK} --from {DESTINATION} --to 32M --length {LENGTH}",
            SUCCESS,
            {"copied": LENGTH},
            (Piece(32 * MIB, source_old),),
            by_token=True,
        ),
    ]
    return [*before, *_looked_at(writes)]


def bad_tokens() -> list[Case]:
    """Tokens that are none: no byte may move."""
    target = "--range 48M:64K"
    refused = {"length_copied": 0}
    write = f"ioctl write {DISK} {target} --token"
    return [
        Case("forged token: a bit of its secret", f"{write} t.bin --flip 511", INVALID_TOKEN, refused),
        Case("forged token: a bit of its type", f"{write} t.bin --flip 3", INVALID_TOKEN, refused),
        Case("truncated token", f"{write} t.bin --cut 256", INVALID_TOKEN, refused),
        Case("TokenOffset past the data", f"{write} t.bin --token-offset 1M", INVALID_FIELD, refused),
        _read("token of one second", "--range 2M:64K --ttl 1 --token short.bin", 64 * KIB),
        Case("two and a half seconds later", "disk sleep --length 2500"),
        Case("expired token", f"{write} short.bin", INVALID_TOKEN, refused),
    ]


def rejected() -> list[Case]:
    """Every row of the class driver's validation a program can reach (4, 7 and 13 it cannot), and their order."""
    read, write = f"ioctl read {DISK} --range 2M:64K", f"ioctl write {DISK} --range 48M:64K --token t.bin"
    ranges = f"ioctl read {DISK} --range"
    rows = [
        ("row 1: input shorter than its head", f"{read} --in-length 27", INVALID_PARAMETER),
        ("row 1: no input at all", f"{read} --in-length 0", INVALID_PARAMETER),
        ("row 2: input shorter than head and both parts", f"{read} --in-length 59", INVALID_PARAMETER),
        ("row 2: a sum past 32 bits", f"{read} --set parameter-length=0xfffffff0", INVALID_PARAMETER),
        ("row 3: no valid page 8Fh", f"ioctl read {PLAIN} --range 2M:64K", FEATURE_NOT_SUPPORTED),
        ("row 6: offset of the ranges 0", f"{read} --set ranges-offset=0", INVALID_PARAMETER),
        ("row 6: no bytes of ranges", f"{read} --set ranges-length=0", INVALID_PARAMETER),
        ("row 6: less than one range", f"{read} --set ranges-length=15", INVALID_PARAMETER),
        ("row 8: offset not in whole blocks", f"{ranges} 100:64K", INVALID_PARAMETER),
        ("row 8: length not in whole blocks", f"{ranges} 2M:100", INVALID_PARAMETER),
        ("row 8: no length", f"{ranges} 2M:0", INVALID_PARAMETER),
        ("row 8: the second of two ranges", f"{read} --range 3M:0", INVALID_PARAMETER),
        ("row 9: past the end", f"{ranges} {DISK_BYTES - 512}:1024", NONEXISTENT_SECTOR),
        ("row 9: an end past 64 bits", f"{ranges} 0xfffffffffffffe00:1024", NONEXISTENT_SECTOR),
        ("row 10: parameters of a read too short", f"{read} --set parameter-length=15", INVALID_PARAMETER),
        ("row 10: parameters of a write too short", f"{write} --set parameter-length=527", INVALID_PARAMETER),
        ("row 11: a longer life than the disk gives", f"{read} --ttl 601", INVALID_PARAMETER),
        ("row 12: no room for a read's output", f"{read} --out-length 535", BUFFER_TOO_SMALL),
        ("row 12: no room for a write's output", f"{write} --out-length 15", BUFFER_TOO_SMALL),
        ("row 2 before row 6", f"{read} --in-length 59 --set ranges-offset=0", INVALID_PARAMETER),
        ("row 8 before row 12", f"{ranges} 100:64K --out-length 0", INVALID_PARAMETER),
        ("row 9 before row 10", f"{ranges} 1G:64K --set parameter-length=0", NONEXISTENT_SECTOR),
        ("row 11 before row 12", f"{read} --ttl 601 --out-length 0", INVALID_PARAMETER),
        ("parameters outside the input", f"{read} --set parameter-offset=0xfffffff0", INVALID_PARAMETER),
        ("parameters across its end", f"{read} --set parameter-offset=49", INVALID_PARAMETER),
        ("ranges outside the input", f"{read} --set ranges-offset=0xfffffff0", INVALID_PARAMETER),
        ("ranges across its end", f"{read} --set ranges-offset=49", INVALID_PARAMETER),
    ]
    return [Case(title, line, status) for title, line, status in rows]


def other_ways() -> list[Case]:
    """Ways that this disk and this file system do not know: odx.exe tells that from a failure."""
    elsewhere = {"exit": UNSUPPORTED}
    return [
        Case("SCSI pass-through", f"scsi populate {DISK} --range 0:8", INVALID_DEVICE_REQUEST, elsewhere),
        Case("offload of a file", "fsctl copy t.bin copied.bin", NOT_SUPPORTED, elsewhere),
        Case("CopyFileEx, an ordinary copy here", "copyfile t.bin another.bin", results={"exit": 0}),
    ]


def all_cases() -> list[Case]:
    """All that run with the policy on, in their order."""
    return [*copies(), *bad_tokens(), *rejected(), *other_ways()]
