"""Names for what layers see: the requests of exports, told to the verify layers of the disks that they go to.

Imports `disk/layers` and `tap/`. `server/backend.py` puts it on the gates of exports that show such disks, and only
on those: the requests of all others go on unwatched.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from qemu_odx.disk.layers.layer import layers_of
from qemu_odx.disk.layers.verify import VerifyLayer

if TYPE_CHECKING:
    from collections.abc import Callable

    from qemu_odx.disk.layers.finding import Finding
    from qemu_odx.disk.port import Disk
    from qemu_odx.tap.decision import Decision
    from qemu_odx.tap.exchange import Exchange, Outcome
    from qemu_odx.tap.gate import Gate


def verify_layer(disk: Disk) -> VerifyLayer | None:
    """The verify layer of a disk, the one nearest to the guest."""
    return next((layer for layer in layers_of(disk) if isinstance(layer, VerifyLayer)), None)


class Witness:
    """A tap that decides nothing, and remembers which requests are under way."""

    def __init__(self) -> None:
        self._layers: dict[str, VerifyLayer] = {}

    def watch(self, disk: Disk, found: Callable[[Finding], None]) -> None:
        """From now on, requests to this disk are named to its verify layer, if it has one; what it finds is told."""
        layer = verify_layer(disk)
        if layer is not None:
            layer.on_finding = found
            self._layers[disk.name] = layer

    def forget(self, disk: Disk) -> None:
        """The disk is gone."""
        self._layers.pop(disk.name, None)

    def stand_at(self, gate: Gate, disks: tuple[str, ...]) -> None:
        """Look at what passes a gate, if it leads to a watched disk."""
        if self not in gate.taps and not self._layers.keys().isdisjoint(disks):
            gate.add(self)

    def taken(self, exchange: Exchange) -> Decision | None:
        """A request has been taken from its queue."""
        layer = self._layers.get(exchange.disk)
        if layer is not None:
            size = exchange.block_size
            ranges = [(span.lba * size, (span.lba + span.blocks) * size) for span in exchange.spans]
            layer.requests.begin((exchange.export, exchange.number), _name(exchange), ranges)
        return None

    def ended(self, exchange: Exchange, _outcome: Outcome) -> None:
        """It is about to be completed."""
        layer = self._layers.get(exchange.disk)
        if layer is not None:
            layer.requests.end((exchange.export, exchange.number))


def _name(exchange: Exchange) -> str:
    """Short enough for the record: operation first, the end of a long export's name last."""
    where = "mailbox"
    if exchange.origin is not None:
        where = f"queue {exchange.origin.queue} head {exchange.origin.head}"
    tag = f" tag {exchange.tag:x}" if exchange.tag else ""
    return f"{exchange.operation} #{exchange.number} {where}{tag} of {exchange.export[-28:]}"
