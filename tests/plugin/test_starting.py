"""What the options make of a guest that is not the lab's own Linux."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest
from paramiko import RSAKey

from qemu_odx.lab.disk_image import DiskImage, find_firmware
from qemu_odx.lab.errors import LabError, UsageError
from qemu_odx.lab.machines.libvirt import LibvirtMachine
from qemu_odx.lab.machines.qemu import QemuMachine
from qemu_odx.pytest_plugin import starting
from qemu_odx.pytest_plugin.artifacts import Artifacts
from qemu_odx.pytest_plugin.guests import GuestPool
from qemu_odx.pytest_plugin.options import OdxOptions
from qemu_odx.pytest_plugin.starting import GuestOrder, start

if TYPE_CHECKING:
    from pathlib import Path

    from qemu_odx.lab.adapters.port import GuestAdapter
    from qemu_odx.lab.machine import Machine


class Booted:
    """Stands where a guest would have been booted, and remembers with what."""

    def __init__(self, machine: Machine, adapter: GuestAdapter) -> None:
        self.machine, self.adapter = machine, adapter

    def kill(self) -> None:
        """Nothing runs."""


@pytest.fixture
def options(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> OdxOptions:
    """Those of a user with a disk image."""
    image = tmp_path / "own.img"
    image.write_bytes(bytes(4096))
    RSAKey.generate(1024).write_private_key_file(str(tmp_path / "key"))
    monkeypatch.setattr(starting, "LiveGuest", Booted)
    return OdxOptions(
        guest="linux",
        image=image,
        user="tester",
        port=2022,
        key=tmp_path / "key",
        system="linux",
        firmware="bios",
        machine="qemu",
        libvirt_uri="qemu:///session",
        fresh=False,
        boot=False,
        keep="failed",
        artifacts=None,
        require=False,
    )


@pytest.mark.parametrize(("system", "bus", "memory"), [("linux", "virtio", 1024), ("windows", "ahci", 4096)])
def test_the_users_own_image(options: OdxOptions, system: str, bus: str, memory: int) -> None:
    """Who logs in, where, with which key; devices that this system has drivers for; memory that suffices."""
    started = start(GuestOrder(str(options.image)), replace(options, system=system))
    try:
        login = started.live.adapter.login
        assert (login.user, login.private_key) == ("tester", options.key)
        machine = started.live.machine
        assert isinstance(machine, QemuMachine)
        spec = machine._spec
        assert isinstance(spec.image, DiskImage)
        assert (spec.image.ssh_port, spec.image.disk_bus, spec.memory_mib) == (2022, bus, memory)
        assert spec.hotplug_ports == starting.PORTS
        assert not started.resumed
        assert "system disk is written to" in started.reason
    finally:
        started.end()


def test_the_users_own_image_started_by_uefi(options: OdxOptions) -> None:
    """As nearly every Windows is."""
    started = start(GuestOrder(str(options.image)), replace(options, system="windows", firmware="uefi"))
    try:
        machine = started.live.machine
        assert isinstance(machine, QemuMachine)
        assert isinstance(machine._spec.image, DiskImage)
        assert machine._spec.image.firmware == find_firmware()
    finally:
        started.end()


def test_logs_of_a_guest_that_does_not_come_up_are_kept(
    options: OdxOptions, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """They say why; its folder goes."""

    class Dead:
        """A guest that leaves a log."""

        def __init__(self, machine: QemuMachine, _adapter: GuestAdapter) -> None:
            (machine.folder / "serial.log").write_text("panic")
            raise LabError("no answer", "look")

    class Item:
        """A test that is being set up."""

        nodeid, stash = "test_it", pytest.Stash()

        def iter_markers(self, _name: str) -> list[pytest.Mark]:
            """None."""
            return []

        def add_report_section(self, *_: str) -> None:
            """Said."""

    monkeypatch.setattr(starting, "LiveGuest", Dead)
    item: Any = Item()
    artifacts = Artifacts(item, replace(options, artifacts=tmp_path / "kept"), cast("Any", None))
    server: Any = SimpleNamespace(artifacts=artifacts)
    with pytest.raises(LabError, match="no answer"), GuestPool(options).lend(item, server):
        pass
    assert (tmp_path / "kept/test_it/serial.log").read_text() == "panic"


@pytest.mark.parametrize("image", ["linucks", "none.qcow2"])
def test_a_slip_of_the_pen_is_no_skip(options: OdxOptions, image: str) -> None:
    """No machine has it, and a green run in which all is skipped is believed."""
    with pytest.raises(UsageError, match="there is no image"):
        start(GuestOrder(image), options)


def test_a_domain_of_libvirt(options: OdxOptions) -> None:
    """By the address that the user gives; memory as a marker says."""
    pytest.importorskip("libvirt", reason="libvirt-python is not installed")
    order = GuestOrder(str(options.image), memory_mib=300)
    started = start(order, replace(options, machine="libvirt", libvirt_uri="qemu+ssh://host/system"))
    try:
        machine = started.live.machine
        assert isinstance(machine, LibvirtMachine)
        assert machine._uri == "qemu+ssh://host/system"
        assert machine._spec.memory_mib == 300
        assert "libvirt" in started.reason
    finally:
        started.end()


def test_windows_without_an_image_is_a_skip(
    options: OdxOptions, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """With what has to be done for one; a failure where tests have to run."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(pytest.skip.Exception, match="qemu-odx"):
        start(GuestOrder("windows"), options)
    with pytest.raises(pytest.fail.Exception, match="--odx-require"):
        start(GuestOrder("windows"), replace(options, require=True))
