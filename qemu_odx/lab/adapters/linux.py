"""Linux guests: the image that the lab builds, and what a user brings.

May import: ssh (its `Login`), image. See `port.py`.
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from qemu_odx.lab.ssh import Login

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from qemu_odx.lab.image import Image

MARKER = "LAB:ssh-ready"  # vm_images/linux/lab-init writes it once its ssh server listens
BOOT_SECONDS = 90.0  # thirty times what a quiet machine takes
OWN_BOOT_SECONDS = 600.0  # a distribution with all its services, under TCG
FIND_BY_SERIAL = (
    "for d in /sys/block/*; do "
    '[ "$(cat "$d/serial" 2> /dev/null)" = {0} ] || grep -qs {0} "$d/device/vpd_pg80" || continue; '
    'echo "/dev/${{d##*/}}"; break; done'
)


@dataclass(frozen=True, slots=True)
class LinuxAdapter:
    """See `GuestAdapter`."""

    login: Login
    marker: str | None = None
    boot_seconds: float = OWN_BOOT_SECONDS
    name: str = field(default="linux")

    def command(self, arguments: Sequence[str], folder: str | None = None) -> str:
        """See `GuestAdapter`."""
        line = shlex.join(arguments)
        return f"cd {shlex.quote(folder)} && {line}" if folder else line

    def new_folder(self, name: str) -> str:
        """See `GuestAdapter`."""
        return f"/tmp/{name}"  # noqa: S108 - in the guest

    def boot_identity(self) -> str:
        """See `GuestAdapter`. Documentation/admin-guide/sysctl/kernel.rst, "random"."""
        return "cat /proc/sys/kernel/random/boot_id"

    def reboot(self) -> str:
        """See `GuestAdapter`. The lab's image has no services to stop."""
        return "sync; reboot -f" if self.marker else self._as_root("reboot")

    def power_off(self) -> str:
        """See `GuestAdapter`."""
        return "sync; poweroff -f" if self.marker else self._as_root("poweroff")

    def _as_root(self, command: str) -> str:
        return command if self.login.user == "root" else f"sudo -n {command}"

    def disk_node(self, serial: str) -> str:
        """See `GuestAdapter`."""
        return FIND_BY_SERIAL.format(shlex.quote(serial))

    def collected_commands(self) -> Mapping[str, str]:
        """See `GuestAdapter`."""
        return {
            "dmesg.txt": "dmesg",
            "disks.txt": "cat /proc/partitions; grep -H . /sys/block/*/serial /sys/block/*/device/vendor",
            "system.txt": "uname -a; cat /etc/os-release; cat /proc/modules",
        }

    def collected_files(self) -> Sequence[str]:
        """See `GuestAdapter`."""
        return ()


def lab_linux(image: Image) -> LinuxAdapter:
    """The guest of an image that the lab built."""
    return LinuxAdapter(Login("root", image.private_key, image.host_key), MARKER, BOOT_SECONDS)
