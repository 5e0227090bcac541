"""Vectors of refused requests and of device start."""

from __future__ import annotations

from typing import Any

from windows_steps import (
    READ,
    TOKEN,
    WRITE,
    Json,
    dsm,
    expected,
    fixed,
    information,
    inquiry,
    limits,
    populate,
    read_input,
    read_output,
    read_parameters,
    receive,
    start,
    step,
    vector,
    write,
    write_input,
    write_output,
    write_parameters,
)

ONE = [(4096, 8192)]
BLOCKS = [(8, 16)]


def _rejected(name: str, data: bytes, status: str, **others: Any) -> Json:
    return vector(f"own-reject-{name}", data, [], expected(status, information=0), **others)


def rejected() -> list[Json]:
    """Each check of the class driver, for both actions, and which of two comes first."""
    read, written = read_parameters(), write_parameters()
    off = {"device": {"vpd8f": None}}
    return [
        _rejected("read-27-bytes", read_input(ONE)[:27], "INVALID_PARAMETER"),
        _rejected("write-one-byte-short-of-lengths", write_input(ONE)[:571], "INVALID_PARAMETER"),
        _rejected(
            "lengths-that-overflow-32-bits",
            dsm(READ, read, ONE, lengths=(0xFFFFFFF0, 64)),
            "INVALID_PARAMETER",
        ),
        _rejected("read-no-8f", read_input(ONE), "DEVICE_FEATURE_NOT_SUPPORTED", **off),
        _rejected("write-no-8f", write_input(ONE), "DEVICE_FEATURE_NOT_SUPPORTED", **off),
        _rejected("not-a-disk", read_input(ONE), "DEVICE_FEATURE_NOT_SUPPORTED", device={"is_disk": False}),
        _rejected(
            "no-8f-before-caller",
            read_input(ONE),
            "DEVICE_FEATURE_NOT_SUPPORTED",
            requestor_mode="user",
            **off,
        ),
        _rejected("short-before-no-8f", read_input(ONE)[:30], "INVALID_PARAMETER", **off),
        _rejected("raised-irql", write_input(ONE), "INVALID_LEVEL", irql=2),
        _rejected("irql-before-caller", read_input(ONE), "INVALID_LEVEL", irql=2, requestor_mode="UserMode"),
        _rejected("write-by-a-program", write_input(ONE), "ACCESS_DENIED", requestor_mode="UserMode"),
        _rejected("caller-before-ranges", read_input([(1, 1)]), "ACCESS_DENIED", requestor_mode="UserMode"),
        _rejected(
            "ranges-at-offset-0", dsm(READ, read, [], places=(28, 0), lengths=(16, 16)), "INVALID_PARAMETER"
        ),
        _rejected("no-ranges", dsm(READ, read, []), "INVALID_PARAMETER"),
        _rejected("entire-data-set-flag", dsm(READ, read, [], flags=1), "INVALID_PARAMETER"),
        _rejected("fifteen-bytes-of-range", dsm(READ, read, ONE, lengths=(16, 15)), "INVALID_PARAMETER"),
        _rejected("no-block-size", read_input(ONE), "INVALID_PARAMETER", device={"sector_size": 0}),
        _rejected("length-not-in-blocks", write_input([(512, 700)]), "INVALID_PARAMETER"),
        _rejected("offset-not-in-blocks", write_input([(100, 512)]), "INVALID_PARAMETER"),
        _rejected("one-block-too-far", read_input([((1 << 40) - 512, 1024)]), "NONEXISTENT_SECTOR"),
        _rejected("negative-offset", read_input([(-1024, 512)]), "NONEXISTENT_SECTOR"),
        _rejected("too-far-before-crooked", read_input([(1 << 40, 512), (1, 1)]), "NONEXISTENT_SECTOR"),
        _rejected("crooked-before-too-far", read_input([(1, 1), (1 << 40, 512)]), "INVALID_PARAMETER"),
        _rejected("ranges-before-parameters", dsm(READ, b"", [(1, 1)]), "INVALID_PARAMETER"),
        _rejected("too-far-before-parameters", dsm(READ, b"", [(1 << 40, 512)]), "NONEXISTENT_SECTOR"),
        _rejected("read-parameters-15", dsm(READ, read, ONE, lengths=(15, 16)), "INVALID_PARAMETER"),
        _rejected("write-parameters-527", dsm(WRITE, written, ONE, lengths=(527, 16)), "INVALID_PARAMETER"),
        _rejected("time-to-live-121-of-120", read_input(ONE, ttl=121), "INVALID_PARAMETER"),
        _rejected(
            "time-to-live-before-room", read_input(ONE, 121), "INVALID_PARAMETER", output_buffer_length=0
        ),
        _rejected("write-room-0", write_input(ONE), "BUFFER_TOO_SMALL", output_buffer_length=0),
        _rejected("ranges-before-room", write_input([(1, 1)]), "INVALID_PARAMETER", output_buffer_length=0),
        _rejected("no-memory", read_input(ONE), "INSUFFICIENT_RESOURCES", notes="the allocation fails"),
    ]


def accepted() -> list[Json]:
    """What the checks do not look at, or just let through."""
    done = information(0x10, 1, 16, token=TOKEN)
    fine = expected("SUCCESS", length_protected=8192, token_length=512, information=536, rrti_count=1)

    def good(name: str, data: bytes, ttl: int = 0, **others: object) -> Json:
        steps = [populate(7, BLOCKS, ttl), receive(7, done)]
        return vector(f"own-accept-{name}", data, steps, fine, read_output(16), **others)

    odd = {**expected("SUCCESS", length_copied=512, offload_write_flags=0, wut_count=1)}
    return [
        good("size-field-0", dsm(READ, read_parameters(), ONE, size=0)),
        good("flags-set", dsm(READ, read_parameters(), ONE, flags=0xFFFFFFFE)),
        good("ranges-before-parameters", dsm(READ, read_parameters(), ONE, places=(64, 32))),
        good("unaligned-places", dsm(READ, read_parameters(), ONE, places=(29, 51))),
        good("larger-parameter-block", dsm(READ, read_parameters() + bytes(16), ONE, places=(28, 64))),
        good("time-to-live-120-of-120", read_input(ONE, 120), 120),
        good("time-to-live-if-no-maximum", read_input(ONE, 86400), 86400, device={"vpd8f": limits(most=0)}),
        good("half-a-range-at-the-end", dsm(READ, read_parameters(), [*ONE, (9, 9)], lengths=(16, 24))),
        vector(
            "own-accept-token-offset-remainder-dropped",
            write_input([(1024, 512)], offset=1023),
            [write(1, [(2, 1)], offset=1)],
            odd,
            write_output(1),
        ),
        vector(
            "own-accept-overlapping-ranges-in-order",
            write_input([(1024, 1024), (512, 1024)]),
            [write(1, [(2, 2), (1, 2)])],
            expected("SUCCESS", length_copied=2048),
            write_output(4),
        ),
        vector(
            "own-accept-last-block",
            write_input([((1 << 40) - 512, 512)]),
            [write(1, [((1 << 31) - 1, 1)])],
            odd,
            write_output(1),
        ),
    ]


def _page_8f(kind: int = 0, length: int = 0x20, total: int | None = None) -> bytes:
    body = kind.to_bytes(2, "big") + length.to_bytes(2, "big") + bytes(6)
    body += (9).to_bytes(2, "big") + (8).to_bytes(4, "big") + (7).to_bytes(4, "big")
    body += (6).to_bytes(8, "big") + (5).to_bytes(8, "big")
    return b"\0\x8f" + (len(body) if total is None else total).to_bytes(2, "big") + body


def _list(codes: str, count: int | None = None) -> bytes:
    raw = bytes.fromhex(codes)
    return bytes((0, 0, 0, len(raw) if count is None else count)) + raw


def started() -> list[Json]:
    """Page 00h, page 8Fh, page B0h and the control mode page."""
    on, off = {"enabled": True}, {"enabled": False, "ntstatus": "STATUS_DEVICE_FEATURE_NOT_SUPPORTED"}
    cached = {"MaximumRangeDescriptors": 9, "MaximumInactivityTimer": 8, "DefaultInactivityTimer": 7}
    cached |= {"MaximumTokenTransferSize": 6, "OptimalTransferCount": 5}
    attention, refused = fixed(6, 0x29, 0), fixed(5, 0x24, 0)
    asked = bytes.fromhex("1a000a00c000")
    page = {code: bytes.fromhex(f"{code:02x} 0a 02 12 00 00 00 00 00 00 00 00") for code in (0x0A, 0x8A)}
    cleared = bytes(4) + bytes.fromhex("0a 0a 02 10 00 00 00 00 00 00 00 00")
    return [
        *(
            start(f"own-start-00-{name}", [inquiry(0, data)], result)
            for name, data, result in (
                ("unsorted", _list("0080b08f"), off),
                ("unsorted-behind-8f", _list("008fb2b0"), off),
                ("repeated", _list("00808f8f"), off),
                ("count-into-zeros", _list("00808fb0", 6), off),
                ("not-from-00", _list("808fb0"), off),
                ("without-8f", _list("0080b0b2"), off),
                ("empty", _list(""), off),
                ("only-00-and-8f", _list("008f"), on),
            )
        ),
        start("own-start-00-fails", [inquiry(0, sense=refused)], off),
        *(
            start(f"own-start-8f-{name}", [inquiry(0x8F, data)], result)
            for name, data, result in (
                ("page-length-35", _page_8f(total=35), off),
                ("page-length-36", _page_8f(), {**on, "cached": cached, "page_length": 36}),
                ("longer-than-asked", _page_8f(total=0x300), {**on, "cached": cached}),
                ("first-descriptor-0001", _page_8f(kind=1), off),
                ("first-descriptor-0100", _page_8f(kind=0x100), off),
                ("length-1f", _page_8f(length=0x1F), off),
                ("length-24", _page_8f(length=0x24), off),
                ("limits-second", b"\0\x8f\0\x2c\0\x01\0\x04" + bytes(4) + _page_8f()[4:], off),
                ("wrong-page-code", b"\x1f\x55" + _page_8f()[2:], {**on, "cached": cached}),
            )
        ),
        start("own-start-8f-refused-at-once", [inquiry(0x8F, sense=refused)], off),
        start(
            "own-start-8f-after-four-attentions",
            [*[inquiry(0x8F, sense=attention)] * 4, inquiry(0x8F, _page_8f())],
            {**on, "cached": cached},
        ),
        start("own-start-8f-five-attentions", [inquiry(0x8F, sense=attention)] * 5, off),
        start(
            "own-start-b0-cached",
            [inquiry(0xB0, bytes.fromhex("00b0003c 0000 0008 00001000 00000400") + bytes(48))],
            {
                **on,
                "cached": {
                    "MaximumTransferLength": 0x1000,
                    "OptimalTransferLength": 0x400,
                    "OptimalTransferLengthGranularity": 8,
                },
            },
        ),
        start("own-start-b0-too-short", [inquiry(0xB0, bytes.fromhex("00b0001c") + bytes(28))], on),
        start("own-start-b0-refused", [inquiry(0xB0, sense=refused)], on),
        start(
            "own-start-order",
            [inquiry(0, _list("00808fb0b2")), inquiry(0xB2), inquiry(0xB0), inquiry(0x8F, _page_8f())],
            on,
        ),
        *(
            start(
                f"own-start-qerr-1-{'savable' if code >> 7 else 'not-savable'}",
                [
                    step(asked, data_in=bytes.fromhex("17000008") + bytes(8) + page[code]),
                    step(bytes((0x15, 0x10 | code >> 7, 0, 0, 16, 0)), cleared),
                ],
                {**on, "qerr": 1},
            )
            for code in (0x0A, 0x8A)
        ),
        start(
            "own-start-qerr-0-left-alone",
            [step(asked, data_in=bytes.fromhex("0f000000 0a0a 0210 0000000000000000"))],
            {**on, "qerr": 0},
        ),
        start(
            "own-start-mode-select-refused-is-noise",
            [
                step(asked, data_in=bytes.fromhex("0f000000") + page[0x0A]),
                step(bytes((0x15, 0x10, 0, 0, 16, 0)), cleared, sense=refused),
            ],
            on,
        ),
    ]


def queried() -> list[Json]:
    """IOCTL_STORAGE_QUERY_PROPERTY for the copy-offload property."""

    def query(name: str, kind: int, room: int, wanted: Json, output: str = "", **device: object) -> Json:
        data = (13).to_bytes(4, "little") + kind.to_bytes(4, "little") + bytes(4)
        base = vector(f"own-query-{name}", data, [], wanted, bytes.fromhex(output), device=device)
        return {**base, "ioctl_code": "0x002D1400", "output_buffer_length": room}

    numbers = "01000000 30000000 78000000 1e000000 0000000000000000 0000000000000000 40000000"
    lengths = {"maximum_transfer_length": 4096, "optimal_transfer_length": 1024}
    lengths |= {"optimal_transfer_length_granularity": 8}
    return [
        query("exists", 1, 0, expected("SUCCESS", information=0)),
        query("exists-without-odx", 1, 0, expected("SUCCESS", information=0), vpd8f=None),
        query("mask", 2, 48, expected("NOT_SUPPORTED", information=0)),
        query("room-7", 0, 7, expected("BUFFER_TOO_SMALL", information=0)),
        query("room-8", 0, 8, expected("SUCCESS", information=8), "30000000 30000000"),
        query("room-47", 0, 47, expected("SUCCESS", information=8), "30000000 30000000"),
        query("without-odx", 0, 48, expected("DEVICE_FEATURE_NOT_SUPPORTED", information=0), vpd8f=None),
        query(
            "header-without-odx", 0, 8, expected("SUCCESS", information=8), "30000000 30000000", vpd8f=None
        ),
        query(
            "lengths",
            0,
            48,
            expected("SUCCESS", information=48),
            f"{numbers} 00100000 00040000 0800 0000",
            vpdb0=lengths,
        ),
        query("b0-failed", 0, 64, expected("SUCCESS", information=48), numbers + "00" * 28, vpdb0=None),
    ]
