"""Requests that were in flight together and touched the same blocks: what they came to may differ from run to run.

Imports nothing of ours but the step's type. Used by `script.py`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

    from qemu_odx.replay.script import Step

_WRITING: Final = (
    "WRITE",
    "OUT",
    "UNMAP",
    "DISCARD",
    "ORWRITE",
    "COMPARE AND WRITE",
    "EXTENDED COPY",
    "SANITIZE",
)


def writes(name: str) -> bool:
    """True if the operation changes blocks."""
    return name.startswith(_WRITING) and not name.startswith("WRITE BUFFER")


def mark_races(steps: Sequence[Step]) -> None:
    """Set `raced` of every step that another one overlaps in time and place, if one of them writes.

    Args:
        steps: in the order in which they were begun.
    """
    active: dict[str, list[Step]] = {}
    for step in steps:
        if not step.ranges:
            continue
        others = active.setdefault(step.record["disk"], [])
        others[:] = [other for other in others if other.finished > step.record["started"]]
        for other in others:
            if (writes(step.name) or writes(other.name)) and _meet(step.ranges, other.ranges):
                step.raced = other.raced = True
        others.append(step)


def _meet(some: list[tuple[int, int]], others: list[tuple[int, int]]) -> bool:
    return any(first < end and start < last for first, last in some for start, end in others)
