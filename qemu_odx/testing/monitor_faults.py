"""Fault rules as the host steers them: over the monitor of a running server.

May import the standard library alone: any client of QMP carries the commands.

    faults = MonitorFaults(client.execute)
    name = faults.add("op=WRITE USING TOKEN,count=1,sense=token-expired")
    ...
    assert faults.find(name)["fired"] == 1
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping


@dataclass(frozen=True, slots=True)
class MonitorFaults:
    """The rules of a server.

    Attributes:
        execute: runs a QMP command with its arguments and returns what it returns; raises what it raises.
    """

    execute: Callable[[str, Mapping[str, object]], Any]

    def add(self, rule: str) -> str:
        """Add a rule, as `qemu-odx serve --fault` takes it; its name."""
        return str(self.execute("odx-fault-arm", {"rule": rule})["name"])

    def arm(self, name: str) -> None:
        """Put a rule in force; it counts from now on."""
        self.execute("odx-fault-arm", {"name": name})

    def release(self, name: str) -> None:
        """Put a rule out of force, and let everything go on that it holds."""
        self.execute("odx-fault-release", {"name": name})

    def remove(self, name: str) -> None:
        """Release a rule and forget it."""
        self.execute("odx-fault-remove", {"name": name})

    def clear(self) -> None:
        """Remove every rule."""
        for item in self.list():
            self.remove(str(item["name"]))

    def list(self) -> list[dict[str, Any]]:
        """Every rule: its state, how often it was seen and fired, what it holds."""
        return list(self.execute("query-odx-faults", {}))

    def find(self, name: str) -> dict[str, Any]:
        """One of them. Raises KeyError."""
        for item in self.list():
            if item["name"] == name:
                return item
        raise KeyError(name)

    @contextmanager
    def rule(self, text: str) -> Iterator[str]:
        """A rule for the time of a block, by its name; it is gone afterwards, with all that it held released."""
        name = self.add(text)
        try:
            yield name
        finally:
            self.remove(name)
