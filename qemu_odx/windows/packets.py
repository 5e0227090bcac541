"""Transfer packets: a command, sent again as often as its budget and the sense data allow.

Imports `port`, `sense_rules`, `wire`. Used by discovery and by both offload operations. A command that is sent again
is the same to the byte, list identifier included (xferpkt.c).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from qemu_odx.windows.sense_rules import OVERRUN, START_UNIT, blocks_written, rule_for
from qemu_odx.wire.dsm.ntstatus import NtStatus
from qemu_odx.wire.scsi.sense import FIXED_LENGTH

if TYPE_CHECKING:
    from collections.abc import Callable

    from qemu_odx.windows.port import Carrier, Completion
    from qemu_odx.windows.sense_rules import Rule

SENSE_KEPT = FIXED_LENGTH
"""Bytes of sense data that fit the driver's buffer (SENSE_DATA_EX)."""
_START_STOP_UNIT = bytes.fromhex("1b0000000100")
"""START STOP UNIT with START set (SBC-3 5.24)."""


@dataclass(frozen=True, slots=True)
class Packet:
    """The end of a packet.

    Attributes:
        status: NTSTATUS.
        exact: SRB_STATUS_SUCCESS: GOOD, and all data went.
        written: blocks that truncation sense data told of.
        data: data-in.
    """

    status: NtStatus
    exact: bool
    written: int = 0
    data: bytes = b""


@dataclass(slots=True)
class Packets:
    """Sends commands to one disk.

    Args:
        carry: takes them there.
        wait: lets the interval before a retry pass, in seconds.
        effects: what else Windows did because of an error, in words.
    """

    carry: Carrier
    wait: Callable[[float], None]
    effects: list[str] = field(default_factory=list)

    def send(self, cdb: bytes, data_out: bytes = b"", *, retries: int) -> Packet:
        """Send a command, and again up to `retries` times."""
        while True:
            done = self.carry(cdb, data_out)
            rule = _rule(done, data_out)
            if rule is None:
                return Packet(NtStatus.SUCCESS, exact=True, data=done.data)
            if rule.retry is None or not retries:
                kept = done.sense[:SENSE_KEPT]
                return Packet(rule.status, exact=False, written=blocks_written(kept), data=done.data)
            retries -= 1
            self._before_retry(rule)

    def _before_retry(self, rule: Rule) -> None:
        if rule.effect:
            self.effects.append(rule.effect)
        if rule.effect == START_UNIT:
            self.carry(_START_STOP_UNIT, b"")
        if rule.retry:
            self.wait(rule.retry)


def _rule(done: Completion, data_out: bytes) -> Rule | None:
    """As `rule_for`, with the sense data that is kept, and a residual of data-out (one as long as all is ignored)."""
    kept = type(done)(done.status, done.sense[:SENSE_KEPT], b"", done.residual, done.delivery)
    rule = rule_for(kept)
    if rule is None and 0 < done.residual < len(data_out):
        return OVERRUN
    return rule
