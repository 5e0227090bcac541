"""What a lab is made of, checked against itself.

Imports nothing of ours. Made by `load.py` (a file) or `options.py` (the command line); `lab/session/` starts it.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

SCSI, BLK = "vhost-user-scsi", "vhost-user-blk"
KINDS = (SCSI, BLK)
MACHINES = ("qemu", "libvirt")
ACCELERATORS = ("auto", "kvm", "tcg")
SYSTEMS = ("linux", "windows")
FIRMWARES = ("bios", "uefi")
MEBIBYTE = 1 << 20
DEFAULT_MEMORY, WINDOWS_MEMORY = 512 * MEBIBYTE, 4096 * MEBIBYTE


@dataclass(frozen=True, slots=True)
class Disk:
    """One disk of the server.

    Attributes:
        name: its id.
        path: the image file; None: a file in the folder of the run, thrown away with it.
        options: what else `qemu-odx serve --disk` is told, as written there (`size`, `serial`, `layers`).
    """

    name: str
    path: Path | None
    options: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Export:
    """One socket of the server.

    Attributes:
        name: what guests call it by.
        kind: one of `KINDS`.
        disks: disk names by logical unit number; one entry, unit 0, for vhost-user-blk.
        options: what else `qemu-odx serve --export` is told.
    """

    name: str
    kind: str
    disks: Mapping[int, str]
    options: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Guest:
    """One guest.

    Attributes:
        name: unique in the lab.
        image: a recipe of vm_images/images.toml, or the path of a disk image.
        exports: the names of its devices.
        memory: bytes; None: what suits what is in it.
        cpus: processors.
        system: "linux" or "windows", for a disk image.
        firmware: "bios" or "uefi", for a disk image.
        user: who logs in to a disk image by ssh.
        port: the port in the guest of a disk image's ssh server.
        private_key: the key that a disk image accepts; None: the user's ssh agent and usual key files.
    """

    name: str
    image: str
    exports: tuple[str, ...]
    memory: int | None = None
    cpus: int = 2
    system: str = "linux"
    firmware: str = "bios"
    user: str = "root"
    port: int = 22
    private_key: Path | None = None


@dataclass(frozen=True, slots=True)
class Lab:
    """All of it. `faults` are the rules of `qemu-odx serve --fault`, as written there."""

    disks: tuple[Disk, ...]
    exports: tuple[Export, ...]
    guests: tuple[Guest, ...]
    machine: str = "qemu"
    accelerator: str = "auto"
    uri: str = "qemu:///session"
    faults: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """The object that `qemu-odx config show --json` prints."""
        return asdict(self)

    def export(self, name: str) -> Export:
        """The export of that name, which exists."""
        return next(export for export in self.exports if export.name == name)


def disk_argument(disk: Disk, path: Path) -> str:
    """The value of `--disk`, the image being at `path`."""
    return _joined({"id": disk.name, "path": str(path), **disk.options})


def export_argument(export: Export, socket: Path) -> str:
    """The value of `--export`, listening at `socket`."""
    if export.kind == BLK:
        units = {"disk": export.disks[0]}
    else:
        units = {f"lun{number}": disk for number, disk in export.disks.items()}
    return _joined({"type": export.kind, "socket": str(socket), "id": export.name, **units, **export.options})


def _joined(options: Mapping[str, str]) -> str:
    """In the manner of QEMU: a comma in a value is written twice."""
    return ",".join(f"{key}={value.replace(',', ',,')}" for key, value in options.items())
