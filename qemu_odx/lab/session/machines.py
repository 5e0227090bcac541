"""A machine and the kind of guest on it, for a guest of a lab's description.

May import: errors, catalogue, image, disk_image, qemu, adapters, machines, config/model. Next: `running.py` boots it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from qemu_odx.lab.accelerator import choose_accelerator
from qemu_odx.lab.adapters.linux import LinuxAdapter, lab_linux
from qemu_odx.lab.adapters.windows import WindowsAdapter
from qemu_odx.lab.adapters.wine import lab_wine
from qemu_odx.lab.catalogue import check_name
from qemu_odx.lab.config.model import DEFAULT_MEMORY, MEBIBYTE, SCSI, WINDOWS_MEMORY
from qemu_odx.lab.disk_image import DiskImage, find_firmware
from qemu_odx.lab.errors import UsageError
from qemu_odx.lab.image import ensure_image
from qemu_odx.lab.machines.libvirt import LibvirtMachine
from qemu_odx.lab.machines.qemu import QemuMachine
from qemu_odx.lab.qemu import GuestSpec
from qemu_odx.lab.ssh import Login
from qemu_odx.lab.windows_image.golden import WINDOWS, find_golden, golden_images

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from qemu_odx.lab.adapters.port import GuestAdapter
    from qemu_odx.lab.config.model import Guest, Lab
    from qemu_odx.lab.image import Image
    from qemu_odx.lab.machine import Machine

WINE_CPU = (
    "max,smap=off"  # Wine returns by IRETQ from user mode, which TCG's SMAP takes for a kernel's access
)


@dataclass(frozen=True, slots=True)
class Prepared:
    """A guest that can be started.

    Attributes:
        guest: what was asked for.
        image: what it boots from.
        adapter: how to use it.
    """

    guest: Guest
    image: Image | DiskImage
    adapter: GuestAdapter


def prepare(guest: Guest, report: Callable[[str], None]) -> Prepared:
    """Build or find the image of a guest.

    Raises:
        UsageError: there is no such image, or no key to log in with.
        LabError: it cannot be had here.
    """
    if _is_file(guest.image):
        image, adapter = own_image(guest), own_adapter(guest)
        if next(adapter.login.offers(), None) is None:
            raise UsageError(
                "there is no ssh key to log in with", "give a private key, or hand yours to your ssh agent"
            )
        return Prepared(guest, image, adapter)
    if guest.image in {WINDOWS, *golden_images()}:
        golden = find_golden(guest.image)
        return Prepared(guest, golden.disk_image, golden.adapter)
    check_name(guest.image)
    built = ensure_image(guest.image, report=report)
    adapter = lab_wine(built) if guest.image == "wine" else lab_linux(built)
    return Prepared(guest, built, adapter)


def system_of(guest: Guest) -> str:
    """What will be in it: "linux", "wine" or "windows"."""
    if _is_file(guest.image):
        return guest.system
    if guest.image in golden_images():
        return WINDOWS
    return guest.image if guest.image in {"wine", WINDOWS} else "linux"


def memory_of(guest: Guest) -> int:
    """Bytes: as asked for, or enough for what is in it."""
    return guest.memory or (WINDOWS_MEMORY if system_of(guest) == WINDOWS else DEFAULT_MEMORY)


def _is_file(image: str) -> bool:
    return "/" in image or Path(image).suffix in {".qcow2", ".raw", ".img"}


def own_image(guest: Guest) -> DiskImage:
    """The user's image. Raises UsageError if there is no such file, LabError without UEFI firmware for it."""
    path = Path(guest.image).absolute()
    if not path.is_file():
        raise UsageError(f"there is no image {path}", "give the path of a disk image")
    with path.open("rb") as file:
        kind = "qcow2" if file.read(4) == b"QFI\xfb" else "raw"
    system = "windows" if guest.system == "windows" else "linux"
    bus, network = ("ahci", "e1000e") if system == "windows" else ("virtio", "virtio-net-pci")
    return DiskImage(
        path,
        disk_format=kind,  # type: ignore[arg-type]
        system=system,  # type: ignore[arg-type]
        firmware=find_firmware() if guest.firmware == "uefi" else None,
        disk_bus=bus,  # type: ignore[arg-type]
        network=network,
        ssh_port=guest.port,
        description=path.name,
    )


def own_adapter(guest: Guest) -> GuestAdapter:
    """How to use the user's image."""
    login = Login(guest.user, guest.private_key, None)
    return WindowsAdapter(login) if guest.system == "windows" else LinuxAdapter(login)


def make_machine(lab: Lab, prepared: Prepared, sockets: Mapping[str, Path], folder: Path) -> Machine:
    """The machine of a guest, off; its devices are connected to `sockets`, by export name."""
    guest = prepared.guest
    kinds = {name: lab.export(name).kind for name in guest.exports}
    accelerator = choose_accelerator() if lab.accelerator == "auto" else lab.accelerator
    spec = GuestSpec(
        prepared.image,
        accelerator,
        scsi_sockets=tuple(sockets[name] for name, kind in kinds.items() if kind == SCSI),
        blk_sockets=tuple(sockets[name] for name, kind in kinds.items() if kind != SCSI),
        memory_mib=memory_of(guest) // MEBIBYTE,
        cpus=guest.cpus,
        tcg_cpu=WINE_CPU if guest.image == "wine" else "max",
        display=isinstance(prepared.image, DiskImage),
    )
    if lab.machine == "libvirt":
        return LibvirtMachine(spec, folder, lab.uri)
    return QemuMachine(spec, folder)
