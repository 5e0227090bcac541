"""QEMU as libvirt's own user: sockets let it in by owner, group and mode, which libvirt itself never sets."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest
from libvirt_daemon import DRIVER_USER
from machine_rig import Bench, bench

from qemu_odx.lab.adapters.linux import lab_linux
from qemu_odx.lab.backend import Backend
from qemu_odx.lab.errors import LabError
from qemu_odx.lab.live import LiveGuest
from qemu_odx.lab.qemu import GuestSpec

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from qemu_odx.lab.image import Image


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


def machine_of(place: Bench, image: Image, socket: Path, seconds: float = 120.0) -> tuple[GuestSpec, object]:
    """A machine whose QEMU runs as libvirt-qemu."""
    spec = GuestSpec(place.image(image), "tcg", blk_sockets=(socket,))
    return spec, place.machine(spec, socket.stem, owner="libvirt", seconds=seconds)


@pytest.mark.parametrize(
    ("name", "access"),
    [("owner", f"owner={DRIVER_USER},mode=0600"), ("group", f"socket-group={DRIVER_USER},mode=0660")],
)
def test_let_in(place: Bench, image: Image, name: str, access: str) -> None:
    """By either way the guest has its disk."""
    backend, socket = server(place, name, access)
    spec, machine = machine_of(place, image, socket)
    try:
        guest = LiveGuest(machine, lab_linux(spec.image), patience=180)
        assert guest.disk(f"odx-{name}").startswith("/dev/vd")
        guest.power_off()
    finally:
        machine.kill()
        assert backend.stop() == 0


def test_kept_out(place: Bench, image: Image) -> None:
    """A private socket of root: QEMU would try for ever to connect; the start is given up and says who may."""
    backend, socket = server(place, "private", "mode=0600")
    _, machine = machine_of(place, image, socket, 10.0)
    try:
        with pytest.raises(LabError, match=r"does not let QEMU in.*socket-group="):
            machine.start()
        assert not machine.running
    finally:
        machine.kill()
        assert backend.stop() == 0
