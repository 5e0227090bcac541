"""Where in a TOML file each key is: tomllib reads values and keeps no places.

Imports nothing of ours. A scanner of lines, for files that tomllib has already accepted: it finds tables and keys
at the beginning of a line, which is all that an error has to point to.
"""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_PIECE = r"""(?:[A-Za-z0-9_-]+|"[^"]*"|'[^']*')"""
_DOTTED = rf"{_PIECE}(?:\s*\.\s*{_PIECE})*"
_TABLE = re.compile(rf"\s*\[(?P<many>\[?)\s*(?P<name>{_DOTTED})\s*\]")
_KEY = re.compile(rf"\s*(?P<name>{_DOTTED})\s*=")
_LONG_QUOTE = re.compile("\"\"\"|'''")

Path = tuple[str | int, ...]


def positions(text: str) -> dict[Path, int]:
    """Line numbers, from 1 on, by path: `("disk", "d0", "size")`; entries of `[[fault]]` are numbered from 0."""
    found: dict[Path, int] = {}
    table: Path = ()
    seen: Counter[Path] = Counter()
    for number, line in _lines_outside_texts(text):
        if header := _TABLE.match(line):
            table = _pieces(header["name"])
            if header["many"]:
                seen[table] += 1
                table = (*table, seen[table] - 1)
            for length in range(1, len(table) + 1):
                found.setdefault(table[:length], number)
        elif key := _KEY.match(line):
            path = (*table, *_pieces(key["name"]))
            for length in range(len(table) + 1, len(path) + 1):
                found.setdefault(path[:length], number)
    return found


def _lines_outside_texts(text: str) -> Iterator[tuple[int, str]]:
    """The lines that do not begin inside a text of several lines."""
    inside = False
    for number, line in enumerate(text.splitlines(), 1):
        if not inside:
            yield number, line
        if len(_LONG_QUOTE.findall(line)) % 2:
            inside = not inside


def _pieces(dotted: str) -> Path:
    return tuple(piece.strip("\"'") for piece in re.findall(_PIECE, dotted))
