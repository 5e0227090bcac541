"""A fault rule from its options: `op=read,lba=100-199,nth=3,action=sense,sense=unrecovered-read-error`.

Imports the other modules of `faults`. Option strings are cut by `server/options.py`. Next: `book.py`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeVar

from qemu_odx.faults.actions import ACTIONS, BLK_STATUSES, ERRNOS, STATUSES, Action
from qemu_odx.faults.errors import FaultRuleError
from qemu_odx.faults.match import Match, When
from qemu_odx.faults.operations import AT_LEVEL, parse_operations
from qemu_odx.faults.senses import parse_sense, slug

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

T = TypeVar("T")

MATCH_KEYS: Final = ("op", "disk", "export", "cdb", "mask", "lba")
WHEN_KEYS: Final = ("after", "nth", "every", "count", "probability", "seed")
RULE_KEYS: Final = ("name", "action", "armed", *MATCH_KEYS, *WHEN_KEYS)
"""Keys of every rule; its action brings more."""
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
_MOST: Final = 1 << 63


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule.

    Attributes:
        name: what it is called by; "" lets the book choose.
        match: which requests.
        when: which of them in turn.
        action: what happens to those.
        armed: whether it is in force from the start.
        text: how it was written, without the name.
    """

    name: str
    match: Match
    when: When
    action: Action
    armed: bool = True
    text: str = ""


def parse_rule(options: Mapping[str, str]) -> Rule:
    """A rule from its keys and values.

    Raises:
        FaultRuleError: one sentence that names the key and the cure.
    """
    action_name = _action_name(options)
    kind = ACTIONS[action_name]
    _check_keys(options, (*RULE_KEYS, *kind.options), kind.required, action_name)
    action = _action(action_name, options)
    name = options.get("name", "")
    if name and not _NAME.fullmatch(name):
        raise FaultRuleError(f"name: '{name}' may hold letters, digits, '.', '_' and '-' only")
    written = ",".join(f"{key}={value.replace(',', ',,')}" for key, value in options.items() if key != "name")
    armed = _get(options, "armed", _switch, True)
    return Rule(name, _match(options, action), _when(options), action, armed, written)


def _action_name(options: Mapping[str, str]) -> str:
    """`action=`, which a `sense=` alone may stand for."""
    name = options.get("action", "sense" if "sense" in options else "")
    if name not in ACTIONS:
        said = f"'{name}' is no action" if name else "'action=' is missing"
        raise FaultRuleError(f"{said}; actions are {', '.join(ACTIONS)}")
    return name


def _check_keys(
    options: Mapping[str, str], known: tuple[str, ...], required: tuple[str, ...], action: str
) -> None:
    for key in options:
        if key not in known:
            raise FaultRuleError(
                f"unknown key '{key}'; with action={action} known keys are {', '.join(known)}"
            )
    for key in required:
        if not options.get(key):
            raise FaultRuleError(f"action={action} needs '{key}='")


def _match(options: Mapping[str, str], action: Action) -> Match:
    cdb = _get(options, "cdb", _hexadecimal, b"")
    mask = _get(options, "mask", _hexadecimal, b"\xff" * len(cdb))
    if len(mask) != len(cdb):
        raise FaultRuleError(f"mask: it has {len(mask)} bytes, and cdb= has {len(cdb)}: give as many")
    return Match(
        operations=_operations(options.get("op", ""), action),
        disk=options.get("disk", ""),
        export=options.get("export", ""),
        cdb=cdb,
        mask=mask,
        lba=_get(options, "lba", _range, None),
    )


def _operations(words: str, action: Action) -> frozenset[str]:
    """What `op=` names, as far as the action can happen to it; what the action means without."""
    kind = ACTIONS[action.name]
    only = "disk-write" if action.outgoing else kind.only
    if not words:
        usual = only or kind.operations
        return parse_operations(usual) if usual else frozenset()
    possible = (
        parse_operations(only)
        if only
        else frozenset[str]().union(*(AT_LEVEL[level] for level in action.levels))
    )
    found = parse_operations(words) & possible
    if not found:
        where = (
            only or f"what is met at the {' or '.join(sorted(level.value for level in action.levels))} level"
        )
        raise FaultRuleError(f"op: action={action.name} can happen to {where}, and '{words}' is none of it")
    return found


def _when(options: Mapping[str, str]) -> When:
    return When(
        after=_get(options, "after", _number, 0),
        nth=_get(options, "nth", _count, None),
        every=_get(options, "every", _count, 1),
        count=_get(options, "count", _count, None),
        probability=_get(options, "probability", _probability, 1.0),
        seed=_get(options, "seed", _number, 0),
    )


def _action(name: str, options: Mapping[str, str]) -> Action:
    sense = None
    if "sense" in options:
        sense = parse_sense(options["sense"], options.get("key"))
        if "information" in options:
            sense = sense.told(_get(options, "information", _number32, 0))
    elif "key" in options:
        raise FaultRuleError("'key=' changes the sense key of 'sense=', which is missing")
    statuses = BLK_STATUSES if name == "blk-status" else STATUSES
    return Action(
        name,
        after=_get(options, "when", _one_of({"before": False, "after": True}), False),
        sense=sense,
        status=_get(options, "status", _one_of(statuses), 0),
        blocks=_get(options, "blocks", _number, 0),
        seconds=_get(options, "seconds", _seconds, 0.0),
        byte=_get(options, "byte", _number, None),
        bit=_get(options, "bit", _one_of({str(bit): bit for bit in range(8)}), None),
        outgoing=_get(options, "way", _one_of({"in": False, "out": True}), False),
        length=_get(options, "bytes", _number, 0),
        silent=_get(options, "report", _one_of({"error": False, "ok": True}), False),
        error=_get(options, "errno", _one_of(ERRNOS), ERRNOS["EIO"]),
    )


def _get(options: Mapping[str, str], key: str, parse: Callable[[str], T], default: Any) -> Any:
    """The parsed value of a key, or the default if it is not there; errors name the key."""
    if key not in options:
        return default
    try:
        return parse(options[key])
    except FaultRuleError as error:
        raise FaultRuleError(f"{key}: {error}") from error


def _one_of(values: Mapping[str, T]) -> Callable[[str], T]:
    """Parses one of some words, whose case and dashes do not matter."""
    by_slug = {slug(word): value for word, value in values.items()}

    def parse(text: str) -> T:
        if slug(text) not in by_slug:
            raise FaultRuleError(f"'{text}' is not one of {', '.join(values)}")
        return by_slug[slug(text)]

    return parse


_switch = _one_of({"on": True, "off": False})


def _number(text: str) -> int:
    if not re.fullmatch(r"\d{1,19}", text) or int(text) >= _MOST:
        raise FaultRuleError(f"'{text}' is no number")
    return int(text)


def _number32(text: str) -> int:
    if _number(text) > 0xFFFFFFFF:
        raise FaultRuleError(f"'{text}' does not fit into 32 bits, which is what fixed-format sense data has")
    return int(text)


def _count(text: str) -> int:
    if not _number(text):
        raise FaultRuleError("it is counted from 1")
    return int(text)


def _seconds(text: str) -> float:
    if not re.fullmatch(r"\d{1,9}(\.\d{1,9})?", text):
        raise FaultRuleError(f"'{text}' is no number of seconds: write 2 or 0.25")
    return float(text)


def _probability(text: str) -> float:
    if not re.fullmatch(r"[01](\.\d{1,17})?|\.\d{1,17}", text) or float(text) > 1:
        raise FaultRuleError(f"'{text}' is no probability: write a number from 0 to 1, such as 0.1")
    return float(text)


def _hexadecimal(text: str) -> bytes:
    try:
        return bytes.fromhex(text)
    except ValueError:
        raise FaultRuleError(f"'{text}' is not made of bytes in hexadecimal, such as 83 11") from None


def _range(text: str) -> tuple[int, int]:
    first, dash, last = text.partition("-")
    low = _number(first)
    high = _number(last) if dash else low
    if high < low:
        raise FaultRuleError(f"'{text}' ends before it begins")
    return low, high
