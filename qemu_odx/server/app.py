"""The server: disks, copy manager and exports put together, from the first socket to the last flush.

Imports everything below `server/`. Called by `cli/serve.py` with a checked configuration.
"""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import resource
import signal
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn, Self

from qemu_odx.disk.file import DiskError, open_disk
from qemu_odx.disk.layers.table import layered
from qemu_odx.server import power
from qemu_odx.server.config import BlkExport, DiskConfig, Export, ServeConfig
from qemu_odx.server.devices import DeviceMaker
from qemu_odx.server.export import Export as RunningExport
from qemu_odx.server.loop import Loop
from qemu_odx.server.options import ConfigError
from qemu_odx.server.workers import Workers
from qemu_odx.vhost.bus_guard import bus_guard

if TYPE_CHECKING:
    from types import TracebackType

    from qemu_odx.disk.port import Disk

log = logging.getLogger(__name__)

_TICK_SECONDS = 1.0
"""Inactivity time-outs of tokens are whole seconds; ending one a second late hurts nobody."""


class ServerError(Exception):
    """The server cannot start, or could not end well: one sentence for the user."""


class Server:
    """Everything that `qemu-odx serve` runs. When it is made, every socket listens.

    Raises:
        ServerError: it cannot start; images and sockets made on the way are gone again.
    """

    def __init__(self, config: ServeConfig) -> None:
        _raise_descriptor_limit()
        self._open_exports = 0
        self._gave_up = False
        with contextlib.ExitStack() as undo:
            self._loop = Loop()
            undo.callback(self._loop.close)
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
                if signal.getsignal(number) is not signal.SIG_IGN:  # nohup, or a job in the background
                    self._loop.on_signal(number, self._on_signal)
            self._loop.on_signal(signal.SIGUSR1, self._follow_growth)
            if guard := bus_guard():
                self._loop.watch(guard.fileno(), guard.report)
            self._disks = {disk.id: _open(disk, undo) for disk in config.disks}
            for layer in power.power_layers(self._disks.values()):
                layer.on_cut = self._on_power_cut
            self._workers = Workers(self._loop)
            undo.callback(self._workers.close)
            self._maker = DeviceMaker(self._disks, self._workers, self._loop.call_later)
            self._maker.groups_named = any(export.group for export in config.exports)
            self._tick()
            self._exports = [self._export(export, undo) for export in config.exports]
            undo.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def sockets(self) -> list[str]:
        """The paths that listen, in the order of the exports."""
        return [export.path for export in self._exports]

    def run(self) -> None:
        """Serve until SIGTERM, SIGINT or SIGHUP, then until every request in flight has ended.

        Raises:
            ServerError: a second signal came before that.
        """
        # What exists now stays: the collector need not look at it again and again while requests wait.
        gc.collect()
        gc.freeze()
        self._loop.run()
        if self._gave_up:
            raise ServerError("stopped by a second signal before every request in flight had ended")

    def close(self) -> None:
        """Remove the sockets, end the workers, flush and unlock every disk.

        Raises:
            ServerError: a disk could not be flushed.
        """
        failed = []
        for export in self._exports:
            export.close(lambda: None)
        if not self._gave_up:
            self._workers.close()
        for disk in self._disks.values():
            try:
                disk.close()
            except OSError as error:
                failed.append(f"disk {disk.name} could not be flushed: {error.strerror}")
        self._loop.close()
        if failed:
            raise ServerError("; ".join(failed))

    def _export(self, config: Export, undo: contextlib.ExitStack) -> RunningExport:
        try:
            make = self._maker
            device = make.blk(config) if isinstance(config, BlkExport) else make.scsi(config)
            export = RunningExport(config.socket, self._loop, device, config.access)
        except ConfigError as error:
            raise ServerError(str(error)) from error
        undo.callback(export.close, lambda: None)
        return export

    def _tick(self) -> None:
        """End the tokens that have expired, once a second."""
        self._maker.manager.tick()
        self._loop.call_later(_TICK_SECONDS, self._tick)

    def _follow_growth(self) -> None:
        """Guests see the new size of images that have been made larger."""
        for disk in self._disks.values():
            before = disk.size
            try:
                actual = disk.follow_growth()
            except OSError as error:
                log.warning("disk %s: its size cannot be found: %s", disk.name, error.strerror)
                continue
            if actual < before:
                log.warning("disk %s: its image has shrunk: make it %d bytes again", disk.name, before)
            elif actual > before:
                log.info("disk %s: now %d bytes", disk.name, actual)
                self._maker.resized(disk)
                for export in self._exports:
                    export.resized(disk.name)

    def power_cut(self) -> NoReturn:
        """The host's crash, modelled: see `server/power.py`. The process ends as it is, with `power.EXIT_CODE`."""
        power.cut_power(self._disks.values(), self._maker.manager)
        logging.shutdown()
        os._exit(power.EXIT_CODE)

    def _on_power_cut(self) -> None:
        """A disk met its cut, on some thread."""
        self._loop.call_soon(self.power_cut)

    def _on_signal(self) -> None:
        if self._open_exports:
            self._gave_up = True
            self._loop.stop()
            return
        self._open_exports = len(self._exports)
        for export in self._exports:
            export.close(self._on_closed)

    def _on_closed(self) -> None:
        self._open_exports -= 1
        if not self._open_exports:
            self._loop.stop()


def _open(config: DiskConfig, undo: contextlib.ExitStack) -> Disk:
    """Open a disk with its layers; `undo` closes it, and removes its image if it was made here."""
    created = not Path(config.path).exists()
    try:
        disk: Disk = open_disk(
            config.id,
            config.path,
            size=config.size,
            block_size=config.block_size,
            physical_block_size=config.physical_block_size,
            serial=config.serial,
            readonly=config.readonly,
        )
        if created:
            undo.callback(Path(config.path).unlink)
        disk = layered(disk, config.layers, dict(config.layer_options))
    except DiskError as error:
        raise ServerError(str(error)) from error
    undo.callback(disk.close)
    return disk


def _raise_descriptor_limit() -> None:
    """Each queue needs three descriptors and each memory slot one: take what the system allows."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
