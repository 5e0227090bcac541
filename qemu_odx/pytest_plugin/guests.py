"""Guests for tests, shared or fresh for each test; disks are plugged in for one test, then taken out again.

May import: lab. A guest that does not give its disks back, or is gone, is not used again.
"""

from __future__ import annotations

import json
import shlex
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, Self

from qemu_odx.lab.errors import LabError
from qemu_odx.lab.machine import Plug
from qemu_odx.lab.paths import data_folder
from qemu_odx.pytest_plugin.starting import GuestOrder, start

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import pytest

    from qemu_odx.lab.live import LiveGuest
    from qemu_odx.lab.ssh import Completed
    from qemu_odx.pytest_plugin.disks import OdxDisk
    from qemu_odx.pytest_plugin.options import OdxOptions
    from qemu_odx.pytest_plugin.server import OdxServer
    from qemu_odx.pytest_plugin.starting import Started

SCSI = "odx-scsi"
COMMAND_SECONDS = 120.0
SCRIPTS = "odx-scripts"
# Quoted, for a pattern that matched nothing yet may match something a moment later.
BY_SCSI = (
    "for d in /sys/block/sd*; do "
    'grep -qs {serial} "$d/device/vpd_pg80" && echo "/dev/${{d##*/}}" && break; done'
)
BY_BLK = (
    "for d in /sys/block/vd*; do "
    '[ "$(cat "$d/serial" 2> /dev/null)" = {serial} ] && echo "/dev/${{d##*/}}" && break; done'
)


class OdxGuest:
    """A guest with the test's disks in it.

    Attributes:
        live: the guest itself: `live.machine` can be paused, reset, looked at.
        resumed: it was resumed and not booted.
        reason: why it was booted.
    """

    def __init__(self, live: LiveGuest, server: OdxServer, reason: str, *, resumed: bool) -> None:
        self.live = live
        self.resumed = resumed
        self.reason = reason
        self._server = server
        self._scripts = ""

    def run(self, command: str, *, seconds: float = COMMAND_SECONDS) -> Completed:
        """Run a shell command to its end: exit status, standard output, standard error.

        Raises:
            LabError: the guest or the disk server is gone, or the guest was silent for `seconds`.
        """
        try:
            return self.live.shell.run(command, seconds=seconds)
        except LabError:
            self._server.check()  # if the disks are gone, that is the cause
            raise

    def sh(self, command: str, *, seconds: float = COMMAND_SECONDS) -> str:
        """What a shell command prints. Raises AssertionError if it fails."""
        done = self.run(command, seconds=seconds)
        if done.status != 0:
            raise AssertionError(f"{command}: exit status {done.status}\n{done.stdout}{done.stderr}")
        return done.stdout

    def node(self, disk: OdxDisk, *, blk: bool = False) -> str:
        """The guest's device of a disk, waited for: the SCSI disk, or with `blk` the virtio-blk one.

        Where the guest is not the lab's Linux it is the first that has the disk's serial number.
        """
        if self.live.adapter.marker is None:
            return self.live.disk(disk.serial)
        find = (BY_BLK if blk else BY_SCSI).format(serial=shlex.quote(disk.serial))
        again = f'for i in $(seq 300); do found=$({find}); [ -z "$found" ] || break; sleep 0.1; done'
        found = self.sh(f'{again}; echo "$found"').strip()
        if not found:
            raise AssertionError(f"the guest does not find the disk {disk.name} ({disk.serial})")
        return found

    def sha256(self, disk: OdxDisk, *, blk: bool = False) -> str:
        """SHA-256 of a whole disk as the guest reads it, past its cache."""
        node = self.node(disk, blk=blk)
        return self.sh(f"dd if={node} bs=1M iflag=direct 2> /dev/null | sha256sum").split()[0]

    def scripts(self) -> str:
        """The folder in the guest with our Linux guest scripts, put there when first wanted."""
        if not self._scripts:
            self.sh(f"rm -rf /tmp/{SCRIPTS}")
            self._scripts = self.live.upload(data_folder("guest_scripts") / "linux", SCRIPTS)
        return self._scripts

    def script(self, name: str, *arguments: str, seconds: float = COMMAND_SECONDS) -> Any:
        """Run one of our Linux guest scripts (guest_scripts/linux) and return the object that it prints.

        Raises:
            AssertionError: it failed.
        """
        return json.loads(
            self.sh(shlex.join(["python3", f"{self.scripts()}/{name}", *arguments]), seconds=seconds)
        )

    def upload(self, folder: Path, name: str) -> str:
        """Copy the files of a folder into a new scratch folder of the guest; its path there."""
        return self.live.upload(folder, name)

    def download(self, source: str, target: Path) -> None:
        """Copy a file of the guest to the host."""
        self.live.download(source, target)


class GuestPool:
    """The guests of a session. Under xdist each worker has its own pool."""

    def __init__(self, options: OdxOptions) -> None:
        self._options = options
        self._shared: dict[GuestOrder, Started] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for order in [*self._shared]:
            self._shared.pop(order).end()

    @contextmanager
    def lend(self, item: pytest.Item, server: OdxServer) -> Iterator[OdxGuest]:
        """A guest with the disks of `server`, for one test."""
        order, fresh = self._order(item)
        started = self._shared.pop(order, None) if not fresh else None
        if started is not None and not started.alive:
            started.end()
            started = None
        started = started or start(order, self._options, server.artifacts.kept)
        reusable = False
        try:
            with server.artifacts.kept(started.run.path):
                _plug(started.live, server)
                yield OdxGuest(started.live, server, started.reason, resumed=started.resumed)
                if server.artifacts.wanted:
                    with suppress(LabError):
                        started.live.collect(started.run.path)
                server.let_go()
                reusable = not fresh and _unplugged(started.live, server)
        finally:
            if reusable:
                self._shared[order] = started
            else:
                started.end()

    def _order(self, item: pytest.Item) -> tuple[GuestOrder, bool]:
        wishes: dict[str, Any] = {}
        for mark in reversed([*item.iter_markers("odx_guest")]):
            wishes |= mark.kwargs
        fresh = wishes.pop("fresh", None)
        image = wishes.pop("image", None) or self._options.image or self._options.guest
        return GuestOrder(str(image), **wishes), self._options.fresh if fresh is None else fresh


def _plugs(server: OdxServer) -> dict[str, Plug]:
    blk = {f"odx-blk{number}": path for number, path in enumerate(server.blk_sockets.values())}
    return {SCSI: Plug("scsi", server.scsi_socket), **{name: Plug("blk", path) for name, path in blk.items()}}


def _plug(live: LiveGuest, server: OdxServer) -> None:
    for name, plug in _plugs(server).items():
        live.machine.plug(name, plug)


def _unplugged(live: LiveGuest, server: OdxServer) -> bool:
    """Take the disks out again; False if the guest does not let go of them or is gone."""
    try:
        for name in _plugs(server):
            live.machine.unplug(name)
    except LabError:
        return False
    return True
