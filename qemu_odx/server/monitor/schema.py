"""Python's types as QAPI's: what arguments are checked against, and what `query-qmp-schema` tells.

Pure. Understands str, int, float, bool, object (anything), `Literal` of strings, `Enum` with strings, lists,
`X | None` (optional) and dataclasses; members are written with `-` for `_`. The form of the introspection is
QEMU's `qapi/introspect.json`. Next: `server/monitor/command.py`.
"""

from __future__ import annotations

import dataclasses
import enum
import types
import typing
from dataclasses import dataclass, field
from typing import Any

from qemu_odx.server.monitor.errors import MonitorError

Members = dict[str, "Member"]

_BUILT_IN: dict[object, tuple[str, str]] = {
    str: ("str", "string"),
    int: ("int", "int"),
    float: ("number", "number"),
    bool: ("bool", "boolean"),
    object: ("any", "value"),
}
"""Type -> name and JSON type of a built-in type of QAPI."""
_LEAST, _MOST = -(1 << 63), (1 << 64) - 1
"""Integers that QEMU's JSON has."""


@dataclass(frozen=True, slots=True)
class Member:
    """A member of an object: its type, and whether it may be left out."""

    kind: object
    optional: bool


def wire_name(name: str) -> str:
    """A Python name as QMP writes it."""
    return name.rstrip("_").replace("_", "-")


def member(annotation: object, *, optional: bool) -> Member:
    """A member with a type and perhaps a default."""
    others = [item for item in typing.get_args(annotation) if item is not types.NoneType]
    if typing.get_origin(annotation) in {types.UnionType, typing.Union}:
        if len(others) != 1:
            raise TypeError(f"{annotation} has no equal in QAPI")
        return Member(others[0], optional=True)
    return Member(annotation, optional)


def members_of(kind: type) -> Members:
    """The members of a dataclass, by their names in QMP."""
    hints = typing.get_type_hints(kind)
    return {
        wire_name(item.name): member(
            hints[item.name],
            optional=item.default is not dataclasses.MISSING
            or item.default_factory is not dataclasses.MISSING,
        )
        for item in dataclasses.fields(kind)
    }


def names_of(kind: object) -> list[str] | None:
    """The values of an enumeration, None for any other type."""
    if typing.get_origin(kind) is typing.Literal:
        return list(typing.get_args(kind))
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        return [item.value for item in kind]
    return None


# -- checking -------------------------------------------------------------------------------------


def check_members(members: Members, given: dict[str, object], where: str = "") -> None:
    """See that every member is known, there, and of its type.

    Raises:
        MonitorError: it names the member.
    """
    for name, value in given.items():
        if name not in members:
            known = f"known are {', '.join(members)}" if members else "there are no arguments"
            raise MonitorError(f"'{where}{name}' is unexpected: {known}")
        check(members[name].kind, value, f"{where}{name}")
    for name, wanted in members.items():
        if not wanted.optional and name not in given:
            raise MonitorError(f"'{where}{name}' is missing")


def check(kind: object, value: object, where: str) -> None:
    """See that a JSON value is of a type. Raises MonitorError."""
    names = names_of(kind)
    if names is not None:
        if value not in names:
            raise MonitorError(f"'{where}' must be one of {', '.join(names)}")
    elif typing.get_origin(kind) is list:
        if not isinstance(value, list):
            raise _wrong(where, "an array")
        for at, item in enumerate(value):
            check(typing.get_args(kind)[0], item, f"{where}[{at}]")
    elif dataclasses.is_dataclass(kind):
        if not isinstance(value, dict):
            raise _wrong(where, "an object")
        check_members(members_of(typing.cast("type", kind)), value, f"{where}.")
    else:
        _check_built_in(kind, value, where)


def _check_built_in(kind: object, value: object, where: str) -> None:
    if kind is str:
        if not isinstance(value, str):
            raise _wrong(where, "a string")
        if "\0" in value or (not value.isascii() and any(0xD800 <= ord(mark) < 0xE000 for mark in value)):
            raise _wrong(where, "a string without NUL and lone surrogates")
    elif kind is bool:
        if not isinstance(value, bool):
            raise _wrong(where, "true or false")
    elif kind is int:
        if isinstance(value, bool) or not isinstance(value, int) or not _LEAST <= value <= _MOST:
            raise _wrong(where, "a whole number of 64 bits")
    elif kind is float and (isinstance(value, bool) or not isinstance(value, int | float)):
        raise _wrong(where, "a number")


def _wrong(where: str, wanted: str) -> MonitorError:
    return MonitorError(f"'{where}' must be {wanted}")


# -- telling --------------------------------------------------------------------------------------


@dataclass(slots=True)
class Introspection:
    """Collects the types that commands and events use.

    Attributes:
        entries: SchemaInfo objects, in the order in which they were met.
    """

    entries: list[dict[str, Any]] = field(default_factory=list)
    _names: dict[object, str] = field(default_factory=dict)

    def object_type(self, members: Members) -> str:
        """An object type without a name of its own, as the arguments of a command; its name here."""
        key = tuple((name, str(item.kind), item.optional) for name, item in members.items())
        return self._object(("members", key), members)

    def type(self, kind: object) -> str:
        """A type's name here; nothing at all is an object without members."""
        if kind is None or kind is types.NoneType:
            return self.object_type({})
        if kind in self._names:
            return self._names[kind]
        if kind in _BUILT_IN:
            name, json_type = _BUILT_IN[kind]
            return self._enter(kind, {"name": name, "meta-type": "builtin", "json-type": json_type})
        names = names_of(kind)
        if names is not None:
            values = {"values": names, "members": [{"name": name} for name in names]}
            return self._enter(kind, {"name": self._number(), "meta-type": "enum", **values})
        if typing.get_origin(kind) is list:
            element = self.type(typing.get_args(kind)[0])
            return self._enter(kind, {"name": f"[{element}]", "meta-type": "array", "element-type": element})
        if dataclasses.is_dataclass(kind):
            return self._object(kind, members_of(typing.cast("type", kind)))
        raise TypeError(f"{kind} has no equal in QAPI")

    def _object(self, key: object, members: Members) -> str:
        if key in self._names:
            return self._names[key]
        entry: dict[str, Any] = {"name": self._number(), "meta-type": "object", "members": []}
        name = self._enter(key, entry)  # before its members: they may lead back to it
        entry["members"] = [
            {"name": item, "type": self.type(wanted.kind), **({"default": None} if wanted.optional else {})}
            for item, wanted in members.items()
        ]
        return name

    def _enter(self, key: object, entry: dict[str, Any]) -> str:
        self.entries.append(entry)
        name: str = entry["name"]
        self._names[key] = name
        return name

    def _number(self) -> str:
        """Types are known by numbers, as in QEMU: their names are no promise."""
        return str(len(self._names))


def to_json(value: object) -> Any:
    """A result as JSON has it: dataclasses become objects, members that are None are left out."""
    if isinstance(value, enum.Enum):
        return value.value
    if dataclasses.is_dataclass(value):
        pairs = ((item.name, getattr(value, item.name)) for item in dataclasses.fields(value))
        return {wire_name(name): to_json(inner) for name, inner in pairs if inner is not None}
    if isinstance(value, list | tuple):
        return [to_json(item) for item in value]
    return value
