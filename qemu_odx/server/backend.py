"""What a running server consists of: disks and exports by name, added and removed while guests use the others.

Imports the rest of `server/` but `app.py` and the monitor, which acts on it. All on the event loop's thread, except
opening and closing disks, which may wait for the host and is a worker's.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from qemu_odx.disk.file import DiskError, FileDisk, open_disk
from qemu_odx.disk.layers.layer import lowest
from qemu_odx.disk.layers.table import layered
from qemu_odx.server import news, power
from qemu_odx.server.config import BlkExport
from qemu_odx.server.devices import DeviceMaker
from qemu_odx.server.events import Events
from qemu_odx.server.expiry import Expiry
from qemu_odx.server.export import Export as RunningExport
from qemu_odx.server.faulting.door import door
from qemu_odx.server.faulting.faults import Faults
from qemu_odx.server.options import ConfigError
from qemu_odx.server.statistics.collector import Statistics
from qemu_odx.server.tracing import Tracing
from qemu_odx.server.witness import Witness

if TYPE_CHECKING:
    from collections.abc import Callable

    from qemu_odx.disk.layers.finding import Finding
    from qemu_odx.disk.port import Disk
    from qemu_odx.server.clock import Clock
    from qemu_odx.server.config import DiskConfig, Export
    from qemu_odx.server.journal.folder import StateFolder
    from qemu_odx.server.loop import Loop
    from qemu_odx.server.workers import Workers
    from qemu_odx.target.manager import CopyManager
    from qemu_odx.virtio.port import Device

log = logging.getLogger(__name__)


@dataclass(slots=True)
class ServedDisk:
    """A disk and what it was made from."""

    config: DiskConfig
    disk: Disk


@dataclass(slots=True)
class ServedExport:
    """An export: what it was made from, its device, its socket."""

    config: Export
    device: Device
    running: RunningExport


class Backend:
    """Disks, exports and the copy manager between them.

    Attributes:
        loop: the event loop.
        workers: for what may wait.
        clock: of all that expires or delays.
        events: news for whoever listens.
        disks: by name.
        exports: by name, in the order in which they were made.
        reserved: name and image of disks that are being opened or closed just now.
        maker: makes devices.
        faults: rules by which requests go wrong on purpose.
        stop: ends the server; the argument is why, as in QEMU's SHUTDOWN event.
        power_cut: the host's crash, modelled (`server/power.py`).
        tracing: the recording, if there is one.
        state: where tokens outlive the process, if there is such a place.
        statistics: how many requests, and how long they take.
    """

    def __init__(
        self,
        loop: Loop,
        workers: Workers,
        clock: Clock,
        stop: Callable[[str], None],
        power_cut: Callable[[], None],
        *,
        state: StateFolder | None = None,
    ) -> None:
        self.loop = loop
        self.workers = workers
        self.clock = clock
        self.stop = stop
        self.power_cut = power_cut
        self._witness = Witness()
        self.events = Events()
        self.disks: dict[str, ServedDisk] = {}
        self.exports: dict[str, ServedExport] = {}
        self.reserved: dict[str, str] = {}
        self.state = state
        self.maker = DeviceMaker(workers, clock, clock.call_later, state)
        self.faults = Faults(clock, loop.call_soon, self.manager, self.events)
        self._leaving = 0
        self._when_left: list[Callable[[], None]] = []
        self._expiry = Expiry(self.manager, clock)
        self.tracing = Tracing(self)
        self.statistics = Statistics()
        news.forward(self.manager, self.events)

    @property
    def manager(self) -> CopyManager:
        """The copy manager."""
        return self.maker.manager

    def users_of(self, disk: str) -> list[str]:
        """The exports that show a disk."""
        return [name for name, export in self.exports.items() if disk in export.config.disks]

    def enter_disk(self, config: DiskConfig, disk: Disk) -> None:
        """A disk that has been opened may be used from now on."""
        self.disks[config.id] = ServedDisk(config, disk)
        self.maker.disks[config.id] = disk
        for layer in power.power_layers([disk]):
            layer.on_cut = self.power_cut
        self._witness.watch(disk, self._found_corruption)
        if isinstance(image := lowest(disk), FileDisk):
            image.on_loss = lambda: self.loop.call_soon(self.manager.tokens.cancel_lost)
        self.tracing.disk_entered(disk)
        self.faults.add_disk(disk)

    def leave_disk(self, name: str) -> Disk:
        """Nobody finds a disk any more, its tokens are cancelled; the caller closes it. No export may show it."""
        disk = self.disks.pop(name).disk
        del self.maker.disks[name]
        self.faults.remove_disk(name)
        self.manager.disk_removed(disk)
        self._witness.forget(disk)
        return disk

    def add_export(self, config: Export) -> RunningExport:
        """Listen for front ends of a new export.

        Raises:
            ConfigError: it cannot be made as asked for.
        """
        device = self.maker.blk(config) if isinstance(config, BlkExport) else self.maker.scsi(config)
        try:
            running = RunningExport(config.socket, self.loop, device, config.access)
        except ConfigError:
            self.maker.forget(device, _nothing)
            raise
        running.on_front_end = lambda here: self.events.tell(
            (news.FrontEndConnected if here else news.FrontEndGone)(config.id)
        )
        self.exports[config.id] = ServedExport(config, device, running)
        self.shows(config.socket, config.disks)
        self.faults.add_door(
            config.id, self.maker.gates[config.socket], door(config, self.maker.disks), running.drop
        )
        self.tracing.attach(config.id)
        self.statistics.add(config.id, self.maker.gates[config.socket], device)
        return running

    def shows(self, socket: str, disks: tuple[str, ...]) -> None:
        """An export shows these disks, now or from now on: their layers are told the names of requests."""
        self._witness.stand_at(self.maker.gates[socket], disks)

    def _found_corruption(self, finding: Finding) -> None:
        """On the thread that met it."""
        told = news.CorruptionFound(finding.disk, finding.block, str(finding))
        self.loop.call_soon(lambda: self.events.tell(told))

    def remove_export(self, name: str, removed: Callable[[], None]) -> None:
        """Close the socket, drop the guest, take the logical units away; `removed` once nothing of it runs."""
        self.tracing.detach(name)
        self.statistics.remove(name)
        export = self.exports.pop(name)
        self.faults.remove_door(name)
        self.maker.gates.pop(export.config.socket, None)  # a new export there is watched anew
        self._leaving += 1

        def left() -> None:
            self._leaving -= 1
            removed()
            self._tell_left()

        export.running.close(lambda: self.maker.forget(export.device, left))

    def when_left(self, over: Callable[[], None]) -> None:
        """Call `over` once every export that was removed has drained, perhaps now."""
        self._when_left.append(over)
        self._tell_left()

    def _tell_left(self) -> None:
        if not self._leaving:
            waiting, self._when_left = self._when_left, []
            for over in waiting:
                over()

    def resized(self, disk: Disk) -> None:
        """A disk has another size: everybody is told."""
        log.info("disk %s: now %d bytes", disk.name, disk.size)
        self.maker.resized(disk)
        for export in self.exports.values():
            export.running.resized(disk.name)
        self.events.tell(news.DiskResized(disk.name, disk.size))

    def follow_growth(self) -> None:
        """Guests see the new size of images that have been made larger."""
        for served in self.disks.values():
            disk, before = served.disk, served.disk.size
            try:
                actual = disk.follow_growth()
            except OSError as error:
                log.warning("disk %s: its size cannot be found: %s", disk.name, error.strerror)
                continue
            if actual < before:
                log.warning("disk %s: its image has shrunk: make it %d bytes again", disk.name, before)
            elif actual > before:
                self.resized(disk)


def open_configured(config: DiskConfig, state: StateFolder | None = None) -> Disk:
    """Open a disk with its layers, its snapshots noted in `state`. May wait for the host.

    Raises:
        DiskError: one sentence with the cure; an image that was made for it is gone again.
    """
    created = not Path(config.path).exists()
    disk: Disk = open_disk(
        config.id,
        config.path,
        size=config.size,
        block_size=config.block_size,
        physical_block_size=config.physical_block_size,
        serial=config.serial,
        readonly=config.readonly,
        journal=state.disk(config.id) if state else None,
    )
    try:
        return layered(disk, config.layers, dict(config.layer_options))
    except DiskError:  # layered() has closed it
        if created:
            Path(config.path).unlink()
        raise


def _nothing() -> None:
    """Nobody waits."""
