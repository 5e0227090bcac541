"""What a vector expects, and whether it came.

Imports the model's values. Each expectation is a row: its key in the file, and what the model has for it. Words that
a file uses for people are left alone; other keys that nobody here knows are told, not passed over in silence.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from qemu_odx.windows.check.scene import count
from qemu_odx.windows.check.script import MismatchError
from qemu_odx.windows.commands import POPULATE, RECEIVE, WRITE
from qemu_odx.windows.discovery import THIRD_PARTY
from qemu_odx.wire.dsm.ntstatus import NtStatus, Win32
from qemu_odx.wire.dsm.structures import OffloadReadOutput, OffloadWriteOutput
from qemu_odx.wire.scsi.fields import u16

if TYPE_CHECKING:
    from collections.abc import Callable

    from qemu_odx.windows.check.vector_file import Vector
    from qemu_odx.windows.discovery import Discovery
    from qemu_odx.windows.request import IoStatus

_FOR_PEOPLE = frozenset({"notes", "note", "why", "effect", "comment", "text"})
_ENABLED = re.compile(r"\bODX(?:\s+(?:is|stays|remains|still))*\s+(?:on|enabled)\b", re.IGNORECASE)
_DISABLED = re.compile(
    r"\b(?:off|disable[sd]?|never|not|no|cleare?[sd]?|refused|rejected|ignored|stops?|without|unsupported)\b|NOT_SUPPORTED",
    re.IGNORECASE,
)
_GOES_ON = re.compile(r"\b(?:enabled|goes on|reads?|accepted|cached)\b", re.IGNORECASE)
_ABOUT_ODX = re.compile(r"\bODX\b|\b8Fh\b|\boffload|\b(?:en|dis)abled\b|_FEATURE_", re.IGNORECASE)
_ABOUT_QERR = re.compile(r"\bQERR\b|\bMODE SELECT\b", re.IGNORECASE)
"""Such an effect is judged by the steps: MODE SELECT is among them or is not."""
_PAGE = re.compile(r"\b([0-9A-F]{2})h\b")
_CACHED: dict[str, Callable[[Discovery], Any]] = {
    "MaximumRangeDescriptors": lambda d: d.limits and d.limits.max_ranges,
    "MaximumInactivityTimer": lambda d: d.limits and d.limits.max_inactivity,
    "DefaultInactivityTimer": lambda d: d.limits and d.limits.default_inactivity,
    "MaximumTokenTransferSize": lambda d: d.limits and d.limits.max_token_blocks,
    "OptimalTransferCount": lambda d: d.limits and d.limits.optimal_blocks,
    "MaximumTransferLength": lambda d: d.block_limits and d.block_limits.max_transfer,
    "OptimalTransferLength": lambda d: d.block_limits and d.block_limits.optimal_transfer,
    "OptimalTransferLengthGranularity": lambda d: d.block_limits and d.block_limits.granularity,
}
"""Fields as classpnp.h names them."""


def judge_request(vector: Vector, end: IoStatus, sent: list[bytes]) -> str:
    """Hold the end of a request against the vector; returns what could not be judged.

    Raises:
        MismatchError: the first difference.
    """
    _compare(vector.expected, _facts(end, sent))
    if vector.expected.get("ntstatus") is None and vector.expected.get("ntstatus_value") is None:
        raise MismatchError('the vector expects no "ntstatus": give one')
    _compare_output(vector.output, end.output)
    return _unjudged(vector.expected, set(_facts(end, sent)))


def _facts(end: IoStatus, sent: list[bytes]) -> dict[str, Any]:
    read = OffloadReadOutput.parse(end.output.ljust(OffloadReadOutput.SIZE, b"\0"))
    write = OffloadWriteOutput.parse(end.output.ljust(OffloadWriteOutput.SIZE, b"\0"))
    return {
        "ntstatus": end.status.label,
        "ntstatus_value": int(end.status),
        "win32": end.status.win32,
        "information": end.information,
        "length_protected": read.length_protected,
        "token_length": read.token_length,
        "offload_read_flags": read.flags,
        "length_copied": write.length_copied,
        "offload_write_flags": write.flags,
        "pt_count": count(sent, POPULATE),
        "wut_count": count(sent, WRITE),
        "rrti_count": count(sent, RECEIVE),
    }


def _compare(expected: dict[str, Any], facts: dict[str, Any]) -> None:
    for key, found in facts.items():
        if key in expected and _value(expected[key]) != _value(found):
            raise MismatchError(f"{key} is {_shown(key, found)}, expected {expected[key]}")


def _value(value: Any) -> Any:
    """A number, whether it is written as one, as hexadecimal text or by name."""
    if not isinstance(value, str):
        return None if value is None else int(value)
    text = value.strip()
    if text.startswith(("0x", "0X")):
        return int(text, 16)
    for names, prefix in ((NtStatus.__members__, "STATUS_"), (Win32.__members__, "ERROR_")):
        if text.startswith(prefix) and text.removeprefix(prefix) in names:
            return int(names[text.removeprefix(prefix)])
    return int(text) if text.isdigit() else text


def _shown(key: str, found: Any) -> str:
    return f"{found:#010x}" if key == "ntstatus_value" else str(found)


def _compare_output(wanted: bytes, output: bytes) -> None:
    got = output[: len(wanted)]
    if got != wanted:
        at = next(
            (i for i, pair in enumerate(zip(got, wanted, strict=False)) if len(set(pair)) > 1), len(got)
        )
        raise MismatchError(
            f"output byte {at} differs: {got[at : at + 8].hex()}, expected {wanted[at : at + 8].hex()}"
        )


def _unjudged(expected: dict[str, Any], known: set[str]) -> str:
    others = sorted(set(expected) - known - _FOR_PEOPLE)
    return f"not judged: {', '.join(others)}" if others else ""


def judge_start(vector: Vector, known: Discovery, sent: list[bytes]) -> str:
    """Hold what came of device start against the vector; returns what could not be judged.

    Raises:
        MismatchError: the first difference.
    """
    status = NtStatus.SUCCESS if known.on else NtStatus.DEVICE_FEATURE_NOT_SUPPORTED
    page = known.raw.get(THIRD_PARTY, b"")
    facts = {
        "ntstatus": status.label,
        "ntstatus_value": int(status),
        "enabled": known.on,
        "odx": known.on,
        "page_length": u16(page, 2) if len(page) >= 4 else None,
        "qerr": known.qerr,
    }
    _compare(vector.expected, facts)
    kept = _compare_cached(vector.expected, known)
    told = _compare_effect(str(vector.expected.get("effect", "")), known, sent)
    return "; ".join(filter(None, (kept, told, _unjudged(vector.expected, {*facts, "cached"}))))


def _compare_cached(expected: dict[str, Any], known: Discovery) -> str:
    """Fields of classpnp.h; returns the names of those that this model does not keep."""
    cached = expected.get("cached", {})
    if "cached" in expected and not cached and known.on:
        raise MismatchError("limits are cached, expected none")
    for name, value in (cached or {}).items():
        found = _CACHED[name](known) if name in _CACHED else value
        if found != value:
            raise MismatchError(f"{name} is {found}, expected {value}")
    others = sorted(set(cached or {}) - set(_CACHED))
    return f"not judged: cached {', '.join(others)}" if others else ""


def _compare_effect(effect: str, known: Discovery, sent: list[bytes]) -> str:
    """`effect` is prose: whether ODX is on can be told from it, and which pages are read next."""
    if not effect or _ABOUT_QERR.search(effect):
        return ""
    on = _is_on(effect)
    if on is None:
        return f'the words "{effect}" were not judged'
    if on != known.on:
        why = f" ({known.against.page}: {known.against.found})" if known.against else ""
        raise MismatchError(f"ODX is {'on' if known.on else 'off'}{why}, expected: {effect}")
    pages = [int(code, 16) for code in _PAGE.findall(effect)]
    if "goes on to read" in effect.lower() and pages:
        asked = [cdb[2] for cdb in sent if cdb[0] == 0x12 and cdb[2]]
        if asked[: len(pages)] != pages:
            raise MismatchError(f"pages {bytes(asked).hex(' ')} are read, expected: {effect}")
    return ""


def _is_on(effect: str) -> bool | None:
    if _ENABLED.search(effect):
        return True
    if not _ABOUT_ODX.search(effect):
        return None
    if _DISABLED.search(effect):
        return False
    return True if _GOES_ON.search(effect) else None
