"""A finished Windows image in the cache: its files, what is known of it, and how a machine uses it.

May import: errors, paths, disk_image, ssh, adapters/windows. Written by `build.py`; found by whoever boots it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from qemu_odx.lab.adapters.windows import MARKER, USER, WindowsAdapter
from qemu_odx.lab.disk_image import DiskImage, Firmware, find_firmware
from qemu_odx.lab.errors import LabError, MissingError
from qemu_odx.lab.manifest import FACTS, read_facts
from qemu_odx.lab.paths import images_folder
from qemu_odx.lab.ssh import Login

if TYPE_CHECKING:
    from pathlib import Path

WINDOWS = "windows"
BUILDING = ".building"
DISK, VARIABLES, KEY = "system.qcow2", "variables.fd", "id_ed25519"


@dataclass(frozen=True, slots=True)
class GoldenImage:
    """The folder of a finished image. Machines write to overlays of its disk."""

    folder: Path

    @property
    def facts(self) -> dict[str, Any]:
        """What `image.json` says: release, build, digests, when it was made. Raises LabError if it is damaged."""
        facts = read_facts(self.folder)
        if not facts:
            raise LabError(f"{self.folder} holds no finished image", "remove it and build it again")
        return facts

    @property
    def disk_image(self) -> DiskImage:
        """For a machine."""
        facts = self.facts
        return DiskImage(
            self.folder / DISK,
            system="windows",
            firmware=Firmware(find_firmware().code, self.folder / VARIABLES),
            tpm=bool(facts["tpm"]),
            description=f"{facts['name']}, build {facts['build']}",
        )

    @property
    def adapter(self) -> WindowsAdapter:
        """For its guest."""
        return WindowsAdapter(Login(USER, self.folder / KEY), MARKER)


def golden_folder(name: str) -> Path:
    """Where the image called `name` is, or will be."""
    return images_folder() / "golden" / name


def unfinished_images() -> list[str]:
    """The names of those whose build has begun and not ended."""
    return [path.name.removesuffix(BUILDING) for path in sorted(images_folder().glob(f"golden/*{BUILDING}"))]


def golden_images() -> dict[str, Path]:
    """The finished images, by name."""
    return {path.parent.name: path.parent for path in sorted(images_folder().glob(f"golden/*/{FACTS}"))}


def find_golden(name: str = WINDOWS) -> GoldenImage:
    """The finished image called `name`. Raises LabError if it has not been built."""
    folder = golden_folder(name)
    if not (folder / FACTS).exists():
        raise MissingError(
            f"there is no Windows image called {name}",
            "build it: qemu-odx image build windows --iso WIN.iso --virtio-iso VIRTIO.iso",
        )
    return GoldenImage(folder)
