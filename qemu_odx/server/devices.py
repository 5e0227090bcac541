"""Which device model stands behind which export.

Imports `virtio/`, `target/` and the storage port. All exports share one copy manager, so that a token made
through one is good on every other; all exports of a disk share that disk.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from qemu_odx.target.manager import CopyManager
from qemu_odx.target.target import Target
from qemu_odx.virtio.blk import BlkDevice
from qemu_odx.virtio.scsi import ScsiDevice

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from qemu_odx.disk.port import Disk, Runner
    from qemu_odx.server.config import BlkExport, ScsiExport
    from qemu_odx.virtio.port import Device


class DeviceMaker:
    """Makes, for each export, the function that makes a fresh device for each front end."""

    def __init__(self, disks: Mapping[str, Disk], runner: Runner) -> None:
        self._disks = disks
        self._runner = runner
        self._manager = CopyManager(runner)

    def blk(self, config: BlkExport) -> Callable[[], Device]:
        """A virtio-blk device on one disk."""
        return partial(BlkDevice, self._disks[config.disk], self._runner, config.num_queues)

    def scsi(self, config: ScsiExport) -> Callable[[], Device]:
        """A virtio-scsi device; its target, unlike the device, outlives the front ends."""
        units = {number: self._disks[disk] for number, disk in config.luns}
        target = Target.on(units, self._manager, self._runner)
        return partial(ScsiDevice, target, config.num_queues)
