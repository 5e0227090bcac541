"""A guest image that is a disk with a boot loader on it: Windows, or one that the user brings.

May import: errors. Next: `qemu.py` and `machines/domain.py` put it into a machine,
`system_disk.py` keeps it unchanged.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from qemu_odx.lab.errors import MissingError

FIRMWARE_FOLDERS = (Path("/usr/share/OVMF"), Path("/usr/share/edk2/x64"))
FIRMWARE_FILES = (("OVMF_CODE_4M.fd", "OVMF_VARS_4M.fd"), ("OVMF_CODE.fd", "OVMF_VARS.fd"))
"""Those without secure boot, which test-signed drivers need off."""


@dataclass(frozen=True, slots=True)
class Firmware:
    """UEFI for a machine: the code, read-only, and the variables a fresh machine starts with."""

    code: Path
    variables: Path


def find_firmware() -> Firmware:
    """The UEFI firmware of this host. Raises MissingError if there is none."""
    for folder in FIRMWARE_FOLDERS:
        for code, variables in FIRMWARE_FILES:
            if (folder / code).exists() and (folder / variables).exists():
                return Firmware(folder / code, folder / variables)
    raise MissingError("there is no UEFI firmware for guests here", "install the package ovmf")


@dataclass(frozen=True, slots=True)
class DiskImage:
    """A system disk and the machine that it expects.

    Attributes:
        disk: the image; machines write to overlays of it and never to itself.
        disk_format: "qcow2" or "raw".
        system: "windows" or "linux"; it decides on clock and processor.
        firmware: UEFI, or None for BIOS.
        disk_bus: how the system disk is connected; every Windows has a driver for "ahci".
        network: QEMU's model of the network card; every Windows has a driver for "e1000e".
        ssh_port: the guest's port of its ssh server.
        cdroms: images in CD drives, in this order.
        tpm: give it an emulated TPM 2.0.
        description: what it is, for people.
    """

    disk: Path
    disk_format: Literal["qcow2", "raw"] = "qcow2"
    system: Literal["windows", "linux"] = "linux"
    firmware: Firmware | None = None
    disk_bus: Literal["ahci", "virtio"] = "ahci"
    network: str = "e1000e"
    ssh_port: int = 22
    cdroms: tuple[Path, ...] = ()
    tpm: bool = False
    description: str = "own image"


@dataclass(frozen=True, slots=True)
class SystemFiles:
    """What one machine really uses of a disk image: its overlay, its UEFI variables, its TPM's socket."""

    disk: Path
    variables: Path | None = None
    tpm_socket: Path | None = None
