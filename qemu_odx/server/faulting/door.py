"""An export, as its faults see it.

Imports `server/config.py`. Made where exports are added; next: `tap.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from qemu_odx.server.config import BlkExport, export_names

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from qemu_odx.disk.port import Disk
    from qemu_odx.server.config import Export

_BLOCK = 512
"""Bytes of a block of no disk in particular."""


@dataclass(frozen=True, slots=True)
class Door:
    """What is known of an export.

    Attributes:
        names: all that a rule may call it by.
        block_size: bytes of a logical block, by name of the disk.
        mailbox: byte of the disk where a mailbox begins, None without one.
    """

    names: frozenset[str]
    block_size: Callable[[str], int]
    mailbox: int | None = None


def door(config: Export, disks: Mapping[str, Disk]) -> Door:
    """An export of some of the disks, which come and go."""
    names = export_names(config)

    def block_size(name: str) -> int:
        return disks[name].block_size if name in disks else _BLOCK

    if isinstance(config, BlkExport):
        return Door(names, block_size, config.mailbox)
    return Door(names, block_size)
