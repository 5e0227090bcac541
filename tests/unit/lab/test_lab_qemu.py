"""QEMU's command line and the choice of the accelerator."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from qemu_odx.lab.accelerator import choose_accelerator
from qemu_odx.lab.errors import LabError
from qemu_odx.lab.image import Image
from qemu_odx.lab.qemu import GuestSpec, qemu_command

IMAGE = Image("debian test", Path("/images/linux-1"))
SPEC = GuestSpec(IMAGE, "tcg", (Path("/run/s.sock"),), (Path("/run/b.sock"),))


def values(command: list[str], option: str) -> list[str]:
    """What follows each occurrence of an option."""
    return [command[index + 1] for index, word in enumerate(command) if word == option]


def test_ram_is_shared_and_used_by_the_machine() -> None:
    """A vhost-user server maps the guest's RAM, so it is a shared memfd that the machine names."""
    command = qemu_command(SPEC, 7, Path("/run/serial.log"))
    assert values(command, "-object") == ["memory-backend-memfd,id=ram,size=512M,share=on"]
    assert values(command, "-machine") == ["q35,memory-backend=ram"]


def test_private_ram_with_vhost_user_is_refused() -> None:
    """QEMU would start and the disks would not work: the lab says so before."""
    with pytest.raises(LabError, match=r"RAM is not shared.*share=on"):
        qemu_command(replace(SPEC, share_memory=False), 7, Path("/run/serial.log"))


def test_private_ram_without_vhost_user_is_allowed() -> None:
    """Nobody else needs the RAM of a guest that has no vhost-user device."""
    spec = GuestSpec(IMAGE, "tcg", share_memory=False)
    assert "share=off" in values(qemu_command(spec, 7, Path("/s")), "-object")[0]


def test_each_socket_becomes_a_device() -> None:
    """A scsi and a blk device, each on the chardev of its socket."""
    command = qemu_command(SPEC, 7, Path("/run/serial.log"))
    assert "socket,id=scsi0,path=/run/s.sock" in values(command, "-chardev")
    assert "vhost-user-scsi-pci,id=scsi-host0,chardev=scsi0" in values(command, "-device")
    assert "vhost-user-blk-pci,id=blk-disk0,chardev=blk0,num-queues=1" in values(command, "-device")


def test_scsi_has_no_reconnect() -> None:
    """QEMU 7.2 refuses vhost-user-scsi on a chardev that reconnects."""
    scsi = [value for value in values(qemu_command(SPEC, 7, Path("/s")), "-chardev") if "id=scsi0" in value]
    assert "reconnect" not in scsi[0]


def test_commas_in_paths_are_doubled() -> None:
    """QEMU splits option values at single commas."""
    command = qemu_command(SPEC, 7, Path("/run/a,b.log"))
    assert "file,id=serial,path=/run/a,,b.log,append=on" in values(command, "-chardev")


@pytest.mark.parametrize(
    ("accelerator", "option", "cpu"), [("tcg", "tcg,thread=multi", "max"), ("kvm", "kvm", "host")]
)
def test_accelerator_decides_the_processor(accelerator: str, option: str, cpu: str) -> None:
    """TCG runs each virtual processor on its own thread; KVM passes the host's processor on."""
    command = qemu_command(replace(SPEC, accelerator=accelerator), 7, Path("/s"))
    assert values(command, "-accel") == [option]
    assert values(command, "-cpu") == [cpu]


@pytest.mark.parametrize(
    ("flags", "device_opens", "expected"),
    [
        ("fpu vmx sse", True, "kvm"),
        ("fpu svm sse", True, "kvm"),
        ("fpu sse", True, "tcg"),
        ("fpu avmxb svml", True, "tcg"),
        ("fpu vmx sse", False, "tcg"),
    ],
)
def test_kvm_needs_device_and_processor(
    tmp_path: Path, flags: str, device_opens: bool, expected: str
) -> None:
    """A /dev/kvm that opens is not enough: the processor must have vmx or svm."""
    device, cpu_info = tmp_path / "kvm", tmp_path / "cpuinfo"
    cpu_info.write_text(f"processor\t: 0\nflags\t\t: {flags}\nbugs\t\t: none\n")
    if device_opens:
        device.touch()
    assert choose_accelerator(device, cpu_info) == expected
