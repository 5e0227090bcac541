"""The events of a vector: what happens to the reference target between commands.

May import `testing/conformance/reference`. Makers of vectors name the same event in different words; each row of the
table lists the words for one event, compared without case and punctuation.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from qemu_odx.tokens.token import Fault

if TYPE_CHECKING:
    from collections.abc import Callable

    from qemu_odx.testing.conformance.reference import ReferenceTarget
    from qemu_odx.testing.conformance.vector_file import Json

    Event = Callable[[ReferenceTarget, Json], None]

ATTENTION = frozenset({"nexus_loss", "lu_reset", "target_reset"})
"""Events that leave a unit attention behind."""


class EventError(Exception):
    """The step names no event that is known, or lacks what the event needs."""


def perform(reference: ReferenceTarget, step: Json) -> str:
    """Let the event of a step happen; its plain name.

    Raises:
        EventError: unknown, or incomplete.
    """
    words = _plain(step["event"])
    for name, (others, event) in _EVENTS.items():
        if words == name or words in others:
            event(reference, step)
            return name
    raise EventError(f"unknown event {step['event']!r}: use one of {', '.join(sorted(_EVENTS))}")


def _plain(words: str) -> str:
    return re.sub(r"[^a-z0-9]+", "_", words.lower()).strip("_")


def _number(step: Json, *keys: str) -> int | float:
    for key in keys:
        if isinstance(step.get(key), (int, float)):
            value: int | float = step[key]
            return value
    raise EventError(f"event {step['event']!r} lacks a number: give it as {keys[0]!r}")


def _lun(step: Json) -> int:
    return int(_number({"lun": 0, **step}, "lu", "lun"))


def _background(reference: ReferenceTarget, _: Json) -> None:
    reference.background.run_all()


def _advance(reference: ReferenceTarget, step: Json) -> None:
    if isinstance(step.get("ms"), (int, float)):
        reference.clock.advance(step["ms"] / 1000)
    else:
        reference.clock.advance(_number(step, "seconds", "secs", "sec", "s", "by", "delta", "dt"))


def _protect(reference: ReferenceTarget, step: Json) -> None:
    reference.protect(_lun(step), protected=bool(step.get("on", True)))


def _unprotect(reference: ReferenceTarget, step: Json) -> None:
    reference.protect(_lun(step), protected=False)


def _nexus_loss(reference: ReferenceTarget, step: Json) -> None:
    reference.nexus_loss(step.get("nexus", "I0"))


def _lu_reset(reference: ReferenceTarget, step: Json) -> None:
    reference.reset(_lun(step))


def _target_reset(reference: ReferenceTarget, _: Json) -> None:
    for lun in reference.target.luns():
        reference.reset(lun)


def _write(reference: ReferenceTarget, step: Json) -> None:
    """Somebody writes to a disk past every nexus: `data` as hexadecimal text, or `fill` as a byte or a character."""
    disk, lba = reference.disks[_lun(step)], int(_number(step, "lba"))
    data = next((bytes.fromhex(step[key]) for key in ("data", "hex", "data_out") if key in step), None)
    if data is None:
        fill, blocks = step.get("fill", 0), int(_number(step, "blocks", "count"))
        one = bytes((fill,)) if isinstance(fill, int) else str(fill).encode()[:1] or bytes(1)
        data = one * (blocks * disk.block_size)
    disk.write(lba * disk.block_size, [data])


def _unmap(reference: ReferenceTarget, step: Json) -> None:
    disk, lba = reference.disks[_lun(step)], int(_number(step, "lba"))
    blocks = int(_number(step, "blocks", "count"))
    disk.discard(lba * disk.block_size, blocks * disk.block_size)


def _revoke(reference: ReferenceTarget, _: Json) -> None:
    """The administrator revokes every token."""
    tokens = reference.target.manager.tokens
    for token in tokens:
        tokens.kill(token, Fault.REVOKED)


def _remove(reference: ReferenceTarget, step: Json) -> None:
    reference.target.remove(_lun(step), lambda _: None)
    reference.background.run_all()


_EVENTS: dict[str, tuple[frozenset[str], Event]] = {
    "background": (
        frozenset(
            {
                "run_background",
                "finish_background",
                "background_done",
                "background_finishes",
                "wait_background",
            }
        ),
        _background,
    ),
    "advance": (
        frozenset(
            {"advance_clock", "advance_time", "clock", "time", "time_passes", "sleep", "wait", "elapse"}
        ),
        _advance,
    ),
    "write_protect": (frozenset({"protect", "write_protect_on", "read_only", "readonly", "wp"}), _protect),
    "write_enable": (frozenset({"unprotect", "write_unprotect", "write_protect_off"}), _unprotect),
    "nexus_loss": (
        frozenset(
            {
                "nexus_lost",
                "i_t_nexus_loss",
                "it_nexus_loss",
                "i_t_nexus_lost",
                "i_t_nexus_reset",
                "nexus_reset",
                "i_t_nexus_loss_occurred",
                "logout",
                "disconnect",
            }
        ),
        _nexus_loss,
    ),
    "lu_reset": (
        frozenset({"lun_reset", "logical_unit_reset", "reset", "reset_lu", "reset_lun", "device_reset"}),
        _lu_reset,
    ),
    "target_reset": (frozenset({"hard_reset", "bus_reset"}), _target_reset),
    "write": (frozenset({"host_write", "overwrite", "write_blocks", "fill"}), _write),
    "unmap": (frozenset({"discard", "trim"}), _unmap),
    "revoke": (frozenset({"revoke_token", "revoke_tokens", "token_revoked"}), _revoke),
    "remove_lu": (frozenset({"lu_removed", "remove_lun", "lun_removed"}), _remove),
}
"""Plain name of an event: other words for it, and what it does."""
