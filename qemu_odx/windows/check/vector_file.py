"""Files of Windows vectors: read, and checked for shape before anything runs.

Imports nothing of ours. Next: `replay.py`. Keys that are not known here are left alone: files of other makers work as
long as the bytes are where they belong.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

Json = dict[str, Any]
"""An object as it stands in the file."""

_HEX = ("ioctl_in_hex", "ioctl_out_hex")
_STEP_HEX = ("cdb_hex", "param_hex", "response_hex", "sense_hex")


class VectorFileError(Exception):
    """The file cannot be used; the text names the place and the cure."""


@dataclass(frozen=True, slots=True)
class Step:
    """One SCSI exchange; `raw` is the object in the file."""

    cdb: bytes
    data_out: bytes
    data_in: bytes
    sense: bytes
    raw: Json


@dataclass(frozen=True, slots=True)
class Vector:
    """A vector.

    Attributes:
        name: unique in its file.
        code: control code, None for a vector of device start.
        data: input buffer.
        output: what the output buffer begins with.
        steps: exchanges, in order.
        device, expected: objects of the file.
        raw: all of it.
    """

    name: str
    code: int | None
    data: bytes
    output: bytes
    steps: tuple[Step, ...]
    device: Json
    expected: Json
    raw: Json

    @property
    def words(self) -> str:
        """Name and notes: some files say only there what a request's surroundings are."""
        return f"{self.raw.get('notes', '')} {self.expected.get('notes', '')} {self.name}"


def load(path: Path) -> list[Vector]:
    """Read a vector file.

    Raises:
        VectorFileError: unreadable, not JSON, or of another shape.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise VectorFileError(f"{path}: {error.strerror}: give the path of a vector file") from error
    except UnicodeDecodeError as error:
        raise VectorFileError(f"{path}: not UTF-8 text: give a JSON file of vectors") from error
    except (json.JSONDecodeError, RecursionError) as error:
        raise VectorFileError(f"{path}: not JSON ({error}): correct it there") from error
    try:
        return parse(content)
    except VectorFileError as error:
        raise VectorFileError(f"{path}: {error}") from error


def parse(content: object) -> list[Vector]:
    """The vectors of a file's content.

    Raises:
        VectorFileError: of another shape; the text names the key.
    """
    vectors = content.get("vectors") if isinstance(content, dict) else content
    if not isinstance(vectors, list):
        raise VectorFileError('there is no list "vectors": make the file an object with one')
    found = [_vector(item, f"vectors[{number}]") for number, item in enumerate(vectors)]
    names = [item.name for item in found]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise VectorFileError(f'two vectors are named "{twice}": give each its own name')
    return found


def _vector(item: object, where: str) -> Vector:
    if not isinstance(item, dict):
        raise VectorFileError(f"{where} is no object: make it one")
    name = item.get("name", item.get("id"))
    if not isinstance(name, str):
        raise VectorFileError(f'{where}: "name" is missing or no text: give the vector a name')
    where = f"{where} ({name})"
    code = _code(item.get("ioctl_code"), where)
    data, output = (_hex(item.get(key), f"{where}: {key}") for key in _HEX)
    return Vector(
        name=name,
        code=code,
        data=data,
        output=output,
        steps=_steps(item, where),
        device=_object(item.get("device"), f"{where}: device"),
        expected=_object(item.get("expected"), f"{where}: expected"),
        raw=item,
    )


def _steps(item: Json, where: str) -> tuple[Step, ...]:
    """The list, or the one exchange that stands at the top of the vector."""
    steps = item.get("steps")
    if steps is None:
        steps = [item] if item.get("cdb_hex") else []
    if not isinstance(steps, list):
        raise VectorFileError(f'{where}: "steps" is no list: make it one')
    return tuple(_step(step, f"{where} steps[{number}]") for number, step in enumerate(steps))


def _step(step: object, where: str) -> Step:
    if not isinstance(step, dict):
        raise VectorFileError(f"{where} is no object: make it one")
    cdb, data_out, data_in, sense = (_hex(step.get(key), f"{where}: {key}") for key in _STEP_HEX)
    if not cdb:
        raise VectorFileError(f"{where}: cdb_hex is empty: give the CDB")
    return Step(cdb, data_out, data_in, sense, step)


def _object(value: object, where: str) -> Json:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise VectorFileError(f"{where} is no object: make it one")
    return value


def _code(value: object, where: str) -> int | None:
    if value in ("", None):
        return None
    try:
        return value if isinstance(value, int) else int(str(value), 16)
    except ValueError as error:
        raise VectorFileError(f"{where}: ioctl_code is no hexadecimal number: write 0x002D9404") from error


def _hex(value: object, where: str) -> bytes:
    if value is None:
        return b""
    try:
        return bytes.fromhex(value)  # type: ignore[arg-type]  # a TypeError is part of the answer
    except (TypeError, ValueError) as error:
        raise VectorFileError(f"{where} is not hexadecimal text: write two digits for each byte") from error
