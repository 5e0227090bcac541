"""The lab's Linux guest with Wine in it: Windows programs run through `odx-wine`, all else is Linux.

May import: adapters/linux, image. See `port.py`. The wrapper is `vm_images/wine/odx-wine`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from qemu_odx.lab.adapters.linux import BOOT_SECONDS, MARKER, LinuxAdapter
from qemu_odx.lab.ssh import Login

if TYPE_CHECKING:
    from collections.abc import Sequence

    from qemu_odx.lab.image import Image

PROGRAM_SUFFIX = ".exe"
OPEN_TO_PROGRAMS = "1"


@dataclass(frozen=True, slots=True)
class WineAdapter(LinuxAdapter):
    """See `GuestAdapter`.

    Attributes:
        disks: the block devices that become PhysicalDrive1 and 2.
    """

    name: str = field(default="wine")
    disks: tuple[str, str] = ("/dev/vdb", "/dev/vdc")

    def command(self, arguments: Sequence[str], folder: str | None = None) -> str:
        """See `GuestAdapter`. A Windows program is odx.exe, with the drivers beside it in `folder`."""
        program, *rest = arguments
        if program.endswith(PROGRAM_SUFFIX):
            arguments = ["odx-wine", OPEN_TO_PROGRAMS, *self.disks, "--", *rest]
        return LinuxAdapter.command(self, arguments, folder)


def lab_wine(image: Image) -> WineAdapter:
    """The guest of the image `wine` that the lab built."""
    return WineAdapter(Login("root", image.private_key, image.host_key), MARKER, BOOT_SECONDS)
