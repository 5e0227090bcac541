"""The command table: name of a command to its handler, gathered from every family."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qemu_odx.target.commands import (
    blocks,
    buffer,
    capacity,
    compare_write,
    extended_copy,
    inquiry,
    medium,
    mode,
    monitor_copy,
    populate_token,
    provisioning,
    report,
    reservation,
    unit,
    verify,
    write_token,
)

if TYPE_CHECKING:
    from qemu_odx.target.request import Handler

_FAMILIES = (
    blocks,
    buffer,
    capacity,
    compare_write,
    extended_copy,
    inquiry,
    medium,
    mode,
    monitor_copy,
    populate_token,
    provisioning,
    report,
    reservation,
    unit,
    verify,
    write_token,
)

HANDLERS: dict[str, Handler] = {
    name: handler for family in _FAMILIES for name, handler in family.HANDLERS.items()
}
