"""Is there a QEMU that has what the lab needs, and do its guests really run: by KVM, or else by TCG.

May import: errors, doctor/{finding,host}. A device file proves nothing about KVM, so a guest of five bytes is run.
"""

from __future__ import annotations

import os
import re
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from qemu_odx.lab.doctor.finding import Finding, Level
from qemu_odx.lab.errors import LabError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from qemu_odx.lab.doctor.host import Host

PROGRAM = "qemu-system-x86_64"
OLDEST = (7, 2)
"""The oldest version the project's tests run with."""
DEVICES = ("vhost-user-scsi-pci", "vhost-user-blk-pci")
INSTALL = "run ./odx setup, or install the package qemu-system-x86"

FIRMWARE_SIZE = 0x10000
RESET_VECTOR = 0xFFF0  # 16 bytes below the end: Intel SDM volume 3, 10.1.4 (first instruction executed)
LEAVE = bytes.fromhex("b010 e6f4 f4")  # mov al,10h; out F4h,al; hlt
LEAVES_WITH = 0x10 << 1 | 1  # QEMU hw/misc/debugexit.c: exit((value << 1) | 1)
TINY_SECONDS = 60.0
TOO_LONG = "the guest did not run to its end"


def check_qemu(host: Host) -> Iterator[Finding]:
    """Version, devices, and a guest by each accelerator."""
    if host.which(PROGRAM) is None:
        yield Finding("qemu", "program", Level.ERROR, f"{PROGRAM} is not on PATH", INSTALL)
        return
    yield _version(host)
    yield from _devices(host)
    yield _reconnect(host)
    kvm = _kvm(host)
    yield kvm
    why_not = run_tiny_guest(host, "tcg")
    level = Level.WARNING if kvm.level is Level.OK else Level.ERROR
    yield (
        Finding("qemu", "tcg", level, f"no guest runs: {why_not}", "install QEMU again with TCG")
        if why_not
        else Finding("qemu", "tcg", Level.OK, "a tiny guest ran")
    )


def _version(host: Host) -> Finding:
    answer = host.run([PROGRAM, "--version"], 60.0)
    match = re.search(r"version (\d+)\.(\d+)(\S*)", answer.out)
    if match is None:
        return Finding("qemu", "version", Level.ERROR, f"unknown: {_last(answer.err)}", INSTALL)
    found = f"{match[1]}.{match[2]}{match[3]}"
    if (int(match[1]), int(match[2])) < OLDEST:
        return Finding(
            "qemu", "version", Level.WARNING, found, "use QEMU 7.2 or newer: older ones are untested"
        )
    return Finding("qemu", "version", Level.OK, found)


def _devices(host: Host) -> Iterator[Finding]:
    """Both vhost-user devices, and RAM that can be shared with the disk server."""
    for name, question, cure in (
        *((device, "-device", "use a QEMU built with vhost-user") for device in DEVICES),
        ("memory-backend-memfd", "-object", "use a QEMU built for Linux"),
    ):
        answer = host.run([PROGRAM, question, "help"], 60.0)
        there = re.search(rf"\b{re.escape(name)}\b", answer.out) is not None
        level, found = (Level.OK, "there") if there else (Level.ERROR, "QEMU does not have it")
        yield Finding("qemu", name, level, found, "" if there else cure)


def _reconnect(host: Host) -> Finding:
    """Whether a guest keeps its SCSI disks when their server is started again."""
    name = "vhost-user-scsi reconnect"
    try:
        able = host.abilities().scsi_reconnects
    except LabError as error:
        return Finding("qemu", name, Level.WARNING, error.cause, error.cure)
    if able:
        return Finding("qemu", name, Level.OK, "a guest finds a disk server that was started again")
    cure = "nothing has to be done; vhost-user-blk reconnects, and a newer QEMU does on both"
    return Finding("qemu", name, Level.NOTE, "a guest loses its SCSI disks when their server ends", cure)


def _kvm(host: Host) -> Finding:
    """Whether KVM is usable, or only present."""
    slow = "guests run by TCG, several times slower"
    why_not, cure = _kvm_missing(host)
    if not why_not and (why_not := run_tiny_guest(host, "kvm")):
        cure = "if this is itself a virtual machine, switch nested virtualization on in its host"
        why_not = f"/dev/kvm is there but no guest runs ({why_not})"
    if why_not:
        return Finding("qemu", "kvm", Level.WARNING, f"{why_not}; {slow}", cure)
    return Finding("qemu", "kvm", Level.OK, "a tiny guest ran")


def _kvm_missing(host: Host) -> tuple[str, str]:
    """What is missing for a first try, and the cure; two empty texts if nothing."""
    device = host.path("/dev/kvm")
    if not device.exists():
        return (
            "there is no /dev/kvm",
            "switch virtualization on in the firmware; modprobe kvm_intel or kvm_amd",
        )
    if not os.access(device, os.R_OK | os.W_OK):
        return "/dev/kvm may not be opened", "join its group: sudo usermod -aG kvm $USER, then log in again"
    if not re.search(r"^flags\s*:.*\b(vmx|svm)\b", host.read("/proc/cpuinfo"), re.MULTILINE):
        return (
            "/dev/kvm is there, but the processor shows neither vmx nor svm",
            "switch virtualization on in the firmware, or nested virtualization in the host of this machine",
        )
    return "", ""


def run_tiny_guest(host: Host, accelerator: str) -> str:
    """Run a guest whose firmware leaves at once; empty if it did, else why not."""
    firmware = bytearray(FIRMWARE_SIZE)
    firmware[RESET_VECTOR : RESET_VECTOR + len(LEAVE)] = LEAVE
    with tempfile.TemporaryDirectory(prefix="qemu-odx-doctor-") as folder:
        image = Path(folder) / "firmware"
        image.write_bytes(firmware)
        command = [PROGRAM, "-machine", f"q35,accel={accelerator}", "-m", "16M", "-bios", str(image)]
        command += ["-nodefaults", "-no-user-config", "-display", "none"]
        command += ["-device", "isa-debug-exit,iobase=0xf4,iosize=1"]
        answer = host.run(command, TINY_SECONDS)
    if answer.code == LEAVES_WITH:
        return ""
    return _last(answer.err) or TOO_LONG


def _last(text: str) -> str:
    lines = text.strip().splitlines()
    return lines[-1] if lines else ""
