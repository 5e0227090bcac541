"""One table of `odx.toml`: values taken by key and checked, errors with file, line and key.

May import: errors, config/positions.
"""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NoReturn

from qemu_odx.lab.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping
    from pathlib import Path as FilePath

    from qemu_odx.lab.config.positions import Path

_SIZE = re.compile(r"(\d+)([KMGT]?)(?:i?B)?", re.IGNORECASE)
_SHIFTS = {"": 0, "K": 10, "M": 20, "G": 30, "T": 40}
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,31}")


class LabFileError(UsageError):
    """Something in a lab's file is not as it must be.

    Attributes:
        file: the file.
        line: the line, from 1 on; 0 if the whole file is meant.
        key: the dotted key, empty if the whole file is meant.
    """

    def __init__(self, file: FilePath, line: int, key: str, problem: str, cure: str) -> None:
        place = f"{file}:{line}" if line else str(file)
        super().__init__(f"{place}: {key}: {problem}" if key else f"{place}: {problem}", cure)
        self.file, self.line, self.key = file, line, key
        self.problem = problem

    def as_json(self) -> dict[str, Any]:
        """The object that `qemu-odx config check --json` prints of it."""
        return {
            "file": str(self.file),
            "line": self.line,
            "key": self.key,
            "problem": self.problem,
            "cure": self.cure,
        }


@dataclass(frozen=True, slots=True)
class Table:
    """A table and where it is."""

    file: FilePath
    lines: Mapping[Path, int]
    path: Path
    data: Mapping[str, Any]

    def fail(self, key: str | int | None, problem: str, cure: str) -> NoReturn:
        """Raise LabFileError for a key of this table, or for the table itself."""
        path = self.path if key is None else (*self.path, key)
        known = next((path[:end] for end in range(len(path), 0, -1) if path[:end] in self.lines), ())
        raise LabFileError(self.file, self.lines.get(known, 0), ".".join(map(str, path)), problem, cure)

    def known(self, keys: Collection[str]) -> None:
        """Refuse keys nobody knows."""
        for key in self.data:
            if key not in keys:
                close = difflib.get_close_matches(key, keys, 1)
                cure = f"did you mean '{close[0]}'?" if close else f"the keys are {', '.join(keys)}"
                self.fail(key, "unknown key", cure)

    def tables(self, key: str) -> Iterator[tuple[str, Table]]:
        """The named tables below a key, such as `[disk.NAME]`."""
        for name, data in self._table_of(key).items():
            if not NAME.fullmatch(name):
                self.below(key, {}).fail(
                    name, "is no name", "take up to 32 letters, digits, '.', '_' and '-'"
                )
            if not isinstance(data, dict):
                self.below(key, {}).fail(name, "is no table", f"write [{key}.{name}]")
            yield name, self.below(key, {}).below(name, data)

    def _table_of(self, key: str) -> Mapping[str, Any]:
        value = self.data.get(key, {})
        if not isinstance(value, dict):
            self.fail(key, "is no table", f"write [{key}.NAME]")
        return value

    def array(self, key: str) -> Iterator[Table]:
        """The tables of `[[key]]`."""
        value = self.data.get(key, [])
        if not isinstance(value, list) or not all(isinstance(entry, dict) for entry in value):
            self.fail(key, "is no list of tables", f"write [[{key}]]")
        for number, entry in enumerate(value):
            yield replace(self, path=(*self.path, key, number), data=entry)

    def below(self, key: str, data: Mapping[str, Any]) -> Table:
        """The table at a key."""
        return replace(self, path=(*self.path, key), data=data)

    def text(self, key: str, default: str) -> str:
        """A text."""
        value = self.data.get(key, default)
        if not isinstance(value, str):
            self.fail(key, f"{value!r} is no text", "put it in quotes")
        return value

    def choice(self, key: str, among: Collection[str], default: str) -> str:
        """One of some texts."""
        value = self.text(key, default)
        if value not in among:
            self.fail(key, f"'{value}' is unknown", f"take one of {', '.join(among)}")
        return value

    def number(self, key: str, default: int, least: int, most: int) -> int:
        """A whole number."""
        value = self.data.get(key, default)
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
            self.fail(key, f"{value!r} is out of range", f"take a number from {least} to {most}")
        return value

    def size(self, key: str) -> int:
        """Bytes: a number, or a text such as "512M"."""
        value = self.data[key]
        match = _SIZE.fullmatch(value) if isinstance(value, str) else None
        size = int(match[1]) << _SHIFTS[match[2].upper()] if match else value
        if not isinstance(size, int) or isinstance(size, bool) or size <= 0:
            self.fail(
                key, f"{value!r} is no size", 'take a number of bytes, or a text such as "512M" or "1G"'
            )
        return size

    def texts(self, key: str, default: tuple[str, ...]) -> tuple[str, ...]:
        """A list of texts, none twice."""
        value = self.data.get(key, list(default))
        if not isinstance(value, list) or not all(isinstance(entry, str) for entry in value):
            self.fail(key, "is no list of texts", 'write ["one", "two"]')
        if len(set(value)) < len(value):
            self.fail(key, "names one twice", "take the second one out")
        return tuple(value)

    def option(self, key: str) -> str:
        """A value as the server's command line has it: `on` for true, lists joined by `+`."""
        value = self.data[key]
        if isinstance(value, bool):
            return "on" if value else "off"
        if isinstance(value, int | float | str):
            return str(value)
        if not isinstance(value, list) or not all(isinstance(entry, str) for entry in value):
            self.fail(key, "is neither text, number, true, false nor a list of texts", "write one of these")
        return "+".join(value)
