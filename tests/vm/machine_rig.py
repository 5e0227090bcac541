"""Machines of every kind for the tests: QEMU of the lab, and domains of two libvirt daemons.

A daemon's QEMU runs as another user, so images and sockets lie in a folder that it can enter.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from libvirt_daemon import Daemon, require_libvirt, session_daemon, system_daemon

from qemu_odx.lab.adapters.linux import lab_linux
from qemu_odx.lab.backend import Backend, BlkExport, DiskSpec, ScsiExport, serve_command
from qemu_odx.lab.image import Image
from qemu_odx.lab.live import LiveGuest
from qemu_odx.lab.machines.libvirt import LibvirtMachine
from qemu_odx.lab.machines.qemu import QemuMachine
from qemu_odx.lab.qemu import GuestSpec

if TYPE_CHECKING:
    from collections.abc import Iterator

    from qemu_odx.lab.machine import Machine

KINDS = ("qemu", "session", "system")
MIB = 1 << 20
DISK_BYTES = 16 * MIB
DISKS = {"cold-blk": "blk", "cold-scsi": "scsi", "hot-blk": "blk", "hot-scsi": "scsi"}
"""Serial number -> by which device; the first two are there from the start."""


@dataclass(frozen=True)
class Bench:
    """Where machines of one kind are made.

    Attributes:
        kind: one of KINDS.
        folder: which every QEMU of this kind can enter.
        daemon: the libvirt daemon, None for the lab's own QEMU.
    """

    kind: str
    folder: Path
    daemon: Daemon | None

    def machine(
        self, spec: GuestSpec, name: str, owner: str | None = None, seconds: float = 120.0
    ) -> Machine:
        """A machine that is off, with a folder of its own."""
        folder = self.folder / name
        folder.mkdir(mode=0o755)
        if self.daemon is None:
            return QemuMachine(spec, folder, start_seconds=seconds)
        os.chown(folder, self.daemon.user, self.daemon.user)
        return LibvirtMachine(spec, folder, self.daemon.uri, owner=owner, start_seconds=seconds)

    def image(self, image: Image) -> Image:
        """A copy of a cached image that this kind's QEMU can read."""
        if self.daemon is None:
            return image
        copy = self.folder / "image"
        if not copy.exists():
            shutil.copytree(image.folder, copy)
        return Image(image.name, copy)

    def let_in(self, path: Path) -> None:
        """Give a file or socket to the user as whom QEMU runs."""
        if self.daemon is not None:
            os.chown(path, self.daemon.user, self.daemon.user)


@contextmanager
def bench(kind: str) -> Iterator[Bench]:
    """A bench of this kind; its daemon, if it needs one, is ended with it."""
    folder = Path(tempfile.mkdtemp(prefix="odx-", dir="/tmp"))
    folder.chmod(0o755)
    try:
        if kind == "qemu":
            yield Bench(kind, folder, None)
            return
        require_libvirt()
        with (session_daemon if kind == "session" else system_daemon)(folder / "libvirt") as daemon:
            yield Bench(kind, folder, daemon)
    finally:
        shutil.rmtree(folder)


@dataclass(frozen=True)
class Rig:
    """A booted guest with two disks, and a server that has two more for it."""

    guest: LiveGuest
    machine: Machine
    bench: Bench
    backend: Backend

    def socket(self, serial: str) -> Path:
        """Where the disk of that serial number is served."""
        return self.bench.folder / f"{serial}.sock"

    def run(self, command: str) -> str:
        """The output of a command that must succeed."""
        done = self.guest.shell.run(command, seconds=120)
        assert done.status == 0, done.stderr
        return done.stdout

    def check_disk(self, serial: str) -> None:
        """What the guest writes to the disk is in its image file."""
        node = self.guest.disk(serial)
        words = f"{serial} {time.monotonic_ns()}".encode().ljust(512, b".")
        self.run(f"printf '%-512s' '{words.decode()}' | dd of={node} bs=512 seek=7 conv=fsync 2> /dev/null")
        with (self.bench.folder / f"{serial}.img").open("rb") as image:
            image.seek(7 * 512)
            assert image.read(512) == words


@contextmanager
def rig(on: Bench, image: Image) -> Iterator[Rig]:
    """Boot it; the disk server must end well."""
    disks = [DiskSpec(name, on.folder / f"{name}.img", DISK_BYTES, name) for name in DISKS]
    exports = [_export(name, kind, on.folder) for name, kind in DISKS.items()]
    backend = Backend(serve_command(disks, exports), on.folder / "serve.log")
    try:
        for export in exports:
            on.let_in(export.socket)
        spec = GuestSpec(
            on.image(image),
            "tcg",
            scsi_sockets=(on.folder / "cold-scsi.sock",),
            blk_sockets=(on.folder / "cold-blk.sock",),
            hotplug_ports=2,
            display=True,
        )
        machine = on.machine(spec, "machine")
        try:
            yield Rig(LiveGuest(machine, lab_linux(spec.image), patience=180), machine, on, backend)
        finally:
            machine.kill()
        backend.check()
    finally:
        assert backend.stop() == 0


def _export(name: str, kind: str, folder: Path) -> ScsiExport | BlkExport:
    socket = folder / f"{name}.sock"
    return BlkExport(socket, name) if kind == "blk" else ScsiExport(socket, (name,))


def counting_disk(folder: Path) -> Path:
    """A raw disk whose boot sector counts its boots; see `counter.S`."""
    source = Path(__file__).parent / "counter.S"
    disk = folder / "counter.img"
    command = ["gcc", "-nostdlib", "-no-pie", "-Wl,-Ttext=0x7c00,--oformat=binary,--build-id=none"]
    subprocess.run([*command, "-o", disk, source], check=True)
    with disk.open("r+b") as file:
        file.truncate(MIB)
    return disk
