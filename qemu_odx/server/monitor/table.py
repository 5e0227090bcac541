"""All commands and events of the monitor, one line each.

Imports every module of commands. A handler's annotations are its schema (`command.py`), its docstring is its page in
`docs/monitor.md` (`docs/generate_monitor.py`). Next: `server/monitor/connection.py`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from qemu_odx.server import news
from qemu_odx.server.monitor import general
from qemu_odx.server.monitor.command import Command, EventType
from qemu_odx.server.monitor.commands import (
    clock,
    copies,
    corruption,
    disks,
    exports,
    faults,
    power,
    statistics,
    tokens,
    trace,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

COMMANDS: Final[Mapping[str, Command]] = {
    row.name: row
    for row in (
        Command("qmp_capabilities", general.qmp_capabilities),
        Command("query-version", general.query_version),
        Command("query-commands", general.query_commands),
        Command("query-qmp-schema", general.query_qmp_schema),
        Command("quit", general.quit_),
        Command("query-odx-disks", disks.query),
        Command("odx-disk-add", disks.add, boxed=disks.add_members),
        Command("odx-disk-remove", disks.remove),
        Command("odx-disk-resize", disks.resize),
        Command("query-odx-exports", exports.query),
        Command("odx-export-add", exports.add, boxed=exports.add_members),
        Command("odx-export-remove", exports.remove),
        Command("odx-unit-add", exports.add_unit),
        Command("odx-unit-remove", exports.remove_unit),
        Command("query-odx-tokens", tokens.query),
        Command("odx-token-revoke", tokens.revoke),
        Command("query-odx-copies", copies.query),
        Command("odx-copy-abort", copies.abort),
        Command("query-odx-statistics", statistics.query),
        Command("odx-statistics-start", statistics.start),
        Command("odx-statistics-stop", statistics.stop),
        Command("odx-statistics-reset", statistics.reset),
        Command("query-odx-clock", clock.query),
        Command("odx-clock-advance", clock.advance),
        Command("query-odx-corruption", corruption.query),
        Command("odx-corruption-scan", corruption.scan),
        Command("odx-power-cut", power.cut),
        Command("query-odx-trace", trace.query),
        Command("odx-trace-start", trace.start),
        Command("odx-trace-stop", trace.stop),
        Command("query-odx-faults", faults.query),
        Command("odx-fault-arm", faults.arm),
        Command("odx-fault-release", faults.release),
        Command("odx-fault-remove", faults.remove),
    )
}
"""By name."""

EVENTS: Final = (
    EventType("SHUTDOWN", news.Shutdown),
    EventType("ODX_FRONT_END_CONNECTED", news.FrontEndConnected),
    EventType("ODX_FRONT_END_GONE", news.FrontEndGone),
    EventType("ODX_DISK_RESIZED", news.DiskResized),
    EventType("ODX_CORRUPTION_FOUND", news.CorruptionFound),
    EventType("ODX_TOKEN_CREATED", news.TokenCreated),
    EventType("ODX_TOKEN_ENDED", news.TokenEnded),
    EventType("ODX_COPY_STARTED", news.CopyStarted),
    EventType("ODX_COPY_ENDED", news.CopyEnded),
    EventType("ODX_FAULT_FIRED", news.FaultFired),
)

EVENT_NAMES: Final[Mapping[type, str]] = {event.data: event.name for event in EVENTS}
"""Event class to the name that clients read."""
