"""A disk image as users bring them: a partition table, a boot loader, a system that the lab knows nothing of.

It is made of the lab's Linux, but starts by BIOS and syslinux from its own disk, finds its root there, tells the lab
nothing, and shuts down as distributions do: `poweroff` signals process 1.
"""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from qemu_odx.lab.image import Image

BOOT_CODE = Path("/usr/lib/syslinux/mbr/mbr.bin")
SECTOR = 512
FIRST = 2048  # sectors in front of the first partition
BOOT_SECTORS = 64 << 11  # 64 MiB
FAT, LINUX, ACTIVE = 0x0E, 0x83, 0x80
CONFIG = """\
DEFAULT linux
LABEL linux
 KERNEL vmlinuz
 INITRD initrd
 APPEND console=ttyS0 quiet panic=-1 no_timer_check mitigations=off ipv6.disable=1 tsc=reliable
"""
PROCESS_1 = 'trap "sync; poweroff -f" USR2; /usr/sbin/lab-init > /dev/null & while :; do sleep 1; done'


def own_image(image: Image, folder: Path) -> Path:
    """Make it; skipped where its tools are missing."""
    for program in ("syslinux", "mformat", "mcopy"):
        if shutil.which(program) is None or not BOOT_CODE.exists():
            pytest.skip("a bootable disk needs packages syslinux, syslinux-common and mtools")
    disk = folder / "own.img"
    root = image.root.read_bytes()
    with disk.open("wb") as file:
        file.write(_partition_table(len(root) // SECTOR + 1))
        file.seek((FIRST + BOOT_SECTORS) * SECTOR)
        file.write(root.ljust((len(root) // SECTOR + 1) * SECTOR, b"\0"))
    _fill_boot_partition(image, disk, folder)
    return disk


def _partition_table(root_sectors: int) -> bytes:
    def entry(active: int, kind: int, first: int, sectors: int) -> bytes:
        return struct.pack("<B3sB3sII", active, bytes(3), kind, bytes(3), first, sectors)

    entries = entry(ACTIVE, FAT, FIRST, BOOT_SECTORS)
    entries += entry(0, LINUX, FIRST + BOOT_SECTORS, root_sectors) + bytes(32)
    return BOOT_CODE.read_bytes()[:440].ljust(446, b"\0") + entries + b"\x55\xaa"


def _fill_boot_partition(image: Image, disk: Path, folder: Path) -> None:
    (folder / "syslinux.cfg").write_text(CONFIG)
    (folder / "initrd").write_bytes(image.initrd.read_bytes() + _archive("init", _init(image)))
    there = f"{disk}@@{FIRST * SECTOR}"
    format_it = ["mformat", "-i", there, "-T", str(BOOT_SECTORS), "-h", "255", "-s", "63", "-H", str(FIRST)]
    _run(*format_it, "::")
    files = [image.folder / "vmlinuz", folder / "initrd", folder / "syslinux.cfg"]
    _run("mcopy", "-i", there, *files, "::")
    _run("syslinux", "--offset", str(FIRST * SECTOR), "--install", disk)


def _run(*command: str | Path) -> None:
    subprocess.run(command, check=True, capture_output=True, env={**os.environ, "MTOOLS_SKIP_CHECK": "1"})


def _init(image: Image) -> bytes:
    """The lab's, with another root and another process 1."""
    recipe = Path(__file__).parents[2] / "vm_images/linux/init"
    text = recipe.read_text()
    changed = text.replace("${root:-/dev/no-disk-with-serial-odx-root}", "/dev/vda2")
    changed = changed.replace("/usr/sbin/lab-init", f"/bin/sh -c '{PROCESS_1}'")
    assert changed.count("/dev/vda2") == 1
    assert "USR2" in changed
    return changed.encode()


def _archive(name: str, content: bytes) -> bytes:
    """A cpio archive of one program (newc, cpio(5)); what comes later in an initramfs replaces what came before."""

    def member(path: str, mode: int, data: bytes) -> bytes:
        fields = (0, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(path) + 1, 0)
        head = b"070701" + b"".join(b"%08X" % field for field in fields) + path.encode() + b"\0"
        return _padded(head) + _padded(data)

    return member(name, 0o100755, content) + member("TRAILER!!!", 0, b"")


def _padded(data: bytes) -> bytes:
    return data.ljust(-(-len(data) // 4) * 4, b"\0")
