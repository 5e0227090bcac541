"""Vectors of commands that are sent: limits, answers, sense data."""

from __future__ import annotations

from typing import Any

from windows_steps import (
    GIB,
    KIB,
    MIB,
    TOKEN,
    Json,
    expected,
    fixed,
    information,
    limits,
    populate,
    read_input,
    read_output,
    receive,
    step,
    vector,
    write,
    write_input,
    write_output,
)

ONE, BLOCKS = [(4096, 8192)], [(8, 16)]
ALLOCATION = 1560
"""536 + 16 * 64."""
UNDERRUN = (0x0A, 0x0D, 0x04)
START_UNIT = bytes.fromhex("1b0000000100")


def _spread(count: int) -> list[tuple[int, int]]:
    return [(number * 64 * KIB, 4 * KIB) for number in range(count)]


def _blocks(ranges: list[tuple[int, int]]) -> list[tuple[int, int]]:
    return [(offset // 512, length // 512) for offset, length in ranges]


def limited() -> list[Json]:
    """Sections on limits per command and on list identifiers."""

    def read(
        name: str, asked: list[tuple[int, int]], sent: list[tuple[int, int]], ttl: int = 0, **kept: int
    ) -> Json:
        count, whole = sum(b for _, b in sent), sum(b for _, b in asked) // 512
        told = information(0x10, 1, count, token=TOKEN)
        wanted = expected("SUCCESS", length_protected=count * 512, offload_read_flags=int(count < whole))
        steps = [populate(3, sent, ttl), receive(3, told)]
        output = read_output(count, truncated=count < whole)
        return vector(
            f"own-limit-{name}",
            read_input(asked, ttl),
            steps,
            wanted,
            output,
            device={"vpd8f": limits(**kept)},
        )

    def written(
        name: str, asked: list[tuple[int, int]], sent: list[list[tuple[int, int]]], **device: object
    ) -> Json:
        steps, done = [], 0
        for number, ranges in enumerate(sent):
            steps.append(write(9 + number, ranges, offset=done))
            done += sum(blocks for _, blocks in ranges)
        wanted = expected("SUCCESS", length_copied=done * 512, wut_count=len(sent), offload_write_flags=0)
        return vector(
            f"own-limit-{name}", write_input(asked), steps, wanted, write_output(done), device=device
        )

    many = _spread(65)
    huge = [(0, 3 * 1024 * GIB)]
    wrap = {"maximum_list_identifier": 300}
    turned = [write(300, [(0, 4)]), write(0, [(4, 4)], offset=4)]
    over = [write(0xFFFFFFFF, [(0, 4)]), write(0, [(4, 4)], offset=4)]
    two = expected("SUCCESS", length_copied=4096, wut_count=2)
    small = {"vpd8f": limits(optimal=4)}
    mib = MIB // 512
    return [
        read("read-mtts", [(0, 16 * MIB)], [(0, 1024)], ttl=5, size=1024, optimal=64),
        read("read-time-to-live-ignores-otc", [(0, 16 * MIB)], [(0, 16 * mib)], ttl=5, optimal=64),
        read("read-otc-below-mtts", [(0, 16 * MIB)], [(0, 64)], size=1024, optimal=64),
        read("read-mtts-below-otc", [(0, 16 * MIB)], [(0, 64)], size=64, optimal=1024),
        read("read-cut-inside-second-range", [(0, 512), (4096, 4096)], [(0, 1), (8, 3)], size=4),
        read("read-no-range-limit-64-anyway", many, _blocks(many)[:64], ranges=0),
        read("read-many-ranges-allowed-64-anyway", many, _blocks(many)[:64], ranges=4000),
        vector(
            "own-limit-read-range-above-32-bits",
            read_input(huge),
            [
                populate(3, [(0, 0xFFFFFFFF), (0xFFFFFFFF, 3 * 1024 * GIB // 512 - 0xFFFFFFFF)]),
                receive(3, information(0x10, 1, 3 * 1024 * GIB // 512, token=TOKEN)),
            ],
            expected("SUCCESS", length_protected=3 * 1024 * GIB, offload_read_flags=0),
            device={"disk_bytes": 4 * 1024 * GIB},
        ),
        written("write-65-ranges", many, [_blocks(many)[:64], _blocks(many)[64:]]),
        written(
            "write-range-limit-2", many[:3], [_blocks(many)[:2], _blocks(many)[2:3]], vpd8f=limits(ranges=2)
        ),
        written(
            "write-otc-256mib-exactly",
            [(0, 257 * MIB)],
            [[(0, 256 * mib)], [(256 * mib, mib)]],
            vpd8f=limits(optimal=256 * mib),
        ),
        written(
            "write-mtts-below-64mib",
            [(0, 2 * MIB)],
            [[(0, mib)], [(mib, mib)]],
            vpd8f=limits(size=mib),
        ),
        written(
            "write-mtts-below-otc",
            [(0, 2 * MIB)],
            [[(0, mib)], [(mib, mib)]],
            vpd8f=limits(size=mib, optimal=4 * mib),
        ),
        vector(
            "own-identifier-maximum-of-registry",
            write_input([(0, 4096)]),
            turned,
            two,
            device={**small, **wrap},
        ),
        vector("own-identifier-wraps-at-32-bits", write_input([(0, 4096)]), over, two, device=small),
        vector(
            "own-identifier-maximum-below-256-ignored",
            write_input([(0, 4096)]),
            [write(255, [(0, 4)]), write(256, [(4, 4)], offset=4)],
            two,
            device={**small, "maximum_list_identifier": 255},
        ),
    ]


def read_answers() -> list[Json]:
    """What is made of RECEIVE ROD TOKEN INFORMATION after POPULATE TOKEN."""
    resources, disk = fixed(0x0B, 0x55, 3), fixed(3, 0x11, 0)
    underrun = fixed(*UNDERRUN)

    def failed(name: str, status: str, told: bytes, **others: object) -> Json:
        wanted = expected(status, length_protected=0, token_length=0, offload_read_flags=0, information=536)
        steps = [populate(1, BLOCKS), receive(1, told)]
        return vector(f"own-read-{name}", read_input(ONE), steps, wanted, bytes(20), **others)

    def good(name: str, told: bytes, count: int = 16, first: Json | None = None) -> Json:
        wanted = expected("SUCCESS", length_protected=count * 512, offload_read_flags=int(count < 16))
        steps = [first or populate(1, BLOCKS), receive(1, told)]
        return vector(
            f"own-read-{name}", read_input(ONE), steps, wanted, read_output(count, truncated=count < 16)
        )

    def told(status: int, count: int = 16, **others: object) -> bytes:
        return information(0x10, status, count, **{"token": TOKEN, **others})  # type: ignore[arg-type]  # passed on

    unknown = (0x00, 0x04, 0x10, 0x11, 0x12, 0x13, 0x61, 0x7F)
    return [
        *(failed(f"copy-status-{code:02x}", "UNSUCCESSFUL", told(code)) for code in unknown),
        good("top-bit-of-copy-status-ignored", told(0x81)),
        good("residual-with-sense", told(3, 5, sense=underrun), 5),
        good("residual-with-error-sense-and-token", told(3, 5, sense=disk), 5),
        good("success-with-error-sense-ignored", told(1, 16, sense=disk)),
        good("success-with-short-count", told(1, 7), 7),
        good("units-ignored", told(1, units=0xF2)),
        good("long-sense-field", told(3, 9, sense=underrun, field=252), 9),
        failed("count-above-asked", "UNSUCCESSFUL", told(1, 17)),
        failed("count-0", "UNSUCCESSFUL", told(3, 0, sense=underrun)),
        failed("error-drops-count-and-token", "DEVICE_DATA_ERROR", told(2, 16, sense=disk)),
        failed("terminated-drops-count-and-token", "INSUFFICIENT_RESOURCES", told(0x60, 16, sense=resources)),
        failed("error-without-sense", "UNSUCCESSFUL", told(2, 16)),
        failed("reservation-conflict-inside", "DEVICE_BUSY", told(2, 0, sense=disk, completion=0x18)),
        failed("descriptor-512", "UNSUCCESSFUL", told(1, length=512)),
        failed("no-descriptor", "UNSUCCESSFUL", told(1, token=b"")),
        failed("sense-field-length-too-large", "UNSUCCESSFUL", told(1)[:13] + b"\x04" + told(1)[14:]),
        failed("nothing-came", "UNSUCCESSFUL", b""),
        good("recovered-error-then-token", told(1), first=populate(1, BLOCKS, sense=fixed(1, 0x17, 1))),
        good("underrun-aborted-then-token", told(3, 4), 4, populate(1, BLOCKS, sense=fixed(*UNDERRUN))),
        good("underrun-command-then-token", told(3, 4), 4, populate(1, BLOCKS, sense=fixed(0x0B, 0x0D, 4))),
        vector(
            "own-read-receive-fails",
            read_input(ONE),
            [populate(1, BLOCKS), receive(1, sense=fixed(5, 0x24, 0))],
            expected("INVALID_INITIATOR_TARGET_PATH", information=536),
            bytes(20),
        ),
        vector(
            "own-read-receive-refused-as-too-long-counts-as-no-data",
            read_input(ONE),
            [populate(1, BLOCKS), receive(1, sense=fixed(5, 0x1A, 0))],
            expected("UNSUCCESSFUL", information=536),
            bytes(20),
        ),
        vector(
            "own-read-receive-with-residual-is-fine",
            read_input(ONE),
            [populate(1, BLOCKS), receive(1, told(1), residual=255)],
            expected("SUCCESS", length_protected=8192),
            read_output(16),
        ),
        vector(
            "own-read-receive-retried-once",
            read_input(ONE),
            [populate(1, BLOCKS), receive(1, sense=fixed(6, 0x29, 0)), receive(1, told(1))],
            expected("SUCCESS", length_protected=8192),
            read_output(16),
        ),
        vector(
            "own-read-receive-retried-only-once",
            read_input(ONE),
            [populate(1, BLOCKS), *[receive(1, sense=fixed(6, 0x29, 0))] * 2],
            expected("IO_DEVICE_ERROR", information=536),
            bytes(20),
        ),
        vector(
            "own-read-one-attention-is-survived",
            read_input(ONE),
            [populate(1, BLOCKS, sense=fixed(6, 0x29, 0)), populate(1, BLOCKS), receive(1, told(1))],
            expected("SUCCESS", length_protected=8192, pt_count=2),
            read_output(16),
        ),
        vector(
            "own-read-residual-fails",
            read_input(ONE),
            [populate(1, BLOCKS, residual=16)],
            expected("DATA_OVERRUN", information=536),
            bytes(20),
        ),
        vector(
            "own-read-residual-of-all-is-ignored",
            read_input(ONE),
            [populate(1, BLOCKS, residual=32), receive(1, told(1))],
            expected("SUCCESS", length_protected=8192),
            read_output(16),
        ),
        vector(
            "own-read-left-over-input-behind-a-failure",
            read_input(ONE),
            [populate(1, BLOCKS, sense=fixed(5, 0x26, 0))],
            expected("INVALID_FIELD_IN_PARAMETER_LIST", information=536),
            bytes(20) + read_input(ONE)[20:],
        ),
    ]


def write_answers() -> list[Json]:
    """What is made of the ends of WRITE USING TOKEN."""
    failing, gone = fixed(3, 0x11, 0), fixed(5, 0x23, 6)

    def ended(
        name: str, steps: list[Json], status: str, done: int = 0, flags: int = 0, **others: object
    ) -> Json:
        wanted = expected(status, length_copied=done * 512, offload_write_flags=flags, information=16)
        return vector(
            f"own-write-{name}", write_input(ONE), steps, wanted, write_output(done, flags=flags), **others
        )

    def told(status: int, count: int, sense: bytes = b"") -> bytes:
        return information(0x11, status, count, sense=sense)

    def asked(data: bytes = b"", **others: object) -> Json:
        return receive(1, data, ALLOCATION, **others)

    first = write(1, BLOCKS)
    bad = write(1, BLOCKS, sense=failing)
    rest = write(2, [(18, 6)], offset=10)
    halves: Json = {"device": {"vpd8f": limits(optimal=8)}}
    no_valid = fixed(*UNDERRUN, 10, valid=False)
    described = bytes.fromhex("720a0d040000000c 000a8000 000000000000000a")
    return [
        ended(
            "recovered-error-asks",
            [write(1, BLOCKS, sense=fixed(1, 0x17, 1)), asked(told(1, 16))],
            "SUCCESS",
            16,
        ),
        ended("residual-asks", [write(1, BLOCKS, residual=8), asked(told(1, 16))], "SUCCESS", 16),
        ended("information-without-valid", [write(1, BLOCKS, sense=no_valid), rest], "SUCCESS", 16),
        ended(
            "descriptor-sense-asks",
            [write(1, BLOCKS, sense=described), asked(told(3, 10)), rest],
            "SUCCESS",
            16,
        ),
        ended("failure-with-count-goes-on", [bad, asked(told(3, 10, failing)), rest], "SUCCESS", 16),
        ended("count-above-asked", [bad, asked(told(3, 17))], "UNSUCCESSFUL"),
        ended("error-drops-count", [bad, asked(told(2, 10, failing))], "DEVICE_DATA_ERROR"),
        ended("residual-status-04", [bad, asked(told(4, 10))], "UNSUCCESSFUL"),
        ended("still-running", [bad, asked(told(0x11, 0))], "UNSUCCESSFUL"),
        ended("result-forgotten", [bad, asked(sense=fixed(5, 0x24, 0))], "INVALID_INITIATOR_TARGET_PATH"),
        ended("receive-refused-as-too-long", [bad, asked(sense=fixed(5, 0x1A, 0))], "UNSUCCESSFUL"),
        ended("token-invalid-inside", [bad, asked(told(2, 0, gone))], "INVALID_TOKEN", 0, 2),
        ended("receive-refused-for-token-sets-no-flag", [bad, asked(sense=gone)], "INVALID_TOKEN"),
        ended(
            "receive-retried-twice",
            [bad, *[asked(sense=fixed(6, 0x29, 0))] * 2, asked(told(1, 16))],
            "SUCCESS",
            16,
        ),
        ended("receive-retried-only-twice", [bad, *[asked(sense=fixed(6, 0x29, 0))] * 3], "IO_DEVICE_ERROR"),
        ended(
            "attentions-twice-survived",
            [*[write(1, BLOCKS, sense=fixed(6, 0x29, 0))] * 2, first],
            "SUCCESS",
            16,
        ),
        ended(
            "over-asked-refused",
            [write(1, BLOCKS, sense=fixed(5, 0x0D, 4)), asked(told(2, 0, fixed(5, 0x0D, 4)))],
            "DATA_OVERRUN",
        ),
        ended(
            "failure-after-half-is-success-truncated",
            [
                write(1, [(8, 8)]),
                write(2, [(16, 8)], offset=8, sense=failing),
                receive(2, told(2, 0, failing), ALLOCATION),
            ],
            "SUCCESS",
            8,
            1,
            **halves,
        ),
        ended(
            "four-seconds-are-over",
            [write(1, [(8, 8)], seconds=4.0)],
            "SUCCESS",
            8,
            1,
            **halves,
        ),
        ended(
            "just-under-four-seconds",
            [write(1, [(8, 8)], seconds=3.9), write(2, [(16, 8)], offset=8, seconds=60)],
            "SUCCESS",
            16,
            **halves,
        ),
        ended(
            "unit-not-started",
            [write(1, BLOCKS, sense=fixed(2, 4, 2)), step(START_UNIT), first],
            "SUCCESS",
            16,
        ),
        ended("timeout-retried", [write(1, BLOCKS, srb_status="SRB_STATUS_TIMEOUT"), first], "SUCCESS", 16),
        ended(
            "timeouts-use-up-the-budget",
            [*[write(1, BLOCKS, srb_status="SRB_STATUS_COMMAND_TIMEOUT")] * 3, asked(told(2, 0))],
            "UNSUCCESSFUL",
        ),
        ended("aborted-by-virtio-retried", [write(1, BLOCKS, srb_status=0x02), first], "SUCCESS", 16),
        ended("bus-reset-retried", [write(1, BLOCKS, srb_status=0x0E), first], "SUCCESS", 16),
        ended("busy-by-virtio-retried", [write(1, BLOCKS, srb_status=0x05), first], "SUCCESS", 16),
    ]


SENSE: tuple[tuple[str, str, int], ...] = (
    ("00/00/00", "IO_DEVICE_ERROR", 2),
    ("02/04/14", "RETRY", 2),
    ("02/04/01", "DEVICE_NOT_READY", 2),
    ("02/04/07", "DEVICE_NOT_READY", 2),
    ("02/04/00", "DEVICE_NOT_READY", 1),
    ("02/04/04", "DEVICE_NOT_READY", 1),
    ("02/04/08", "DEVICE_NOT_READY", 1),
    ("02/04/03", "NO_MEDIA_IN_DEVICE", 1),
    ("02/3A/00", "NO_MEDIA_IN_DEVICE", 1),
    ("02/3A/02", "NO_MEDIA_IN_DEVICE", 1),
    ("02/05/00", "DEVICE_NOT_READY", 2),
    ("03/11/00", "DEVICE_DATA_ERROR", 1),
    ("03/30/01", "UNRECOGNIZED_MEDIA", 1),
    ("03/30/03", "CLEANER_CARTRIDGE_INSTALLED", 1),
    ("04/44/00", "DEVICE_HARDWARE_ERROR", 1),
    ("04/08/03", "DEVICE_HARDWARE_ERROR", 2),
    ("05/00/16", "OPERATION_IN_PROGRESS", 1),
    ("05/08/04", "DEVICE_UNREACHABLE", 1),
    ("05/0D/04", "DATA_OVERRUN", 1),
    ("05/1A/00", "DATA_OVERRUN", 1),
    ("05/20/00", "INVALID_DEVICE_REQUEST", 1),
    ("05/21/00", "NONEXISTENT_SECTOR", 1),
    *((f"05/23/{ascq:02X}", "INVALID_TOKEN", 1) for ascq in (*range(11), 0x7F)),
    ("05/24/00", "INVALID_INITIATOR_TARGET_PATH", 1),
    ("05/25/00", "NO_SUCH_DEVICE", 1),
    ("05/26/00", "INVALID_FIELD_IN_PARAMETER_LIST", 1),
    ("05/26/02", "INVALID_FIELD_IN_PARAMETER_LIST", 1),
    ("05/26/04", "INVALID_OFFSET_ALIGNMENT", 1),
    ("05/26/08", "TOO_MANY_SEGMENT_DESCRIPTORS", 1),
    ("05/55/0C", "INVALID_DEVICE_REQUEST", 1),
    ("05/55/0D", "INVALID_DEVICE_REQUEST", 1),
    ("05/6F/00", "CSS_AUTHENTICATION_FAILURE", 1),
    ("05/6F/05", "CSS_RESETS_EXHAUSTED", 1),
    ("05/6F/77", "COPY_PROTECTION_FAILURE", 1),
    ("06/29/00", "IO_DEVICE_ERROR", 2),
    ("06/2A/09", "IO_DEVICE_ERROR", 2),
    ("06/3F/01", "IO_DEVICE_ERROR", 2),
    ("06/3F/0E", "IO_DEVICE_ERROR", 2),
    ("06/38/07", "IO_DEVICE_ERROR", 2),
    ("06/38/00", "IO_DEVICE_ERROR", 1),
    ("07/27/07", "DISK_RESOURCES_EXHAUSTED", 1),
    ("07/27/00", "IO_DEVICE_ERROR", 1),
    ("07/20/00", "ACCESS_DENIED", 1),
    ("08/00/00", "NO_DATA_DETECTED", 1),
    ("09/00/00", "IO_DEVICE_ERROR", 2),
    ("0A/0D/02", "IO_DEVICE_ERROR", 2),
    ("0A/26/08", "IO_DEVICE_ERROR", 2),
    ("0B/55/03", "INSUFFICIENT_RESOURCES", 1),
    ("0B/4B/00", "IO_DEVICE_ERROR", 2),
    ("0D/00/00", "IO_DEVICE_ERROR", 2),
    ("0E/1D/00", "IO_DEVICE_ERROR", 2),
)
"""Sense data of POPULATE TOKEN, NTSTATUS, and how often the command is sent: its budget is one retry."""


def sensed() -> list[Json]:
    """Each row of the table of sense data, and the statuses that have none."""
    found = []
    for codes, status, times in SENSE:
        key, asc, ascq = (int(code, 16) for code in codes.split("/"))
        found.append(_ended(codes.replace("/", "-").lower(), status, times, sense=fixed(key, asc, ascq)))
    return [
        *found,
        _ended("incorrect-length", "INVALID_BLOCK_LENGTH", 1, sense=fixed(0, 0, 0, bits=0x20)),
        _ended("descriptor-format", "INVALID_TOKEN", 1, sense=bytes.fromhex("7205230400000000")),
        _ended("deferred-error", "DEVICE_DATA_ERROR", 1, sense=b"\x71" + fixed(3, 0x11, 0)[1:]),
        _ended("eight-bytes", "INVALID_DEVICE_REQUEST", 1, sense=fixed(5, 0x23, 7)[:8]),
        _ended("none", "IO_DEVICE_ERROR", 2, scsi_status=2),
        _ended("reservation-conflict", "DEVICE_BUSY", 1, scsi_status=0x18),
        _ended("busy", "DEVICE_NOT_READY", 2, scsi_status=0x08),
        _ended("task-set-full", "IO_DEVICE_ERROR", 2, scsi_status=0x28),
        _ended("srb-busy", "IO_DEVICE_ERROR", 2, srb_status=5),
        _ended("srb-reset", "IO_DEVICE_ERROR", 2, srb_status="SRB_STATUS_BUS_RESET"),
        _ended("srb-aborted", "IO_TIMEOUT", 2, srb_status="SRB_STATUS_ABORTED"),
        _ended("srb-timeout", "IO_TIMEOUT", 2, srb_status="SRB_STATUS_TIMEOUT"),
        vector(
            "own-sense-not-started",
            read_input(ONE),
            [
                populate(4, BLOCKS, sense=fixed(2, 4, 2)),
                step(START_UNIT),
                populate(4, BLOCKS, sense=fixed(2, 4, 2)),
            ],
            expected("DEVICE_NOT_READY", information=536, pt_count=2),
        ),
    ]


def _ended(name: str, status: str, times: int, **others: Any) -> Json:
    wanted = expected(status, information=536, length_protected=0, token_length=0, pt_count=times)
    steps = [{**populate(4, BLOCKS), **_answer(others)} for _ in range(times)]
    return vector(f"own-sense-{name}", read_input(ONE), steps, wanted, bytes(20))


def _answer(others: dict[str, Any]) -> Json:
    sense = others.get("sense", b"")
    rest = {key: value for key, value in others.items() if key != "sense"}
    return {"sense_hex": sense.hex(), "scsi_status": 2 if sense else 0, **rest}
