"""QEMU as libvirt's own user: sockets let it in by owner, group and mode, which libvirt itself never sets."""

from __future__ import annotations

import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest
from libvirt_daemon import DRIVER_USER
from machine_rig import Bench, bench, counting_disk

from qemu_odx.lab.adapters.linux import lab_linux
from qemu_odx.lab.backend import Backend
from qemu_odx.lab.errors import LabError
from qemu_odx.lab.live import LiveGuest
from qemu_odx.lab.qemu import GuestSpec

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from qemu_odx.lab.image import Image
    from qemu_odx.lab.machine import Machine


@pytest.fixture(scope="module")
def place() -> Iterator[Bench]:
    """A system daemon."""
    with bench("system") as made:
        yield made


def server(place: Bench, name: str, access: str) -> tuple[Backend, Path]:
    """A disk server whose socket has this owner, group and mode."""
    folder = place.folder
    command = [sys.executable, "-m", "qemu_odx", "serve", "--json"]
    command += ["--disk", f"id=d0,path={folder / name}.img,size=16M,serial=odx-{name}"]
    command += ["--export", f"type=vhost-user-blk,socket={folder / name}.sock,disk=d0,{access}"]
    return Backend(command, folder / f"{name}.log"), folder / f"{name}.sock"


def machine_of(place: Bench, image: Image, *sockets: Path, seconds: float = 120.0) -> Machine:
    """A machine whose QEMU runs as libvirt-qemu."""
    spec = GuestSpec(place.image(image), "tcg", blk_sockets=sockets)
    return place.machine(spec, sockets[0].stem, owner="libvirt", seconds=seconds)


def test_let_in(place: Bench, image: Image) -> None:
    """By either way the guest has its disk."""
    ways = {"owner": f"owner={DRIVER_USER},mode=0600", "group": f"socket-group={DRIVER_USER},mode=0660"}
    servers = [server(place, name, access) for name, access in ways.items()]
    machine = machine_of(place, image, *(socket for _, socket in servers))
    try:
        guest = LiveGuest(machine, lab_linux(image), patience=180)
        for name in ways:
            assert guest.disk(f"odx-{name}").startswith("/dev/vd")
        guest.power_off()
    finally:
        machine.kill()
        assert [backend.stop() for backend, _ in servers] == [0, 0]


def test_kept_out(place: Bench, image: Image) -> None:
    """A private socket of root: QEMU would try for ever to connect; the start is given up and says who may."""
    backend, socket = server(place, "private", "mode=0600")
    machine = machine_of(place, image, socket, seconds=4.0)
    try:
        with pytest.raises(LabError, match=r"does not let QEMU in.*socket-group="):
            machine.start()
        assert not machine.running
    finally:
        machine.kill()
        assert backend.stop() == 0


KILLED = """
import sys, time
from pathlib import Path
from qemu_odx.lab.disk_image import DiskImage
from qemu_odx.lab.machines.libvirt import LibvirtMachine
from qemu_odx.lab.qemu import GuestSpec
spec = GuestSpec(DiskImage(Path(sys.argv[1]), "raw"), "tcg", memory_mib=64, cpus=1)
machine = LibvirtMachine(spec, Path(sys.argv[2]), sys.argv[3])
machine.start()
print(machine.name, flush=True)
time.sleep(600)
"""


def test_killed_lab_leaves_no_domain(place: Bench) -> None:
    """SIGKILL, after which nobody can clean up: libvirt ends the domain by itself."""
    import libvirt  # noqa: PLC0415 - the bench has looked for it

    assert place.daemon is not None
    folder = place.folder / "killed"
    folder.mkdir(mode=0o755)
    words = [sys.executable, "-c", KILLED, str(counting_disk(place.folder)), str(folder), place.daemon.uri]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as lab:
        assert lab.stdout is not None
        name = lab.stdout.readline().strip()
        connection = libvirt.open(place.daemon.uri)
        assert [domain.name() for domain in connection.listAllDomains()] == [name]
        lab.kill()
    deadline = time.monotonic() + 120
    while connection.listAllDomains():
        assert time.monotonic() < deadline
        time.sleep(0.1)
    connection.close()
