"""Checks a JSON value against a schema in QAPI's introspection form: QEMU's own, or that of our monitor.

May import nothing of ours. The form is QEMU's `qapi/introspect.json`.

    Schema(client.execute("query-qmp-schema")).check_return("query-odx-disks", disks)
"""

from __future__ import annotations

from typing import Any

_JSON_TYPES: dict[str, tuple[type, ...]] = {
    "string": (str,),
    "int": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "null": (type(None),),
    "value": (object,),
    "object": (dict,),
    "array": (list,),
}


class SchemaError(AssertionError):
    """A value is not as the schema says."""


class Schema:
    """The entries of a `query-qmp-schema`."""

    def __init__(self, entries: list[dict[str, Any]]) -> None:
        self._entries = {entry["name"]: entry for entry in entries}
        if len(self._entries) != len(entries):
            raise SchemaError("two entries have one name")

    def names(self, meta_type: str) -> set[str]:
        """The names of all commands, events, objects, ..."""
        return {name for name, entry in self._entries.items() if entry["meta-type"] == meta_type}

    def check_return(self, command: str, value: object) -> None:
        """What a command returned. Raises SchemaError."""
        self.check(self._entries[command]["ret-type"], value, command)

    def check_event(self, event: dict[str, Any]) -> None:
        """An event. Raises SchemaError."""
        self.check(self._entries[event["event"]]["arg-type"], event["data"], event["event"])

    def check_arguments(self, command: str, value: object) -> None:
        """The arguments of a command. Raises SchemaError."""
        self.check(self._entries[command]["arg-type"], value, command)

    def references(self) -> set[str]:
        """Every type that an entry leads to. Raises SchemaError if it leads to one that is not there."""
        found = {
            entry[key] for entry in self._entries.values() for key in ("arg-type", "ret-type") if key in entry
        }
        for entry in self._entries.values():
            found |= {item["type"] for item in entry.get("members", ()) if "type" in item}
            found |= {entry["element-type"]} if "element-type" in entry else set()
            found |= {item["type"] for item in entry.get("variants", ())}
        if missing := found - set(self._entries):
            raise SchemaError(f"types {sorted(missing)} are named and not described")
        return found

    def check(self, kind: str, value: object, where: str = "value") -> None:
        """A value of a type. Raises SchemaError."""
        entry = self._entries[kind]
        meta = entry["meta-type"]
        if meta == "builtin":
            wanted, found = _JSON_TYPES[entry["json-type"]], type(value)  # True is an int only in Python
            if object not in wanted and found not in wanted:
                raise SchemaError(f"{where}: {value!r} is no {entry['json-type']}")
        elif meta == "enum":
            if value not in entry.get("values", [item["name"] for item in entry.get("members", ())]):
                raise SchemaError(f"{where}: {value!r} is none of {entry}")
        elif meta == "array":
            if not isinstance(value, list):
                raise SchemaError(f"{where}: {value!r} is no array")
            for at, item in enumerate(value):
                self.check(entry["element-type"], item, f"{where}[{at}]")
        elif meta == "object":
            self._check_object(entry, value, where)
        elif meta == "alternate":
            self._check_alternate(entry, value, where)
        else:
            raise SchemaError(f"{where}: {kind} is no type but a {meta}")

    def _check_object(self, entry: dict[str, Any], value: object, where: str) -> None:
        if not isinstance(value, dict):
            raise SchemaError(f"{where}: {value!r} is no object")
        members = self._members(entry, value)
        for name, item in value.items():
            if name not in members:
                raise SchemaError(f"{where}: member {name} is unknown")
            self.check(members[name]["type"], item, f"{where}.{name}")
        for name, member in members.items():
            if name not in value and "default" not in member:
                raise SchemaError(f"{where}: member {name} is missing")

    def _members(self, entry: dict[str, Any], value: dict[str, Any]) -> dict[str, Any]:
        """The members of an object, with those of the variant that its tag names."""
        members = {member["name"]: member for member in entry["members"]}
        for variant in entry.get("variants", ()):
            if variant["case"] == value.get(entry["tag"]):
                members |= self._members(self._entries[variant["type"]], value)
        return members

    def _check_alternate(self, entry: dict[str, Any], value: object, where: str) -> None:
        for member in entry["members"]:
            try:
                self.check(member["type"], value, where)
            except SchemaError:
                continue
            return
        raise SchemaError(f"{where}: {value!r} fits no alternative")
