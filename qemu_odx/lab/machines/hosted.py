"""What every machine has on the lab's host, whoever controls it: its console's log and its own system disk.

May import: errors, disk_image, system_disk, qemu (its data). Next: `qemu.py`, `libvirt.py`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

from qemu_odx.lab.disk_image import DiskImage
from qemu_odx.lab.errors import LabError
from qemu_odx.lab.system_disk import SystemDisk

if TYPE_CHECKING:
    from pathlib import Path

    from qemu_odx.lab.qemu import GuestSpec


class HostedMachine(ABC):
    """The part of a `Machine` that does not depend on who controls it.

    Attributes:
        folder: takes `serial.log` and the machine's own system disk.
    """

    def __init__(self, spec: GuestSpec, folder: Path) -> None:
        """Raises LabError if the image is not there."""
        self.folder = folder
        self._spec = spec
        self._sockets = (*spec.scsi_sockets, *spec.blk_sockets)
        self._system = SystemDisk(spec.image, folder) if isinstance(spec.image, DiskImage) else None

    @property
    @abstractmethod
    def running(self) -> bool:
        """See `Machine`."""

    @abstractmethod
    def kill(self) -> None:
        """See `Machine`."""

    def save_system(self) -> None:
        """See `Machine`."""
        if self.running:
            raise LabError("the system disk is in use", "shut the machine down before you save it")
        if self._system:
            self._system.save()

    def revert_system(self) -> None:
        """See `Machine`."""
        self.kill()
        if self._system:
            self._system.revert()

    def console(self) -> str:
        """See `Machine`."""
        try:
            return (self.folder / "serial.log").read_text(errors="replace")
        except OSError:
            return ""

    def _require_screen(self) -> None:
        if not self._spec.display:
            raise LabError("the machine has no screen", "start it with a display")
