"""Every verb of a machine, by QEMU of the lab and by real libvirt daemons, with a real guest on our disks."""

from __future__ import annotations

import socket
import struct
import threading
import time
import uuid
import zlib
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from machine_rig import DISKS, KINDS, Bench, Rig, bench, counting_disk, rig

from qemu_odx.lab import system_disk
from qemu_odx.lab.disk_image import DiskImage
from qemu_odx.lab.errors import LabError
from qemu_odx.lab.machine import Plug
from qemu_odx.lab.qemu import GuestSpec
from qemu_odx.lab.system_disk import make_overlay

if TYPE_CHECKING:
    from collections.abc import Iterator

    from qemu_odx.lab.image import Image
    from qemu_odx.lab.machine import Machine

BOOT_SECONDS = 120.0


@pytest.fixture(scope="module", params=KINDS)
def place(request: pytest.FixtureRequest) -> Iterator[Bench]:
    """One kind after the other."""
    with bench(request.param) as made:
        yield made


@pytest.fixture(scope="module")
def booted(place: Bench, image: Image) -> Iterator[Rig]:
    """One guest for the tests of a kind."""
    with rig(place, image) as made:
        yield made


@pytest.mark.parametrize("serial", [name for name in DISKS if name.startswith("cold")])
def test_disks_of_the_start(booted: Rig, serial: str) -> None:
    """Data of the guest arrive in the image files, by either device."""
    booted.check_disk(serial)


@pytest.mark.parametrize(("serial", "kind"), [("hot-blk", "blk"), ("hot-scsi", "scsi")])
def test_plug_and_unplug(booted: Rig, serial: str, kind: str) -> None:
    """The disk comes and works, goes, and can come again."""
    plug = Plug(kind, booted.socket(serial))
    for _ in range(2):
        booted.machine.plug(serial, plug)
        booted.check_disk(serial)
        booted.machine.unplug(serial)
        node = booted.guest.shell.run(booted.guest.adapter.disk_node(serial), seconds=120)
        assert node.stdout == ""


def test_plugging_knows_its_limits(booted: Rig) -> None:
    """A name is used once, ports run out, and a socket nobody serves is refused before QEMU hears of it."""
    blk, scsi = Plug("blk", booted.socket("hot-blk")), Plug("scsi", booted.socket("hot-scsi"))
    booted.machine.plug("one", blk)
    booted.machine.plug("two", scsi)
    with pytest.raises(LabError, match="called one already"):
        booted.machine.plug("one", blk)
    with pytest.raises(LabError, match=r"no free port.*hotplug_ports"):
        booted.machine.plug("three", blk)
    booted.machine.unplug("two")
    booted.machine.unplug("one")
    with pytest.raises(LabError, match="no device called one"):
        booted.machine.unplug("one")
    with pytest.raises(LabError, match=r"there is no socket.*start the disk server"):
        booted.machine.plug("three", Plug("blk", booted.socket("nowhere")))


def test_pause_and_resume(booted: Rig) -> None:
    """A paused guest's clock of programs stands still."""
    booted.machine.pause()
    assert booted.machine.execute("query-status")["status"] == "paused"
    assert booted.machine.running
    booted.machine.resume()
    assert booted.machine.execute("query-status")["status"] == "running"
    assert booted.run("echo here").strip() == "here"


def test_console_and_screenshot(booted: Rig, tmp_path: Path) -> None:
    """The serial port's words, of which some may get lost; a PNG with something on it."""
    deadline = time.monotonic() + BOOT_SECONDS
    while "words for the console" not in booted.machine.console():
        assert time.monotonic() < deadline, booted.machine.console()
        booted.run("echo words for the console > /dev/console; sleep 0.1")
    booted.machine.screenshot(tmp_path / "screen.png")
    colours = _colours((tmp_path / "screen.png").read_bytes())
    assert len(colours) > 1


def _colours(png: bytes) -> set[bytes]:
    """The colours of an 8-bit RGB picture whose lines use no filter or the simplest ones: the bytes, unfiltered."""
    assert png.startswith(b"\x89PNG\r\n\x1a\n")
    assert struct.unpack(">BB", png[24:26]) == (8, 2)
    width, height = struct.unpack(">II", png[16:24])
    data, at = b"", 8
    while at < len(png):
        length, kind = struct.unpack(">I4s", png[at : at + 8])
        assert zlib.crc32(png[at + 4 : at + 8 + length]) == struct.unpack(">I", png[at + 8 + length :][:4])[0]
        data += png[at + 8 : at + 8 + length] if kind == b"IDAT" else b""
        at += length + 12
    rows = zlib.decompress(data)
    assert len(rows) == height * (3 * width + 1)
    return {rows[index : index + 3] for index in range(1, len(rows), 3 * width + 1)} | {
        rows[index : index + 3] for index in range(1, min(len(rows), 30 * (3 * width + 1)), 3)
    }


def test_reboot_and_reset(booted: Rig) -> None:
    """By the guest itself and by the button: another boot each time, on the same disks."""
    identities = {booted.run(booted.guest.adapter.boot_identity())}
    booted.guest.reboot()
    identities.add(booted.run(booted.guest.adapter.boot_identity()))
    booted.guest.reset()
    identities.add(booted.run(booted.guest.adapter.boot_identity()))
    assert len(identities) == 3
    booted.check_disk("cold-blk")
    booted.check_disk("cold-scsi")


def test_collects_what_helps(booted: Rig, tmp_path: Path) -> None:
    """Logs of the guest as files."""
    found = booted.guest.collect(tmp_path / "kept")
    assert {path.name for path in found} == {"dmesg.txt", "disks.txt", "system.txt"}
    assert "cold-blk" in (tmp_path / "kept" / "disks.txt").read_text()


def test_power_button(booted: Rig) -> None:
    """The last of the guest: it hears the button and switches off. A machine that is off says so."""
    booted.machine.shut_down(seconds=BOOT_SECONDS)
    assert not booted.machine.running
    booted.machine.check()
    with pytest.raises(LabError):
        booted.machine.execute("query-status")


@pytest.fixture
def overlays_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """A session daemon is the user's own; here it is another user's, who may write to what the lab makes."""

    def make(base: Path, base_format: str, overlay: Path) -> None:
        make_overlay(base, base_format, overlay)
        overlay.chmod(0o666)

    monkeypatch.setattr(system_disk, "make_overlay", make)


@pytest.fixture
def counter(place: Bench, overlays_for_all: None) -> Iterator[Machine]:
    """A machine on a disk that counts its boots."""
    spec = GuestSpec(DiskImage(counting_disk(place.folder), "raw"), "tcg", memory_mib=64, cpus=1)
    machine = place.machine(spec, f"counter-{uuid.uuid4().hex[:6]}")
    yield machine
    machine.kill()


def boot(machine: Machine) -> str:
    """Start it and return which boot it says it is."""
    before = machine.console().count("LAB:boot ")
    machine.start()
    deadline = time.monotonic() + BOOT_SECONDS
    while len(words := machine.console().split("LAB:boot ")) <= before + 1 or not words[-1]:
        assert time.monotonic() < deadline, machine.console()
        time.sleep(0.05)
    machine.kill()
    return words[-1][0]


def test_system_disk_goes_back(place: Bench, counter: Machine) -> None:
    """To the image, or to what was saved; the image itself never changes."""
    image = (place.folder / "counter.img").read_bytes()
    assert boot(counter) == "A"
    assert boot(counter) == "B"
    counter.revert_system()
    assert boot(counter) == "A"
    counter.save_system()
    assert boot(counter) == "B"
    counter.revert_system()
    assert boot(counter) == "B"
    assert (place.folder / "counter.img").read_bytes() == image


def test_saving_needs_a_machine_that_is_off(counter: Machine) -> None:
    """A disk in use is in no state that one would go back to."""
    counter.start()
    with pytest.raises(LabError, match="shut the machine down"):
        counter.save_system()
    counter.kill()
    assert not counter.running


@pytest.mark.parametrize("field", ["blk_sockets", "scsi_sockets"])
def test_missing_socket_is_refused(place: Bench, image: Image, field: str) -> None:
    """At once, with the cure; also where the file is there and nobody listens."""
    gone = place.folder / f"{field}.gone"
    spec = replace(GuestSpec(place.image(image), "tcg"), **{field: (gone,)})
    machine = place.machine(spec, f"gone-{field}")
    with pytest.raises(LabError, match=r"there is no socket.*qemu-odx serve"):
        machine.start()
    with socket.socket(socket.AF_UNIX) as unheard:
        unheard.bind(str(gone))
    with pytest.raises(LabError, match="nobody listens"):
        machine.start()
    assert not machine.running


@pytest.mark.parametrize("patience", [0.0, 3.0])
def test_silent_server_ends_the_start(place: Bench, image: Image, patience: float) -> None:
    """A server that takes the connection and never answers: the start is given up, and nothing is left of it.

    Also if that is so soon that QEMU, or libvirt's daemon, has hardly begun.
    """
    path = place.folder / f"silent-{patience}.sock"
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(path))
        silent.listen()
        place.let_in(path)
        spec = GuestSpec(place.image(image), "tcg", blk_sockets=(path,))
        machine = place.machine(spec, f"silent-{patience}", seconds=patience)
        threads = threading.active_count()
        with pytest.raises(LabError, match="does not answer"):
            machine.start()
        assert not machine.running
        _no_qemu_left(path)
    deadline = time.monotonic() + 120
    while threading.active_count() > threads:  # a thread may take a moment to end, too
        assert time.monotonic() < deadline, threading.enumerate()
        time.sleep(0.1)


def _no_qemu_left(path: Path) -> None:
    """No process has the socket on its command line; it may take a moment to end."""
    deadline = time.monotonic() + 120
    while True:
        left = []
        for entry in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                command = entry.read_bytes()
            except OSError:
                continue
            if b"qemu-system" in command and str(path).encode() in command:
                left.append(entry)
        if not left:
            return
        assert time.monotonic() < deadline, left
        time.sleep(0.1)
