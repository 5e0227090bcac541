"""Option strings in the manner of QEMU: `key=value,key=value`, a comma inside a value doubled.

Imports nothing of ours. `server/config.py` says which keys there are.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

T = TypeVar("T")
Options = dict[str, str]

_SIZE = re.compile(r"(\d+)([KMGT]?)(?:i?B)?", re.IGNORECASE)
_SHIFTS = {"": 0, "K": 10, "M": 20, "G": 30, "T": 40}
_SWITCH = {"on": True, "off": False}


class ConfigError(ValueError):
    """An option that cannot be understood, in one sentence for the user."""


def split_options(text: str) -> Options:
    """`a=1,b=2` as a mapping.

    Raises:
        ConfigError: a piece has no `=`, or a key comes twice.
    """
    options: Options = {}
    for piece in _pieces(text):
        key, equals, value = piece.partition("=")
        if not equals or not key:
            raise ConfigError(f"'{piece}' is not of the form key=value")
        if key in options:
            raise ConfigError(f"'{key}' is given twice")
        options[key] = value
    return options


def check_keys(options: Options, known: tuple[str, ...], required: tuple[str, ...]) -> None:
    """Refuse keys nobody knows, and the lack of those that must be there.

    Raises:
        ConfigError: names the key and the known ones.
    """
    for key in options:
        if key not in known:
            raise ConfigError(f"unknown key '{key}'; known keys are {', '.join(known)}")
    for key in required:
        if not options.get(key):
            raise ConfigError(f"'{key}=' is missing; known keys are {', '.join(known)}")


def parse_size(text: str) -> int:
    """`512`, `64K`, `10M`, `1G`, `2T` in bytes (powers of 1024).

    Raises:
        ConfigError: it is none of these, or 0.
    """
    match = _SIZE.fullmatch(text)
    size = int(match[1]) << _SHIFTS[match[2].upper()] if match else 0
    if not size:
        raise ConfigError(f"'{text}' is no size; write a number of bytes, or one with K, M, G or T behind it")
    return size


def parse_switch(text: str) -> bool:
    """`on` or `off`.

    Raises:
        ConfigError: it is neither.
    """
    if text not in _SWITCH:
        raise ConfigError(f"'{text}' is neither 'on' nor 'off'")
    return _SWITCH[text]


def parse_number(text: str, least: int, most: int) -> int:
    """A decimal number within limits.

    Raises:
        ConfigError: it is not.
    """
    if not re.fullmatch(r"\d{1,9}", text) or not least <= int(text) <= most:
        raise ConfigError(f"'{text}' is not a number from {least} to {most}")
    return int(text)


def get(options: Mapping[str, str], key: str, parse: Callable[[str], T], default: T) -> T:
    """The parsed value of a key, or the default if it is not there; errors name the key."""
    if key not in options:
        return default
    try:
        return parse(options[key])
    except ConfigError as error:
        raise ConfigError(f"{key}: {error}") from error


def _pieces(text: str) -> list[str]:
    """Cut at single commas; doubled ones become one."""
    pieces = [""]
    for run in re.findall(r",,|,|[^,]+", text):
        if run == ",":
            pieces.append("")
        else:
            pieces[-1] += "," if run == ",," else run
    return pieces
