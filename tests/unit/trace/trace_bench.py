"""A recorder at the gates of two devices, and the records it makes."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from qemu_odx.trace.recorder import Recorder
from qemu_odx.trace.sink import Sink

if TYPE_CHECKING:
    from pathlib import Path

    from qemu_odx.trace.schema import Record

HEAD = {
    "exports": [
        {"id": "s.sock", "type": "vhost-user-scsi", "luns": {"0": "d0"}},
        {"id": "b.sock", "type": "vhost-user-blk", "disk": "d0"},
    ],
    "disks": [{"id": "d0", "size": 4096 * 512, "block_size": 512}],
}


def recorder(path: Path, clock: Any = lambda: 0.0, **options: Any) -> Recorder:
    """One that writes to a file."""
    return Recorder(Sink(path), clock, head=HEAD, wall=lambda: 1.7e9 + clock(), **options)


def read(path: Path) -> list[Record]:
    """Every record of a file."""
    return [json.loads(line) for line in path.read_text().splitlines()]


def requests(path: Path) -> list[Record]:
    """Every request."""
    return [record for record in read(path) if record["event"] == "request"]
