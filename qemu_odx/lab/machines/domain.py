"""The XML of a libvirt domain, made from the same data as QEMU's own command line.

May import: disk_image, image, machine, qemu (its options). Format: libvirt's formatdomain.html; each document fits
libvirt's own schema (`domain.rng`), which libvirt checks again when the domain starts. Next: `libvirt.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

from qemu_odx.lab.disk_image import DiskImage
from qemu_odx.lab.qemu import KERNEL_OPTIONS, ROOT_SERIAL

if TYPE_CHECKING:
    from pathlib import Path

    from qemu_odx.lab.disk_image import SystemFiles
    from qemu_odx.lab.image import Image
    from qemu_odx.lab.qemu import GuestSpec

QEMU_NAMESPACE = "http://libvirt.org/schemas/domain/qemu/1.0"
RECONNECT_SECONDS = "1"
SYSTEM_SLOT, FIRST_BLK_SLOT, NETWORK_SLOT, FIRST_SCSI_SLOT = 0x08, 0x09, 0x10, 0x11
"""Devices sit on the root bus at known places, so that libvirt's choice and our arguments never meet."""
DISK_LETTERS = "abcdefghijklmnopqrstuvwxyz"

ET.register_namespace("qemu", QEMU_NAMESPACE)


@dataclass(frozen=True, slots=True)
class DomainNames:
    """What a domain is called, and on whose behalf it runs.

    Attributes:
        name: unique on its libvirt daemon.
        owner: "+UID:+GID" as which QEMU runs, with no file's owner changed; None: as libvirt is configured.
    """

    name: str
    owner: str | None = None


def domain_xml(spec: GuestSpec, names: DomainNames, system: SystemFiles | None = None) -> str:
    """The domain of `spec`.

    Args:
        spec: the guest. `extra` goes to QEMU as it stands.
        names: what it is called.
        system: the machine's own files, if its image is a `DiskImage`.
    """
    domain = ET.Element("domain", {"type": "kvm" if spec.accelerator == "kvm" else "qemu"})
    _add(domain, "name", names.name)
    _add(domain, "memory", str(spec.memory_mib), unit="MiB")
    backing = _add(domain, "memoryBacking")
    _add(backing, "source", type="memfd")
    _add(backing, "access", mode="shared" if spec.share_memory else "private")
    _add(domain, "vcpu", str(spec.cpus))
    _boot(domain, spec.image, system)
    _add(_add(domain, "features"), "acpi")
    _processor(domain, spec)
    windows = isinstance(spec.image, DiskImage) and spec.image.system == "windows"
    _add(domain, "clock", offset="localtime" if windows else "utc")
    for event, action in (("poweroff", "destroy"), ("reboot", "restart"), ("crash", "destroy")):
        _add(domain, f"on_{event}", action)
    _devices(domain, spec, system)
    if names.owner:
        label = _add(domain, "seclabel", type="static", model="dac", relabel="no")
        _add(label, "label", names.owner)
    _command_line(domain, spec)
    return ET.tostring(domain, encoding="unicode")


def blk_disk(
    socket: Path, index: int, *, alias: str, queues: int = 1, bus: int = 0, slot: int = 0
) -> ET.Element:
    """A vhost-user-blk disk. libvirt labels no such socket: its owner and mode must let QEMU in.

    Args:
        socket: on which the disk server listens.
        index: 0 for the guest's first virtio disk.
        alias: its name, which must begin with "ua-".
        queues: request queues; libvirt's default is one for each processor.
        bus: number of the PCI controller.
        slot: slot on that controller.
    """
    disk = ET.Element("disk", {"type": "vhostuser", "device": "disk"})
    _add(disk, "driver", name="qemu", type="raw", queues=str(queues))
    source = _add(disk, "source", type="unix", path=str(socket))
    _add(source, "reconnect", enabled="yes", timeout=RECONNECT_SECONDS)
    _add(disk, "target", dev=f"vd{DISK_LETTERS[index]}", bus="virtio")
    _add(disk, "alias", name=alias)
    _pci_address(disk, bus, slot)
    return disk


def _add(parent: ET.Element, name: str, text: str | None = None, /, **attributes: str) -> ET.Element:
    child = ET.SubElement(parent, name, attributes)
    child.text = text
    return child


def _pci_address(parent: ET.Element, bus: int, slot: int) -> None:
    _add(
        parent, "address", type="pci", domain="0x0000", bus=f"{bus:#04x}", slot=f"{slot:#04x}", function="0x0"
    )


def _boot(domain: ET.Element, image: Image | DiskImage, files: SystemFiles | None) -> None:
    system = _add(domain, "os")
    _add(system, "type", "hvm", arch="x86_64", machine="q35")
    if not isinstance(image, DiskImage):
        _add(system, "kernel", str(image.kernel))
        _add(system, "initrd", str(image.initrd))
        _add(system, "cmdline", " ".join(KERNEL_OPTIONS))
    elif image.firmware and files and files.variables:
        _add(system, "loader", str(image.firmware.code), readonly="yes", type="pflash")
        _add(system, "nvram", str(files.variables))


def _processor(domain: ET.Element, spec: GuestSpec) -> None:
    if spec.accelerator == "kvm":
        _add(domain, "cpu", mode="host-passthrough")
        return
    model, *features = spec.tcg_cpu.split(",")
    if model == "max":
        processor = _add(domain, "cpu", mode="maximum")
    else:
        processor = _add(domain, "cpu", mode="custom", match="exact", check="none")
        _add(processor, "model", model, fallback="forbid")
    for feature in features:
        name, _, state = feature.partition("=")
        _add(processor, "feature", policy="disable" if state == "off" else "require", name=name)


def _devices(domain: ET.Element, spec: GuestSpec, files: SystemFiles | None) -> None:
    devices = _add(domain, "devices")
    if isinstance(spec.image, DiskImage):
        _system_disks(devices, spec.image, files)
    else:
        _root_disk(devices, spec.image)
    virtio_system = not isinstance(spec.image, DiskImage) or spec.image.disk_bus == "virtio"
    for index, socket in enumerate(spec.blk_sockets):
        place = {"index": index + virtio_system, "slot": FIRST_BLK_SLOT + index}
        devices.append(blk_disk(socket, alias=f"ua-blk-disk{index}", **place))
    _add(devices, "controller", type="usb", model="none")
    for number in range(1, spec.hotplug_ports + 1):
        _add(devices, "controller", type="pci", index=str(number), model="pcie-root-port")
    serial = _add(devices, "serial", type="pty")
    _add(serial, "target", port="0")
    _add(_add(devices, "video"), "model", type="vga" if spec.display else "none")
    if isinstance(spec.image, DiskImage) and spec.image.tpm:
        _add(_add(devices, "tpm", model="tpm-crb"), "backend", type="emulator", version="2.0")
    _add(devices, "memballoon", model="none")


def _root_disk(devices: ET.Element, image: Image) -> None:
    disk = _add(devices, "disk", type="file", device="disk")
    _add(disk, "driver", name="qemu", type="raw")
    _add(disk, "source", file=str(image.root))
    _add(disk, "target", dev="vda", bus="virtio")
    _add(disk, "readonly")
    _add(disk, "serial", ROOT_SERIAL)
    _pci_address(disk, 0, SYSTEM_SLOT)


def _system_disks(devices: ET.Element, image: DiskImage, files: SystemFiles | None) -> None:
    """The system disk first, then CDs, on the AHCI controller that q35 has anyway."""
    if files is None:
        raise ValueError("a disk image needs the machine's own files")
    disk = _add(devices, "disk", type="file", device="disk")
    _add(disk, "driver", name="qemu", type="qcow2", discard="unmap")
    _add(disk, "source", file=str(files.disk))
    virtio = image.disk_bus == "virtio"
    _add(disk, "target", dev="vda" if virtio else "sda", bus="virtio" if virtio else "sata")
    _add(disk, "boot", order="1")
    if virtio:
        _pci_address(disk, 0, SYSTEM_SLOT)
    for index, path in enumerate(image.cdroms):
        drive = _add(devices, "disk", type="file", device="cdrom")
        _add(drive, "driver", name="qemu", type="raw")
        _add(drive, "source", file=str(path))
        _add(drive, "target", dev=f"sd{DISK_LETTERS[index + 1]}", bus="sata")
        _add(drive, "readonly")
        _add(drive, "boot", order=str(index + 2))


def _command_line(domain: ET.Element, spec: GuestSpec) -> None:
    """What libvirt has no words for: a forwarded ssh port and vhost-user-scsi."""
    port, model = 22, "virtio-net-pci"
    if isinstance(spec.image, DiskImage):
        port, model = spec.image.ssh_port, spec.image.network
    words = ["-netdev", f"user,id=net,restrict=on,hostfwd=tcp:127.0.0.1:0-:{port}"]
    words += ["-device", f"{model},netdev=net,romfile=,addr={NETWORK_SLOT:#x}"]
    for index, socket in enumerate(spec.scsi_sockets):
        path = str(socket).replace(",", ",,")
        words += ["-chardev", f"socket,id=scsi{index},path={path}"]
        device = f"vhost-user-scsi-pci,id=scsi-host{index},chardev=scsi{index}"
        words += ["-device", f"{device},addr={FIRST_SCSI_SLOT + index:#x}"]
    command_line = _add(domain, f"{{{QEMU_NAMESPACE}}}commandline")
    for word in (*words, *spec.extra):
        _add(command_line, f"{{{QEMU_NAMESPACE}}}arg", value=word)
