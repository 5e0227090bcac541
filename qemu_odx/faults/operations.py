"""The operations that a rule can name with `op=`: SCSI commands, virtio-blk requests, task management, disk accesses.

Imports `wire`. Names are those of the standards; case, dashes, blanks and brackets do not matter when they are
read: `WRITE USING TOKEN` and `write-using-token` are the same. Groups stand for several.
"""

from __future__ import annotations

from typing import Final

from qemu_odx.faults.errors import FaultRuleError
from qemu_odx.faults.event import Level
from qemu_odx.faults.senses import slug
from qemu_odx.wire.scsi.opcodes import OPERATIONS
from qemu_odx.wire.virtio.blk import RequestType
from qemu_odx.wire.virtio.scsi import TaskManagement

DISK_OPERATIONS: Final = (
    "disk-read",
    "disk-write",
    "disk-flush",
    "disk-discard",
    "disk-write-zeroes",
    "disk-snapshot",
    "snapshot-keep",
)
"""Accesses to a disk. `disk-snapshot`: a token is made. `snapshot-keep`: old data that a token protects are put aside
before a write (copy-before-write)."""

_SCSI: Final = tuple(row.name for row in OPERATIONS)
_BLK: Final = tuple(kind.name for kind in RequestType)
_CONTROL: Final = tuple(function.name.replace("_", " ") for function in TaskManagement)
NAMES: Final[dict[str, str]] = {slug(name): name for name in (*_SCSI, *_BLK, *_CONTROL, *DISK_OPERATIONS)}
"""Every operation's name by its slug."""


AT_LEVEL: Final[dict[Level, frozenset[str]]] = {
    Level.SCSI: frozenset(_SCSI),
    Level.BLK: frozenset(_BLK),
    Level.CONTROL: frozenset(_CONTROL),
    Level.DISK: frozenset(DISK_OPERATIONS),
}
"""Where each operation is met."""


def _starting(*beginnings: str) -> frozenset[str]:
    return frozenset(name for name in _SCSI if name.startswith(beginnings))


_READS: Final = frozenset(name for name in _SCSI if name.startswith("READ(")) | {"IN", "disk-read"}
_WRITES: Final = frozenset(name for name in _SCSI if name.startswith(("WRITE(", "WRITE AND VERIFY(")))
_ZEROING: Final = _starting("UNMAP", "WRITE SAME(") | {"DISCARD", "WRITE_ZEROES"}

GROUPS: Final[dict[str, frozenset[str]]] = {
    "read": _READS,
    "write": _WRITES | {"OUT", "disk-write"},
    "flush": _starting("SYNCHRONIZE CACHE(") | {"FLUSH", "disk-flush"},
    "zero": _ZEROING | {"disk-discard", "disk-write-zeroes"},
    "token": frozenset({"POPULATE TOKEN", "WRITE USING TOKEN"}),
    "copy": _starting("POPULATE TOKEN", "WRITE USING TOKEN", "EXTENDED COPY("),
    "copy-result": _starting("RECEIVE ROD TOKEN INFORMATION", "RECEIVE COPY ", "REPORT ALL ROD TOKENS"),
    "inquiry": frozenset({"INQUIRY"}),
    "reset": frozenset({"LOGICAL UNIT RESET", "I T NEXUS RESET"}),
    "abort": frozenset({"ABORT TASK", "ABORT TASK SET", "CLEAR TASK SET"}),
}
"""Words for several operations, at every level."""


def parse_operations(text: str) -> frozenset[str]:
    """Operations and groups, several with `+` between them; their standard names.

    Raises:
        FaultRuleError: one of them is unknown; what looks alike is in the text.
    """
    found: set[str] = set()
    for word in text.split("+"):
        key = slug(word)
        if key in GROUPS:
            found |= GROUPS[key]
        elif key in NAMES:
            found.add(NAMES[key])
        else:
            near = [name for name in NAMES.values() if key and (key in slug(name) or slug(name) in key)]
            raise FaultRuleError(
                f"op: '{word}' is no operation; {f'did you mean {chr(44).join(near)}? ' if near else ''}"
                f"groups are {', '.join(GROUPS)}, single ones have the standard's name (WRITE USING TOKEN)"
            )
    return frozenset(found)
