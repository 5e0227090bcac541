"""The power cut of the whole server: disks lose what was not flushed, tokens are cancelled, nothing is answered.

Imports `disk/layers`, `target/manager`. Called by `server/app.py` on the event loop.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from qemu_odx.disk.layers.layer import layers_of
from qemu_odx.disk.layers.power_cut import PowerCutLayer
from qemu_odx.server.witness import verify_layer
from qemu_odx.tokens.token import Fault

if TYPE_CHECKING:
    from collections.abc import Iterable

    from qemu_odx.disk.layers.power_cut import Cut
    from qemu_odx.disk.port import Disk
    from qemu_odx.target.manager import CopyManager

log = logging.getLogger(__name__)

EXIT_CODE = 3
"""Of a server whose power was cut."""


def power_layers(disks: Iterable[Disk]) -> list[PowerCutLayer]:
    """The layers that can cut the power of these disks."""
    return [layer for disk in disks for layer in layers_of(disk) if isinstance(layer, PowerCutLayer)]


def cut_power(disks: Iterable[Disk], manager: CopyManager) -> list[Cut]:
    """Cut the power of all disks that have the layer, as one: no request is answered in between.

    A host that crashes forgets its tokens: all of them are cancelled. Records of checksums are not believed after it.
    """
    disks = list(disks)
    cuts = [layer.cut() for layer in power_layers(disks)]
    for disk in disks:
        if verified := verify_layer(disk):
            verified.record.host_crashed()
    for token in manager.tokens:
        manager.tokens.kill(token, Fault.CANCELLED)
    for cut in cuts:
        log.warning(
            "disk %s: the power was cut (seed %d): %d blocks were not flushed, %d of them are lost",
            cut.disk,
            cut.seed,
            cut.volatile,
            cut.lost,
        )
    return cuts
