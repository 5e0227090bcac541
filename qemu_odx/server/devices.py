"""Which device model stands behind which export.

Imports `virtio/`, `target/` and the storage port. All exports share one copy manager, so that a token made
through one is good on every other; all exports of a disk share that disk.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

from qemu_odx.target.manager import CopyManager
from qemu_odx.target.port import LoginNexus
from qemu_odx.target.target import Target
from qemu_odx.virtio.blk import BlkDevice
from qemu_odx.virtio.scsi import ScsiDevice

if TYPE_CHECKING:
    from collections.abc import Mapping

    from qemu_odx.disk.port import Disk, Runner
    from qemu_odx.server.config import BlkExport, ScsiExport
    from qemu_odx.virtio.port import Device


class DeviceMaker:
    """Makes the device of each export.

    Attributes:
        manager: the copy manager of the process; call its `tick` from time to time.
    """

    def __init__(self, disks: Mapping[str, Disk], runner: Runner) -> None:
        self.manager = CopyManager(runner)
        self._disks = disks
        self._runner = runner

    def blk(self, config: BlkExport) -> Device:
        """A virtio-blk device on one disk."""
        disk = self._disks[config.disk]

        def kept_out(writing: bool) -> bool:
            return self.manager.reservations(disk).keeps_out(writing=writing)

        return BlkDevice(disk, self._runner, num_queues=config.num_queues, kept_out=kept_out)

    def scsi(self, config: ScsiExport) -> Device:
        """A virtio-scsi device on a target of its own; its socket names the initiator port there."""
        units = {number: self._disks[disk] for number, disk in config.luns}
        lives = itertools.count()
        return ScsiDevice(
            Target.on(units, self.manager, self._runner),
            config.num_queues,
            new_nexus=lambda: LoginNexus(config.socket, next(lives)),
        )
