"""A stream of bytes cut into JSON objects, whatever comes and however it is cut.

Pure. QMP clients need not send lines, so an object ends where its brackets do. What is no object is dropped to
the end of its line: a client that lost its way finds it again there. Next: `server/monitor/conversation.py`.
"""

from __future__ import annotations

import json
import re
from typing import NoReturn

MAX_OBJECT = 1 << 20
"""Bytes of the longest object."""
MAX_DEPTH = 128
"""Brackets inside of each other."""

_OUTSIDE = re.compile(rb'[\[\]{}"\n]')
_INSIDE_STRING = re.compile(rb'["\\\n]')
_LINE_END = re.compile(rb"\n")
_BLANK = b" \t\r\n"


class JsonError(ValueError):
    """What came is no JSON object: one sentence for the client."""


class TooLongError(JsonError):
    """Longer than anything we take: there is no telling where it would end."""


class JsonStream:
    """Takes bytes, gives objects.

    Memory is bounded by `MAX_OBJECT` and what is fed at once; time is linear in what is fed.
    """

    def __init__(self) -> None:
        self._data = bytearray()
        self._seen = self._depth = 0
        self._in_string = self._too_deep = False

    def feed(self, data: bytes) -> None:
        """More bytes."""
        self._data += data

    def take(self) -> dict[str, object] | JsonError | None:
        """The next object that has come to its end, or what was wrong instead; None if more bytes are needed.

        After a `TooLongError` nothing useful comes any more.
        """
        while (end := self._end_of_piece()) is not None:
            piece, too_deep = bytes(self._data[:end]), self._too_deep
            del self._data[:end]
            self._begin()
            if too_deep:
                return JsonError(f"more than {MAX_DEPTH} brackets inside of each other")
            if piece.strip(_BLANK):
                return _parsed(piece)
        if self._too_deep:
            self._data.clear()
            self._seen = 0
        elif len(self._data) > MAX_OBJECT:
            self._data.clear()
            self._begin()
            return TooLongError(f"longer than {MAX_OBJECT} bytes")
        return None

    def _begin(self) -> None:
        self._seen = self._depth = 0
        self._in_string = self._too_deep = False

    def _end_of_piece(self) -> int | None:
        """Where the first piece ends: an object, or a line without one."""
        while found := self._form().search(self._data, self._seen):
            mark = found.group()
            if mark == b"\\" and found.end() == len(self._data):
                self._seen = found.start()  # what it escapes is still to come
                return None
            self._seen = found.end()
            if self._ends(mark):
                return self._seen
        self._seen = len(self._data)
        return None

    def _form(self) -> re.Pattern[bytes]:
        """What is worth a look now."""
        if self._too_deep:
            return _LINE_END
        return _INSIDE_STRING if self._in_string else _OUTSIDE

    def _ends(self, mark: bytes) -> bool:
        """Take note of a mark; True if a piece ends with it."""
        if mark == b"\n":
            return self._depth == 0 or self._in_string or self._too_deep
        if mark == b"\\":
            self._seen += 1
        elif mark == b'"':
            self._in_string = not self._in_string
        elif mark in b"{[":
            self._depth += 1
            self._too_deep = self._depth > MAX_DEPTH
        else:
            self._depth -= 1
            return self._depth <= 0
        return False


def _parsed(piece: bytes) -> dict[str, object] | JsonError:
    try:
        value = json.loads(piece.decode(), object_pairs_hook=_without_twins, parse_constant=_refuse_constant)
    except JsonError as error:
        return error
    except UnicodeDecodeError:
        return JsonError("this is no UTF-8")
    except (ValueError, RecursionError):
        return JsonError("this is no JSON")
    return value if isinstance(value, dict) else JsonError("a JSON object is expected, like {...}")


def _without_twins(pairs: list[tuple[str, object]]) -> dict[str, object]:
    made = dict(pairs)
    if len(made) != len(pairs):
        raise JsonError("a member is there twice")
    return made


def _refuse_constant(name: str) -> NoReturn:
    raise JsonError(f"{name} is no number in JSON")
