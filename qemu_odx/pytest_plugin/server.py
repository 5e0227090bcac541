"""A test's disk server: its disks, an export for the guest, one for the host's own commands.

May import: lab, testing. Next: `guests.py` plugs the exports into a guest, `tokens.py` talks to the host's.
"""

from __future__ import annotations

import socket
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING, Any

import pytest

from qemu_odx.lab.backend import Backend, BlkExport, DiskSpec, ScsiExport, serve_command
from qemu_odx.lab.errors import LabError
from qemu_odx.lab.qmp import Monitor
from qemu_odx.lab.run_folder import RunFolder
from qemu_odx.pytest_plugin.disks import OdxDisk, ordered_disks
from qemu_odx.testing.monitor_faults import MonitorFaults
from qemu_odx.testing.scsi_guest import ScsiGuest

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from qemu_odx.pytest_plugin.artifacts import Artifacts
    from qemu_odx.pytest_plugin.disks import DiskOrder
    from qemu_odx.testing.initiator import Initiator

SERIAL_LENGTH = 20


class OdxServer:
    """A running `qemu-odx serve`.

    Attributes:
        disks: the test's disks; their logical unit numbers are their places here.
        folder: the folder of this run: sockets, images, logs.
        artifacts: where logs are kept if they are wanted.
        scsi_socket: a vhost-user-scsi export for a guest, with all the disks.
        blk_sockets: a vhost-user-blk export for each disk that has `blk=True`, by name.
        monitor_socket: where it speaks QMP.
    """

    def __init__(
        self, orders: tuple[DiskOrder, ...], arguments: tuple[str, ...], folder: Path, artifacts: Artifacts
    ) -> None:
        self.folder = folder
        self._orders = orders
        self.artifacts = artifacts
        self.scsi_socket = folder / "scsi.sock"
        self.blk_sockets = {
            order.name: folder / f"blk{n}.sock" for n, order in enumerate(orders) if order.blk
        }
        self.monitor_socket = folder / "monitor.sock"
        self._host_socket = folder / "host.sock"
        self._monitor: Monitor | None = None
        self._has_faults = "--fault" in arguments
        self._host: ScsiGuest | None = None
        self._arguments = arguments
        self._specs = [
            DiskSpec(f"d{n}", folder / f"d{n}.img", order.size, _serial(n, order.name), order.options)
            for n, order in enumerate(orders)
        ]
        self.disks = tuple(
            OdxDisk(order.name, n, spec.serial, order.size, order.block_size, spec.path, self.initiator)
            for n, (order, spec) in enumerate(zip(orders, self._specs, strict=True))
        )
        self._backend = self._start()

    def _start(self) -> Backend:
        every = tuple(spec.name for spec in self._specs)
        exports: list[ScsiExport | BlkExport] = [
            ScsiExport(self.scsi_socket, every),
            ScsiExport(self._host_socket, every),
        ]
        exports += [
            BlkExport(self.blk_sockets[order.name], f"d{number}", mailbox=order.mailbox)
            for number, order in enumerate(self._orders)
            if order.blk
        ]
        command = [
            *serve_command(self._specs, exports),
            "--monitor",
            str(self.monitor_socket),
            *self._arguments,
        ]
        return Backend(command, self.folder / "serve.log")

    @property
    def pid(self) -> int:
        """Process id of the server."""
        return self._backend.pid

    def initiator(self) -> Initiator:
        """A SCSI initiator of the host's own, behind no guest; connected when first wanted."""
        if self._host is None:
            self._host = ScsiGuest(self._host_socket)
            self._host.go()
        return self._host.initiator

    def execute(self, command: str, arguments: Mapping[str, object] | None = None) -> Any:
        """Run a command of the server's monitor (docs/monitor.md) and return what it returns.

        Raises:
            LabError: the server refused it, or is gone.
        """
        if self._monitor is None:
            connection = socket.socket(socket.AF_UNIX)
            try:
                connection.connect(str(self.monitor_socket))
            except OSError:
                connection.close()
                raise
            self._monitor = Monitor(connection, server="the disk server")
        return self._monitor.execute(command, arguments)

    @property
    def faults(self) -> MonitorFaults:
        """The fault rules of the server."""
        self._has_faults = True
        return MonitorFaults(self.execute)

    def let_go(self) -> None:
        """Remove every fault rule, so that nothing is held any more. A server that is gone holds nothing."""
        if self._has_faults:
            with suppress(LabError, OSError):
                self.faults.clear()
            self._has_faults = False

    def check(self) -> None:
        """Raise `LabError` if the server ended by itself."""
        self._backend.check()

    def stop(self) -> int:
        """End it, with nothing held any more; its exit code, 0 if all went well. Idempotent."""
        self.let_go()
        if self._host is not None:
            self._host.front.close()
            self._host = None
        if self._monitor is not None:
            self._monitor.close()
            self._monitor = None
        return self._backend.stop()


def _serial(number: int, name: str) -> str:
    """A serial number that is the name where it fits, and never the same for two disks."""
    serial = f"{number}-{name}"
    return serial[:SERIAL_LENGTH]


@contextmanager
def server_for(item: pytest.Item, artifacts: Artifacts) -> Iterator[OdxServer]:
    """The server of a test. Behind the test it must end well, or the test is in error."""
    try:
        orders = ordered_disks(item)
    except (TypeError, ValueError) as error:
        pytest.fail(f"marker odx_disk: {error}", pytrace=False)
    arguments = tuple(str(word) for mark in item.iter_markers("odx_server") for word in mark.args)
    with ExitStack() as stack:
        run = stack.enter_context(RunFolder())
        stack.enter_context(artifacts.kept(run.path))
        server = OdxServer(orders, arguments, run.path, artifacts)
        stack.callback(server.stop)
        yield server
        code = server.stop()
        if code != 0:
            pytest.fail(f"the disk server did not end well (exit code {code}); see serve.log", pytrace=False)
