"""Numbers by their names, for people: traces, messages, reports. Imports nothing of ours."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from enum import IntEnum


def name_of(kind: type[IntEnum], value: int, digits: int = 2) -> str:
    """A member's name with spaces; a number without one as "99h", in so many digits."""
    try:
        return kind(value).name.replace("_", " ")
    except ValueError:
        return f"{value:0{digits}X}h"


def bits(word: int, names: Mapping[int, str]) -> list[str]:
    """The bits that are set, lowest first, by name or as "bit 33"."""
    return [names.get(bit, f"bit {bit}") for bit in range(word.bit_length()) if word >> bit & 1]
