"""The commands that every QMP server has.

Imports `schema.py`; the table of commands only when called. Source: QEMU, `qapi/control.json` and
`qapi/introspect.json`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from qemu_odx import __version__
from qemu_odx.server.monitor.errors import MonitorError
from qemu_odx.server.monitor.schema import Introspection, members_of

if TYPE_CHECKING:
    from qemu_odx.server.backend import Backend


@dataclass(frozen=True, slots=True)
class VersionTriple:
    """A version.

    Attributes:
        major: first number.
        minor: second number.
        micro: third number.
    """

    major: int
    minor: int
    micro: int


@dataclass(frozen=True, slots=True)
class Version:
    """Which program this is.

    Attributes:
        qemu: the version of qemu_odx; the member has this name for the sake of QMP clients.
        package: the program's name and full version.
    """

    qemu: VersionTriple
    package: str


@dataclass(frozen=True, slots=True)
class CommandName:
    """A command.

    Attributes:
        name: its name.
    """

    name: str


def qmp_capabilities(_backend: Backend, enable: list[str] | None = None) -> None:
    """Ends the negotiation with which every connection begins: only then other commands are taken.

    Args:
        enable: capabilities; none is offered, so it is empty or left out.

    Example:
        -> {"execute": "qmp_capabilities"}
        <- {"return": {}}
    """
    if enable:
        raise MonitorError("no capability is offered: leave out 'enable'")


def query_version(_backend: Backend) -> Version:
    """Which program this is.

    Example:
        -> {"execute": "query-version"}
        <- {"return": {"qemu": {"major": 0, "minor": 1, "micro": 0}, "package": "qemu-odx 0.1.0"}}
    """
    return version()


def version() -> Version:
    """The version of this program, as the greeting has it too."""
    major, minor, micro = (int(part) for part in __version__.split("+")[0].split(".")[:3])
    return Version(VersionTriple(major, minor, micro), f"qemu-odx {__version__}")


def query_commands(_backend: Backend) -> list[CommandName]:
    """The names of all commands.

    Example:
        -> {"execute": "query-commands"}
        <- {"return": [{"name": "query-version"}, {"name": "quit"}]}
    """
    from qemu_odx.server.monitor.table import COMMANDS  # noqa: PLC0415  # it lists this very function

    return [CommandName(name) for name in COMMANDS]


def query_qmp_schema(_backend: Backend) -> list[object]:
    """All commands, events and types, in the form of QEMU's `query-qmp-schema`.

    Types have numbers for names: only commands and events keep theirs.

    Example:
        -> {"execute": "query-qmp-schema"}
        <- {"return": [{"name": "quit", "meta-type": "command", "arg-type": "0", "ret-type": "0"},
                       {"name": "0", "meta-type": "object", "members": []}]}
    """
    return list(schema())


def quit_(backend: Backend) -> None:
    """Ends the server as SIGTERM does: it finishes what is in flight, flushes and removes its sockets.

    Example:
        -> {"execute": "quit"}
        <- {"return": {}}
    """
    backend.loop.call_soon(lambda: backend.stop("host-qmp-quit"))


@cache
def schema() -> tuple[dict[str, Any], ...]:
    """The entries of `query-qmp-schema`."""
    from qemu_odx.server.monitor.table import COMMANDS, EVENTS  # noqa: PLC0415  # they list this module

    types = Introspection()
    rows: list[dict[str, Any]] = [
        {
            "name": command.name,
            "meta-type": "command",
            "arg-type": types.object_type(command.arguments),
            "ret-type": types.type(command.returns),
            "allow-oob": False,
        }
        for command in COMMANDS.values()
    ]
    rows += (
        {"name": event.name, "meta-type": "event", "arg-type": types.object_type(members_of(event.data))}
        for event in EVENTS
    )
    return (*rows, *types.entries)
