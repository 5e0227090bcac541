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
import time
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn, Self

from qemu_odx.disk.file import DiskError
from qemu_odx.server import power
from qemu_odx.server.backend import Backend, open_configured
from qemu_odx.server.clock import RealClock, VirtualClock
from qemu_odx.server.loop import Loop
from qemu_odx.server.news import Shutdown
from qemu_odx.server.options import ConfigError
from qemu_odx.server.workers import Workers
from qemu_odx.vhost.bus_guard import bus_guard

if TYPE_CHECKING:
    from types import TracebackType

    from qemu_odx.disk.port import Disk
    from qemu_odx.server.config import DiskConfig, Export, ServeConfig
    from qemu_odx.server.journal.folder import StateFolder
    from qemu_odx.server.metrics.address import Address
    from qemu_odx.server.metrics.endpoint import MetricsEndpoint
    from qemu_odx.server.monitor.connection import Monitor
    from qemu_odx.server.trace_options import TraceConfig


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
            self._workers = Workers(self._loop)
            undo.callback(self._workers.close)
            clock = VirtualClock() if config.virtual_clock else RealClock(self._loop)
            state = _open_state(config, undo)
            self._backend = Backend(
                self._loop, self._workers, clock, self._stop, self._on_power_cut, state=state
            )
            self._backend.statistics.wanted = bool(config.monitor or config.metrics)
            self._backend.maker.groups_named = any(export.group for export in config.exports)
            for disk in config.disks:
                self._backend.enter_disk(disk, _open(disk, undo, state))
            self._revive()
            self._backend.faults.begin(config.faults, guest_control=config.guest_control)
            for export in config.exports:
                self._add_export(export, undo)
            self._survive()
            if config.trace is not None:
                self._start_trace(config.trace)
            self._metrics = _metrics(config.metrics, self._backend)
            if self._metrics:
                undo.callback(self._metrics.close)
            self._monitor = _monitor(config.monitor, self._backend)
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
        return [export.config.socket for export in self._backend.exports.values()]

    @property
    def metrics(self) -> str | None:
        """Where Prometheus finds its numbers, None if nowhere."""
        return self._metrics.address.url() if self._metrics else None

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
        self._backend.manager.pause()
        for export in self._backend.exports.values():
            export.running.close(lambda: None)
        if self._monitor:
            self._monitor.close()
        if self._metrics:
            self._metrics.close()
        if not self._gave_up:
            self._workers.close()
        if trace := self._backend.tracing.stop():
            trace.close()
        for name, served in self._backend.disks.items():
            try:
                served.disk.close()
            except OSError as error:
                failed.append(f"disk {name} could not be flushed: {error.strerror}")
        if self._backend.state:
            self._backend.state.close()
        self._loop.close()
        if failed:
            raise ServerError("; ".join(failed))

    def _revive(self) -> None:
        """Go on with the tokens and copies of a predecessor, as far as no export is needed for that."""
        if self._backend.state is None:
            return
        from qemu_odx.server.journal.revival import revive  # noqa: PLC0415
        from qemu_odx.server.journal.store import JournalError  # noqa: PLC0415

        disks = [served.disk for served in self._backend.disks.values()]
        try:
            revive(self._backend.manager, self._backend.state, disks)
        except JournalError as error:
            raise ServerError(str(error)) from error

    def _survive(self) -> None:
        """All exports are there: copies go on, and once a second what a successor must know is noted."""
        if self._backend.state is None:
            return
        from qemu_odx.server.journal.heartbeat import Heartbeat  # noqa: PLC0415

        self._backend.manager.go_on()
        Heartbeat(self._loop, self._backend.state, self._backend.manager)
        if isinstance(self._backend.clock, VirtualClock):
            self._backend.clock.moved = self._backend.state.journal.beat

    def _add_export(self, config: Export, undo: contextlib.ExitStack) -> None:
        try:
            running = self._backend.add_export(config)
        except ConfigError as error:
            raise ServerError(str(error)) from error
        undo.callback(running.close, lambda: None)

    def _start_trace(self, config: TraceConfig) -> None:
        try:
            self._backend.tracing.start(config, fresh=True)
        except ConfigError as error:
            raise ServerError(f"the trace: {error}") from error

    def _follow_growth(self) -> None:
        self._backend.follow_growth()

    def power_cut(self) -> NoReturn:
        """The host's crash, modelled: see `server/power.py`. The process ends as it is, with `power.EXIT_CODE`."""
        if self._backend.state:
            self._backend.state.host_crashed()
        disks = [served.disk for served in self._backend.disks.values()]
        power.cut_power(disks, self._backend.manager)
        if trace := self._backend.tracing.stop():
            trace.close()
        logging.shutdown()
        os._exit(power.EXIT_CODE)

    def _on_power_cut(self) -> None:
        """A disk met its cut, on some thread."""
        self._loop.call_soon(self.power_cut)

    def _on_signal(self) -> None:
        if self._open_exports:
            self._gave_up = True
            self._loop.stop()
        else:
            self._stop("host-signal")

    def _stop(self, reason: str) -> None:
        """Let every export drain, then stop. Idempotent."""
        if self._open_exports:
            return
        self._backend.manager.pause()
        self._backend.events.tell(Shutdown(guest=False, reason=reason))
        exports = list(self._backend.exports.values())
        self._open_exports = 1 + len(exports)
        for export in exports:
            export.running.close(self._on_closed)
        self._backend.when_left(self._on_closed)

    def _on_closed(self) -> None:
        self._open_exports -= 1
        if not self._open_exports:
            self._loop.stop()


def _open_state(config: ServeConfig, undo: contextlib.ExitStack) -> StateFolder | None:
    """Open the state folder, if there is to be one: only then its code is loaded."""
    if config.state is None:
        return None
    from qemu_odx.server.journal.folder import StateFolder  # noqa: PLC0415
    from qemu_odx.server.journal.store import JournalError  # noqa: PLC0415

    try:
        state = StateFolder(Path(config.state), ruler=None if config.virtual_clock else time.monotonic)
    except JournalError as error:
        raise ServerError(str(error)) from error
    undo.callback(state.close)
    return state


def _open(config: DiskConfig, undo: contextlib.ExitStack, state: StateFolder | None) -> Disk:
    """Open a disk with its layers; `undo` closes it, and removes its image if it was made here."""
    created = not Path(config.path).exists()
    try:
        disk = open_configured(config, state)
    except DiskError as error:
        raise ServerError(str(error)) from error
    if created:
        undo.callback(Path(config.path).unlink)
    undo.callback(disk.close)
    return disk


def _monitor(path: str | None, backend: Backend) -> Monitor | None:
    """The monitor, if one is wanted: only then its code is loaded."""
    if path is None:
        return None
    from qemu_odx.server.monitor.connection import Monitor  # noqa: PLC0415

    try:
        return Monitor(path, backend)
    except ConfigError as error:
        raise ServerError(f"the monitor: {error}") from error


def _metrics(address: Address | None, backend: Backend) -> MetricsEndpoint | None:
    """The endpoint for Prometheus, if one is wanted: only then its library is loaded."""
    if address is None:
        return None
    try:
        from qemu_odx.server.metrics.endpoint import MetricsEndpoint  # noqa: PLC0415

        return MetricsEndpoint(address, backend)
    except ImportError as error:
        raise ServerError("--metrics needs prometheus-client: pip install 'qemu_odx[metrics]'") from error
    except ConfigError as error:
        raise ServerError(str(error)) from error


def _raise_descriptor_limit() -> None:
    """Each queue needs three descriptors and each memory slot one: take what the system allows."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
