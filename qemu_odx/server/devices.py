"""Which device model stands behind which export.

Imports `virtio/`, `target/` and the storage port. All exports share one copy manager; a token made through one is
good on every other of its group. All exports of a disk share that disk.
"""

from __future__ import annotations

import itertools
import time
from typing import TYPE_CHECKING

from qemu_odx.server.options import ConfigError
from qemu_odx.tap.gate import Gate, no_later
from qemu_odx.target import shared_disk
from qemu_odx.target.manager import CopyManager
from qemu_odx.target.port import LoginNexus
from qemu_odx.target.target import Target
from qemu_odx.virtio.blk import BlkDevice
from qemu_odx.virtio.mailbox import Mailbox
from qemu_odx.virtio.scsi import ScsiDevice
from qemu_odx.wire.mailbox import WINDOW, Head

if TYPE_CHECKING:
    from collections.abc import Callable

    from qemu_odx.disk.port import Disk, Runner
    from qemu_odx.server.config import BlkExport, Export, ScsiExport
    from qemu_odx.server.journal.folder import StateFolder
    from qemu_odx.tap.decision import Later
    from qemu_odx.virtio.port import Device


class DeviceMaker:
    """Makes the device of each export.

    Attributes:
        manager: the copy manager of the process; its `tick` is to be called (`server/expiry.py`).
        groups_named: an export names its group: those that name none are each a group of their own from now on.
        gates: where the requests of each export pass while somebody watches, by its socket.
        disks: by name; they come and go.

    Args:
        clock: of the copy manager.
        later: calls back after some seconds, for delays.
        state: where tokens and copies are noted; None: they end with the process.
    """

    def __init__(
        self,
        runner: Runner,
        clock: Callable[[], float] = time.monotonic,
        later: Later = no_later,
        state: StateFolder | None = None,
    ) -> None:
        self.manager = CopyManager(runner, clock, journal=state.copies(clock) if state else None)
        self._state = state
        self.groups_named = False
        self.gates: dict[str, Gate] = {}
        self.disks: dict[str, Disk] = {}
        self._later = later
        self._runner = runner
        self._targets: dict[Device, Target] = {}

    def group(self, config: Export) -> str:
        """The group of an export: its name; without one "", or its own where others have names (`docs/policy.md`)."""
        if config.group is not None:
            self.groups_named = True
            return config.group
        return f"socket:{config.socket}" if self.groups_named else ""  # no name has a colon

    def blk(self, config: BlkExport) -> Device:
        """A virtio-blk device on one disk; its socket names the initiator port of its mailbox.

        Raises:
            ConfigError: the disk has no room for the mailbox.
        """
        disk = self.disks[config.disk]

        def kept_out(writing: bool) -> bool:
            return self.manager.reservations(disk).keeps_out(config.socket, writing=writing)

        gate = self._gate(config)
        target = mailbox = None
        if config.mailbox is not None:
            _check_room(disk, config.mailbox)
            target = Target.on({0: disk}, self.manager, self._runner, self.group(config), gate)
            target.port = config.socket
            mailbox = self._mailbox(config.socket, target, config.mailbox)
        device = BlkDevice(
            disk,
            self._runner,
            num_queues=config.num_queues,
            kept_out=kept_out,
            mailbox=mailbox,
            gate=gate,
        )
        if target:
            self._targets[device] = target
        return device

    def scsi(self, config: ScsiExport) -> Device:
        """A virtio-scsi device on a target of its own; its socket names the initiator port there."""
        units = {number: self.disks[disk] for number, disk in config.luns}
        target = Target.on(units, self.manager, self._runner, self.group(config), self._gate(config))
        target.port = config.socket
        device = ScsiDevice(target, config.num_queues, new_nexus=_logins(config.socket))
        self._targets[device] = target
        return device

    def target_of(self, device: Device) -> Target | None:
        """The target behind a device, None if it takes no SCSI commands."""
        return self._targets.get(device)

    def forget(self, device: Device, over: Callable[[], None]) -> None:
        """A device without a front end is taken away with its logical units; `over` once their copies have ended."""
        target = self._targets.pop(device, None)
        if target is None:
            over()
            return
        self.manager.targets.remove(target)
        waiting = target.luns()
        left = len(waiting)

        def one_over(_found: bool) -> None:
            nonlocal left
            left -= 1
            if not left:
                over()

        for lun in waiting:
            target.remove(lun, one_over)

    def resized(self, disk: Disk) -> None:
        """A disk shows another size: unit attentions on every way to it, tokens of what is gone end."""
        shared_disk.resized(self.manager, disk)

    def _gate(self, config: Export) -> Gate:
        """The gate of an export, one for all parts of its device."""
        gate = Gate(config.id or config.socket, clock=self.manager.clock, later=self._later)
        self.gates[config.socket] = gate
        return gate

    def _mailbox(self, socket: str, target: Target, offset: int) -> Mailbox:
        """A mailbox on a target of its own, whose logical unit 0 is the disk."""
        unit = target.units[0]
        head = Head(offset, unit.block_size, unit.naa, unit.disk.serial)
        journal = self._state.slots(socket, lambda: self.manager.pausing) if self._state else None
        return Mailbox(target, head, self.manager.clock, new_nexus=_logins(socket), journal=journal)


def _logins(port: str) -> Callable[[], LoginNexus]:
    """Makes the nexuses of an initiator port, one for each life of a driver; no process makes those of another."""
    lives = itertools.count(time.time_ns())
    return lambda: LoginNexus(port, next(lives))


def _check_room(disk: Disk, offset: int) -> None:
    if disk.readonly:
        raise ConfigError(
            f"disk {disk.name} is read-only, and a mailbox is written to: leave out mailbox= or readonly=on"
        )
    if offset + WINDOW > disk.size:
        raise ConfigError(
            f"a mailbox at {offset} ends at {offset + WINDOW}, behind the end of disk {disk.name} at {disk.size}: "
            "choose a smaller mailbox=OFFSET or a larger disk"
        )
