"""Files of SCSI vectors: read, and checked for shape before anything runs.

Imports nothing of ours. Next: `replay.py` runs the vectors. What a step asks for and what it expects is free within
this shape: keys that are not known here are left alone, so that files of later or of other makers work.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

Json = dict[str, Any]
"""An object as it stands in the file."""

_MOST_BYTES = 1 << 30
"""Capacity of all logical units of a described target; they are held in memory."""
_NUMBERS = (int,)
_STATUS = (str, int)
_STEP_TYPES: dict[str, tuple[type, ...]] = {
    "lun": _NUMBERS,
    "nexus": (str,),
    "status": _STATUS,
    "sense": (dict, list, type(None)),
    "data_in_len": _NUMBERS,
    "data_in_free": (list,),
    "save": (dict, list),
    "data_out_token": (dict, list),
    "check_data": (dict, list),
    "event": (str,),
    "repeat": (str, int, dict),
}
"""Types of the keys of a step, where they are present."""
_HEX = ("cdb", "data_out", "data_in")
_LIMITS = ("max_ranges", "max_ito_s", "default_ito_s", "max_token_transfer_blocks", "max_tokens")


class VectorFileError(Exception):
    """The file cannot be used; the text names the place and the cure."""


@dataclass(frozen=True, slots=True)
class Document:
    """A vector file.

    Attributes:
        vectors: objects with `id` and `steps`.
        target: its `reference_target`, None to take the usual one.
    """

    vectors: list[Json]
    target: Json | None


def load(path: Path) -> Document:
    """Read a vector file.

    Raises:
        VectorFileError: unreadable, not JSON, or of another shape.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise VectorFileError(f"{path}: {error.strerror}: give the path of a vector file") from error
    except UnicodeDecodeError as error:  # before ValueError, which it is too
        raise VectorFileError(f"{path}: not UTF-8 text: give a JSON file of vectors") from error
    except (ValueError, RecursionError) as error:
        raise VectorFileError(f"{path}: not JSON ({error}): correct it there") from error
    try:
        return parse(content)
    except VectorFileError as error:
        raise VectorFileError(f"{path}: {error}") from error


def parse(content: object) -> Document:
    """The vectors of a file's content, checked for shape.

    Raises:
        VectorFileError: of another shape; the text names the key.
    """
    if not isinstance(content, dict):
        raise VectorFileError(f'the file holds {_kind(content)}: make it an object with a list "vectors"')
    vectors = content.get("vectors")
    if not isinstance(vectors, list):
        raise VectorFileError(f'"vectors" is {_kind(vectors)}: make it a list of vectors')
    for number, vector in enumerate(vectors):
        _check_vector(vector, f"vectors[{number}]")
    target = content.get("reference_target")
    if target is not None:
        _check_target(target)
    return Document(vectors, target)


def _check_vector(vector: object, where: str) -> None:
    if not isinstance(vector, dict):
        raise VectorFileError(f'{where} is {_kind(vector)}: make it an object with "id" and "steps"')
    if not isinstance(vector.get("id"), str):
        raise VectorFileError(f'{where}: "id" is {_kind(vector.get("id"))}: give the vector a name')
    steps = vector.get("steps")
    if not isinstance(steps, list):
        raise VectorFileError(f'{where} ({vector["id"]}): "steps" is {_kind(steps)}: make it a list of steps')
    if "reference_target" in vector:
        _check_target(vector["reference_target"])
    for number, step in enumerate(steps):
        _check_step(step, f"{where} ({vector['id']}) steps[{number}]")


def _check_step(step: object, where: str) -> None:
    if not isinstance(step, dict):
        raise VectorFileError(f"{where} is {_kind(step)}: make it an object")
    for key in _HEX:
        if key in step:
            _check_hex(step[key], f'{where}: "{key}"')
    if step.get("cdb") == "":
        raise VectorFileError(f'{where}: "cdb" is empty: give at least the operation code')
    for key, types in _STEP_TYPES.items():
        if key in step and (not isinstance(step[key], types) or isinstance(step[key], bool)):
            wanted = " or ".join(_WORDS[kind] for kind in types if kind is not type(None))
            raise VectorFileError(f'{where}: "{key}" is {_kind(step[key])}: make it {wanted}')
    for item in listed(step.get("check_data")):
        _check_place(item, f"{where}: check_data")


def _check_hex(value: object, where: str) -> None:
    try:
        bytes.fromhex(value)  # type: ignore[arg-type]  # a TypeError is part of the answer
    except (TypeError, ValueError) as error:
        raise VectorFileError(f"{where} is not hexadecimal text: write two digits for each byte") from error


def _check_place(item: object, where: str) -> None:
    keys = ("lun", "lba", "blocks")
    if not isinstance(item, dict) or not all(isinstance(item.get(key), int) for key in keys):
        raise VectorFileError(f"{where} lacks a number: give lun, lba and blocks")


def _check_target(target: object) -> None:
    if not isinstance(target, dict) or not isinstance(target.get("lus"), list) or not target["lus"]:
        raise VectorFileError('"reference_target" has no list "lus": describe at least one logical unit')
    size = 0
    for number, unit in enumerate(target["lus"]):
        where = f"reference_target.lus[{number}]"
        for key in ("lun", "blocks", "block_size"):
            if not isinstance(unit, dict) or not isinstance(unit.get(key), int) or unit[key] < 0:
                raise VectorFileError(f'{where}: "{key}" is no number of 0 or more: give one')
        if unit["block_size"] not in {512, 1024, 2048, 4096} or not unit["blocks"]:
            raise VectorFileError(f"{where}: give blocks of 512, 1024, 2048 or 4096 bytes, at least one")
        if "naa" in unit:
            _check_hex(unit["naa"], f'{where}: "naa"')
        size += unit["blocks"] * unit["block_size"]
    if size > _MOST_BYTES:
        raise VectorFileError(f"reference_target holds {size} bytes: describe at most {_MOST_BYTES}")
    limits = target.get("limits", {})
    for key in _LIMITS:
        if not isinstance(limits, dict) or not isinstance(limits.get(key, 0), int):
            raise VectorFileError(f'reference_target.limits: "{key}" is no number: give one')


def listed(value: object) -> list[Json]:
    """One object or a list of them, as a list; nothing as an empty list."""
    if value is None:
        return []
    return list(value) if isinstance(value, list) else [value]  # type: ignore[list-item]  # checked by the caller


_WORDS: dict[type, str] = {
    dict: "an object",
    list: "a list",
    str: "text",
    int: "a number",
    float: "a number with a fraction",
    bool: "true or false",
    type(None): "missing or null",
}


def _kind(value: object) -> str:
    return _WORDS.get(type(value), type(value).__name__)
