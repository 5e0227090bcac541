"""Which bytes of the disks are known to be what they were: of the others nothing can be compared.

Imports `disk/ranges`, `races`. Unknown is what was on a disk before the recording if that is not in the trace, and
what requests left that raced, were aborted or were not replayed. It travels with tokens.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from qemu_odx.disk.ranges import RangeSet
from qemu_odx.replay.races import writes

if TYPE_CHECKING:
    from collections.abc import Iterable

    from qemu_odx.replay.script import Step

_KEEPS_UNKNOWN: Final = ("COMPARE AND WRITE", "ORWRITE")
"""What they leave depends on what was there."""


class Knowledge:
    """The unknown bytes of each disk, and of each token."""

    def __init__(self) -> None:
        self._disks: dict[str, RangeSet] = {}
        self._tokens: dict[str, RangeSet] = {}

    def forget(self, disk: str, first: int, end: int) -> None:
        """Nothing is known of these bytes."""
        self._of(disk).add(first, end)

    def learn(self, disk: str, first: int, end: int) -> None:
        """These bytes are known."""
        self._of(disk).remove(first, end)

    def knows(self, disk: str, ranges: Iterable[tuple[int, int]]) -> bool:
        """True if every byte is known."""
        return not any(self._of(disk).overlaps(first, end) for first, end in ranges)

    def unknown_of(self, step: Step) -> RangeSet:
        """The unknown bytes of the ranges that a request names, joined."""
        unknown, at = RangeSet(), 0
        for first, end in step.ranges:
            if step.raced:
                unknown.add(at, at + end - first)
            for start, stop in self._of(step.record["disk"]).within(first, end):
                unknown.add(at + start - first, at + stop - first)
            at += end - first
        return unknown

    def name_token(self, token: str, unknown: RangeSet) -> None:
        """A token stands for data of which these bytes are unknown."""
        self._tokens[token] = unknown

    def after(self, step: Step) -> None:
        """A request was replayed, or left out: what is known of what it wrote?"""
        if not writes(step.name) or not step.ranges:
            return
        disk = self._of(step.record["disk"])
        if step.name == "WRITE USING TOKEN":
            self._after_token(step, disk)
            return
        if step.name in _KEEPS_UNKNOWN and disk.overlaps(*step.ranges[0]):
            return
        for first, end in step.ranges:
            disk.remove(first, end)

    def lost(self, step: Step) -> None:
        """What it wrote may be anything: it raced, was aborted, or was not replayed."""
        if writes(step.name):
            for first, end in step.ranges:
                self._of(step.record["disk"]).add(first, end)

    def _after_token(self, step: Step, disk: RangeSet) -> None:
        fields = step.record.get("fields", {})
        source = self._tokens.get(fields.get("token", ""), RangeSet())
        at = fields.get("offset", 0) * step.record["block_size"]
        for first, end in step.ranges:
            disk.remove(first, end)
            for start, stop in list(source.within(at, at + end - first)):
                disk.add(first + start - at, first + stop - at)
            at += end - first

    def _of(self, disk: str) -> RangeSet:
        return self._disks.setdefault(disk, RangeSet())
