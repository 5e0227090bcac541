"""Rules and requests for the tests of faults."""

from __future__ import annotations

from qemu_odx.faults.event import Event, Level
from qemu_odx.faults.rule import Rule, parse_rule
from qemu_odx.server.options import split_options


def rule(text: str) -> Rule:
    """A rule as `serve --fault` reads it."""
    return parse_rule(split_options(text))


def scsi(operation: str, *runs: tuple[int, int], disk: str = "d0", cdb: str = "") -> Event:
    """A SCSI command to a disk of 512-byte blocks; `runs` in blocks."""
    in_bytes = [(lba * 512, blocks * 512) for lba, blocks in runs]
    return Event(
        Level.SCSI,
        operation,
        disk,
        frozenset({"s.sock", "/run/s.sock", "e0"}),
        bytes.fromhex(cdb),
        512,
        lambda: in_bytes,
    )


def blk(operation: str, *runs: tuple[int, int]) -> Event:
    """A virtio-blk request."""
    in_bytes = [(lba * 512, blocks * 512) for lba, blocks in runs]
    return Event(Level.BLK, operation, "d0", frozenset({"b.sock"}), b"", 512, lambda: in_bytes)
