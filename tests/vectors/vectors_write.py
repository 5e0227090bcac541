"""WRITE USING TOKEN: vectors worked out by hand."""

from __future__ import annotations

from typing import Any

from vector_steps import (
    INVALID,
    LIST,
    SBC_WUT,
    ZERO,
    Json,
    block,
    blocks,
    cut_short,
    event,
    look,
    plain_write,
    populate,
    refused,
    take,
    untouched,
    vector,
    write,
    written,
)


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
