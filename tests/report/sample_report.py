"""A report with a bit of everything, for tests to look at."""

from __future__ import annotations

import math
import random
from datetime import UTC, datetime

from qemu_odx.report.model import Case, Digest, Log, Report, Sample, Span, Suite, Way

MIB = 1 << 20
OLD, NEW = "0f7b525f" * 8, "2e3f7809" * 8


def sample_report(*, failed: bool = False, log: str = "qemu-odx serve: front end came\n" * 40) -> Report:
    """A demonstration of 34 s with a trace; `failed`: the second device shows other data."""
    rng = random.Random(1)
    cases = [
        Case("the source was overwritten before the copy", seconds=0.4),
        Case("the data of before the overwrite arrived", seconds=0.127),
        Case("a snapshot by reflink", "skipped", message="the file system of the images has no reflinks"),
    ]
    wrong = Case(
        "virtio-blk shows the same", "failed", 0.2, "it shows other data", "at byte 50331648\nA != B"
    )
    cases.append(wrong if failed else Case("virtio-blk shows the same", seconds=0.2))
    reads = tuple(Sample("read 1 MiB", MIB, math.exp(rng.gauss(-6.5, 0.4))) for _ in range(64))
    writes = tuple(Sample("write 1 MiB", MIB, math.exp(rng.gauss(-6.2, 0.6))) for _ in range(64))
    token = (
        Sample("POPULATE TOKEN", 64 * MIB, 0.0021),
        Sample("WRITE USING TOKEN", 32 * MIB, 0.061),
        Sample("WRITE USING TOKEN", 32 * MIB, 0.058),
    )
    return Report(
        title="qemu-odx demo",
        verdict="The virtio-blk device shows other data than the SCSI device."
        if failed
        else "The data of before the overwrite arrived, by either device.",
        started=datetime(2026, 3, 1, 12, 30, 5, tzinfo=UTC),
        seconds=34.7,
        suites=(Suite("debian bookworm, kernel 6.1.0", tuple(cases), {"accelerator": "tcg"}),),
        spans=_spans(rng, failed=failed),
        ways=(
            Way("by token", 64 * MIB, 0.127, 1134, token),
            Way("by read and write", 64 * MIB, 0.196, 128 * MIB, reads + writes),
        ),
        digests=(
            Digest("source, when the token was made", OLD),
            Digest("source, overwritten before the copy", NEW),
            Digest("destination", OLD),
            Digest("destination by virtio-blk", NEW if failed else OLD),
        ),
        environment={"QEMU": "7.2.22", "host kernel": "Linux 6.1.0", "processors": "2", "Python": "3.11.2"},
        logs=(Log("serve.log", log), Log("serial.log", "LAB:ssh-ready\n"), Log("qemu.log", "")),
    )


def _spans(rng: random.Random, *, failed: bool) -> tuple[Span, ...]:
    phases = [("image", 0.0, 0.3), ("serve", 0.3, 0.9), ("boot", 1.2, 14.1), ("copy", 15.3, 18.0)]
    spans = [Span(name, name, start, seconds) for name, start, seconds in phases]
    spans.append(Span("power off", "power off", 33.3, 1.4, failed=failed))
    starts = sorted(rng.uniform(15.5, 33) for _ in range(900))
    spans += [Span("WRITE(16)", "WRITE(16)", start, 0.002, "command", "lun 0") for start in starts]
    spans.append(Span("token 1", "token 1", 19.0, 11.5, "token", "64 MiB of lun 0"))
    spans.append(Span("WRITE USING TOKEN", "WRITE USING TOKEN", 30.1, 0.061, "command", "lun 1"))
    return tuple(spans)
