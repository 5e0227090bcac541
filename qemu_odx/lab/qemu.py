"""QEMU's command line as data.

May import: errors, image (its file names). Next: `guest.py` starts the command.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from qemu_odx.lab.errors import LabError

if TYPE_CHECKING:
    from pathlib import Path

    from qemu_odx.lab.image import Image

PROGRAM = "qemu-system-x86_64"
ROOT_SERIAL = "odx-root"  # the guest's init looks for its root disk by this serial number
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
        image: kernel, initramfs and root disk.
        accelerator: "kvm" or "tcg".
        scsi_sockets: one vhost-user-scsi device for each; the server must listen already (QEMU 7.2 gives up).
        blk_sockets: one vhost-user-blk device for each.
        tcg_cpu: the processor of a guest without KVM, which has the host's own.
        share_memory: put the guest's RAM where a disk server can map it.
        extra: further QEMU arguments.
    """

    image: Image
    accelerator: str
    scsi_sockets: tuple[Path, ...] = ()
    blk_sockets: tuple[Path, ...] = ()
    memory_mib: int = 512
    cpus: int = 2
    tcg_cpu: str = "max"
    share_memory: bool = True
    extra: tuple[str, ...] = field(default=())


def qemu_command(spec: GuestSpec, monitor_fd: int, serial_log: Path) -> list[str]:
    """QEMU's program and arguments for `spec`.

    Args:
        spec: the guest.
        monitor_fd: inherited end of a socket pair on which QEMU speaks QMP.
        serial_log: file that takes what the guest writes to its serial port.

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
        *_system(spec.image),
        *_network(),
        *_vhost_user(spec),
        *spec.extra,
    ]


def _machine(spec: GuestSpec) -> list[str]:
    share = "on" if spec.share_memory else "off"
    return [
        *("-accel", ACCELERATORS[spec.accelerator]),
        *("-machine", "q35,memory-backend=ram"),
        *("-object", f"memory-backend-memfd,id=ram,size={spec.memory_mib}M,share={share}"),
        *("-m", f"{spec.memory_mib}M"),
        *("-cpu", "host" if spec.accelerator == "kvm" else spec.tcg_cpu),
        *("-smp", str(spec.cpus)),
        *("-nodefaults", "-no-user-config", "-no-reboot"),
        *("-display", "none"),
    ]


def _monitor(monitor_fd: int, serial_log: Path) -> list[str]:
    return [
        *("-chardev", f"socket,id=monitor,fd={monitor_fd}"),
        *("-mon", "chardev=monitor,mode=control"),
        *("-chardev", f"file,id=serial,path={_value(serial_log)}"),
        *("-serial", "chardev:serial"),
    ]


def _system(image: Image) -> list[str]:
    return [
        *("-kernel", str(image.kernel)),
        *("-initrd", str(image.initrd)),
        *("-append", " ".join(KERNEL_OPTIONS)),
        *("-drive", f"if=none,id=root,file={_value(image.root)},format=raw,readonly=on"),
        *("-device", f"virtio-blk-pci,drive=root,serial={ROOT_SERIAL}"),
    ]


def _network() -> list[str]:
    """A network that reaches nothing but the host's way in to the ssh port; QEMU picks a free host port."""
    return [
        *("-netdev", "user,id=net,restrict=on,hostfwd=tcp:127.0.0.1:0-:22"),
        *("-device", "virtio-net-pci,netdev=net,romfile="),
    ]


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
