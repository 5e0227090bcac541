"""POPULATE TOKEN and list identifiers: vectors worked out by hand."""

from __future__ import annotations

from vector_steps import (
    CDB,
    COUNTER,
    GOOD,
    INVALID,
    LIST,
    OUT_OF_RANGE,
    SBC_PT,
    Json,
    blocks,
    event,
    extended_copy,
    look,
    monitor,
    populate,
    ranged,
    refused,
    report_all,
    status_lid1,
    take,
    token_data,
    unknown,
    untouched,
    vector,
    write,
)


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
