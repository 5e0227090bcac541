"""QEMU's command line as data.

May import: errors, image and disk_image (their file names). Next: `machines/qemu.py` starts the command.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from qemu_odx.lab.disk_image import DiskImage
from qemu_odx.lab.errors import LabError

if TYPE_CHECKING:
    from pathlib import Path

    from qemu_odx.lab.disk_image import SystemFiles
    from qemu_odx.lab.image import Image

PROGRAM = "qemu-system-x86_64"
ROOT_SERIAL = "odx-root"  # the guest's init looks for its root disk by this serial number
HYPER_V = "hv_relaxed,hv_vapic,hv_time,hv_spinlocks=0x1fff"  # what makes Windows run well on KVM
ACCELERATORS = {"kvm": "kvm", "tcg": "tcg,thread=multi"}
KERNEL_OPTIONS = (
    "console=ttyS0",
    "quiet",
    "panic=-1",  # with -no-reboot a panic ends QEMU at once
    "no_timer_check",  # on a busy host TCG's timer ticks come too late for the kernel's check, and it panics
    "mitigations=off",
    "cryptomgr.notests=1",
    "ipv6.disable=1",
    "apparmor=0",
    "selinux=0",
    "audit=0",
    "tsc=reliable",
)


@dataclass(frozen=True, slots=True)
class GuestSpec:
    """What a guest is made of.

    Attributes:
        image: kernel, initramfs and root disk, or a disk with a boot loader.
        accelerator: "kvm" or "tcg".
        scsi_sockets: one vhost-user-scsi device for each; the server must listen already (QEMU 7.2 gives up).
        blk_sockets: one vhost-user-blk device for each.
        tcg_cpu: the processor of a guest without KVM, which has the host's own.
        share_memory: put the guest's RAM where a disk server can map it.
        hotplug_ports: how many devices can be plugged into the running machine.
        display: give it a screen, for screenshots.
        extra: further QEMU arguments.
    """

    image: Image | DiskImage
    accelerator: str
    scsi_sockets: tuple[Path, ...] = ()
    blk_sockets: tuple[Path, ...] = ()
    memory_mib: int = 512
    cpus: int = 2
    tcg_cpu: str = "max"
    share_memory: bool = True
    hotplug_ports: int = 0
    display: bool = False
    extra: tuple[str, ...] = field(default=())


def qemu_command(
    spec: GuestSpec, monitor_fd: int, serial_log: Path, system: SystemFiles | None = None
) -> list[str]:
    """QEMU's program and arguments for `spec`.

    Args:
        spec: the guest.
        monitor_fd: inherited end of a socket pair on which QEMU speaks QMP.
        serial_log: file that takes what the guest writes to its serial port.
        system: the machine's own files, if its image is a `DiskImage`.

    Raises:
        LabError: the spec cannot work: vhost-user devices need shared memory.
    """
    if (spec.scsi_sockets or spec.blk_sockets) and not spec.share_memory:
        raise LabError(
            "the guest's RAM is not shared, so a vhost-user disk server could not reach the guest's buffers",
            "give QEMU -object memory-backend-memfd,share=on and name it in -machine memory-backend=",
        )
    return [
        PROGRAM,
        *_machine(spec),
        *_monitor(monitor_fd, serial_log),
        *_system(spec.image, system),
        *_network(spec.image),
        *_vhost_user(spec),
        *_hotplug_ports(spec.hotplug_ports),
        *(("-device", "VGA") if spec.display else ()),
        *spec.extra,
    ]


def _machine(spec: GuestSpec) -> list[str]:
    share = "on" if spec.share_memory else "off"
    return [
        *("-accel", ACCELERATORS[spec.accelerator]),
        *("-machine", "q35,memory-backend=ram"),
        *("-object", f"memory-backend-memfd,id=ram,size={spec.memory_mib}M,share={share}"),
        *("-m", f"{spec.memory_mib}M"),
        *("-cpu", _processor(spec)),
        *("-smp", str(spec.cpus)),
        *("-nodefaults", "-no-user-config", "-no-reboot"),
        *("-display", "none"),
    ]


def _monitor(monitor_fd: int, serial_log: Path) -> list[str]:
    return [
        *("-chardev", f"socket,id=monitor,fd={monitor_fd}"),
        *("-mon", "chardev=monitor,mode=control"),
        *("-chardev", f"file,id=serial,path={_value(serial_log)},append=on"),
        *("-serial", "chardev:serial"),
    ]


def _processor(spec: GuestSpec) -> str:
    if spec.accelerator != "kvm":
        return spec.tcg_cpu
    windows = isinstance(spec.image, DiskImage) and spec.image.system == "windows"
    return f"host,{HYPER_V}" if windows else "host"


def _system(image: Image | DiskImage, files: SystemFiles | None) -> list[str]:
    if not isinstance(image, DiskImage):
        return _direct_kernel(image)
    if files is None:
        raise LabError("a disk image needs an overlay to write to", "start it as a machine of the lab")
    return [*_firmware(image, files), *_disks(image, files), *_tpm(files), *_clock(image)]


def _direct_kernel(image: Image) -> list[str]:
    return [
        *("-kernel", str(image.kernel)),
        *("-initrd", str(image.initrd)),
        *("-append", " ".join(KERNEL_OPTIONS)),
        *("-drive", f"if=none,id=root,file={_value(image.root)},format=raw,readonly=on"),
        *("-device", f"virtio-blk-pci,drive=root,serial={ROOT_SERIAL}"),
    ]


def _firmware(image: DiskImage, files: SystemFiles) -> list[str]:
    if image.firmware is None or files.variables is None:
        return []
    return [
        *("-drive", f"if=pflash,format=raw,unit=0,readonly=on,file={_value(image.firmware.code)}"),
        *("-drive", f"if=pflash,format=raw,unit=1,file={_value(files.variables)}"),
    ]


def _disks(image: DiskImage, files: SystemFiles) -> list[str]:
    """The system disk, then the CD drives, all on the AHCI controller that q35 has anyway."""
    arguments = ["-drive", f"if=none,id=system,file={_value(files.disk)},format=qcow2,discard=unmap"]
    device = "virtio-blk-pci" if image.disk_bus == "virtio" else "ide-hd,bus=ide.0"
    arguments += ["-device", f"{device},drive=system,bootindex=1"]
    for index, path in enumerate(image.cdroms):
        arguments += [
            "-drive",
            f"if=none,id=cd{index},file={_value(path)},format=raw,media=cdrom,readonly=on",
        ]
        arguments += ["-device", f"ide-cd,bus=ide.{index + 1},drive=cd{index},bootindex={index + 2}"]
    return arguments


def _tpm(files: SystemFiles) -> list[str]:
    if files.tpm_socket is None:
        return []
    return [
        *("-chardev", f"socket,id=tpm,path={_value(files.tpm_socket)}"),
        *("-tpmdev", "emulator,id=tpm,chardev=tpm"),
        *("-device", "tpm-crb,tpmdev=tpm"),
    ]


def _clock(image: DiskImage) -> list[str]:
    """Windows takes the hardware clock for local time, and the lab's Windows runs on UTC."""
    return ["-rtc", "base=localtime,driftfix=slew"] if image.system == "windows" else []


def _network(image: Image | DiskImage) -> list[str]:
    """A network that reaches nothing but the host's way in to the ssh port; QEMU picks a free host port."""
    port, model = 22, "virtio-net-pci"
    if isinstance(image, DiskImage):
        port, model = image.ssh_port, image.network
    return [
        *("-netdev", f"user,id=net,restrict=on,hostfwd=tcp:127.0.0.1:0-:{port}"),
        *("-device", f"{model},netdev=net,romfile="),
    ]


def _hotplug_ports(count: int) -> list[str]:
    ports = (
        f"pcie-root-port,id=port{number},chassis={number},slot={number}" for number in range(1, count + 1)
    )
    return [word for port in ports for word in ("-device", port)]


def _vhost_user(spec: GuestSpec) -> list[str]:
    arguments: list[str] = []
    for index, path in enumerate(spec.scsi_sockets):
        arguments += ["-chardev", f"socket,id=scsi{index},path={_value(path)}"]
        arguments += ["-device", f"vhost-user-scsi-pci,id=scsi-host{index},chardev=scsi{index}"]
    for index, path in enumerate(spec.blk_sockets):
        # With reconnect a disk server may be started again under a running guest.
        arguments += ["-chardev", f"socket,id=blk{index},path={_value(path)},reconnect=1"]
        arguments += ["-device", f"vhost-user-blk-pci,id=blk-disk{index},chardev=blk{index},num-queues=1"]
    return arguments


def _value(path: Path) -> str:
    """A path as the value of a QEMU option, in which a comma is written twice."""
    return str(path).replace(",", ",,")
