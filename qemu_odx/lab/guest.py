"""The guest of most tests and of the demonstration: the lab's Linux in a QEMU of the lab.

May import: errors, live, machines/qemu, adapters/linux. Next: `demo.py` does something with it.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from qemu_odx.lab.adapters.linux import BOOT_SECONDS, MARKER, lab_linux
from qemu_odx.lab.disk_image import DiskImage
from qemu_odx.lab.errors import LabError
from qemu_odx.lab.live import LiveGuest
from qemu_odx.lab.machines.qemu import QemuMachine

if TYPE_CHECKING:
    from pathlib import Path

    from qemu_odx.lab.qemu import GuestSpec
    from qemu_odx.lab.qmp import Monitor


class Guest(LiveGuest):
    """A booted Linux guest one can log in to."""

    machine: QemuMachine

    def __init__(
        self, spec: GuestSpec, folder: Path, *, marker: str = MARKER, patience: float = BOOT_SECONDS
    ) -> None:
        """Start QEMU, wait for the guest's marker on the serial port, and log in.

        Args:
            spec: what to boot; its image is one that the lab built.
            folder: takes `qemu.log`, `serial.log` and, if the guest does not come up, `state.log`.
            marker: what the guest writes when its ssh server listens.
            patience: how long the marker may take, in seconds.

        Raises:
            LabError: QEMU is missing or refuses its devices, or the guest does not come up.
        """
        if isinstance(spec.image, DiskImage):
            raise LabError("a disk image says nothing of its guest", "use LiveGuest with an adapter")
        adapter = replace(lab_linux(spec.image), marker=marker)
        super().__init__(QemuMachine(spec, folder), adapter, patience=patience)

    @property
    def monitor(self) -> Monitor:
        """QEMU's monitor."""
        return self.machine.monitor

    @property
    def pid(self) -> int:
        """QEMU's process id."""
        return self.machine.pid
