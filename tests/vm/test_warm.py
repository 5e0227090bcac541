"""Saved guests: resumed in about a second, each its own, disks plugged in afterwards; booted where that fails."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from qemu_odx.lab import warm
from qemu_odx.lab.accelerator import choose_accelerator
from qemu_odx.lab.backend import Backend, DiskSpec, ScsiExport, serve_command
from qemu_odx.lab.machine import Plug
from qemu_odx.lab.qemu import GuestSpec
from qemu_odx.lab.run_folder import RunFolder
from qemu_odx.lab.saved_state import StateCache, state_key
from qemu_odx.lab.warm import save_guest, start_guest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from qemu_odx.lab.image import Image
    from qemu_odx.lab.live import LiveGuest

MIB = 1 << 20
LOOK = "date +%s; od -An -N16 -tx1 /dev/urandom; cut -d' ' -f22 /proc/$(cat /run/dropbear.pid)/stat"


@pytest.fixture(scope="module")
def spec(image: Image) -> GuestSpec:
    """A guest with room for disks."""
    return GuestSpec(image, choose_accelerator(), memory_mib=384, hotplug_ports=2)


@pytest.fixture(scope="module")
def cache(spec: GuestSpec, tmp_path_factory: pytest.TempPathFactory) -> StateCache:
    """A cache of our own that holds this guest, saved as if that had been long ago."""
    cache = StateCache(tmp_path_factory.mktemp("saved"))
    with pytest.MonkeyPatch.context() as patch, cache.locked():
        patch.setattr(warm, "IN_MEMORY", f"{warm.IN_MEMORY}; date -s @1000000000")
        save_guest(spec, cache, state_key(spec))
    return cache


@pytest.fixture
def folder() -> Iterator[Path]:
    """A run folder."""
    with RunFolder() as run:
        yield run.path


def look(guest: LiveGuest) -> tuple[int, str, str]:
    """The guest's clock, random bytes, and when in its life its ssh server began, which is another at every boot."""
    clock, random, born = guest.shell.run(LOOK, seconds=120).stdout.splitlines()
    return int(clock), random, born


def test_two_of_one_state(spec: GuestSpec, cache: StateCache, folder: Path) -> None:
    """The same boot, today's clock in both, and not the same random numbers: an array of keys would repeat."""
    seen = []
    for _ in range(2):
        start = start_guest(spec, folder, cache=cache)
        try:
            assert start.resumed, start.reason
            assert "LAB:" not in start.guest.machine.console()  # what a boot writes there
            seen.append(look(start.guest))
            assert abs(seen[-1][0] - time.time()) < 3600  # the saved one is from 2001
        finally:
            start.guest.kill()
    assert seen[0][1] != seen[1][1]
    assert seen[0][2] == seen[1][2]


def test_disks_come_and_go_in_a_resumed_guest(spec: GuestSpec, cache: StateCache, folder: Path) -> None:
    """Written by the guest, found on the host; twice over, each time other disks; the guest powers off well."""
    guest = start_guest(spec, folder, cache=cache).guest
    try:
        for number in range(2):
            disk = DiskSpec("d0", folder / f"d{number}.img", 8 * MIB, f"odx-{number}")
            export = ScsiExport(folder / f"{number}.sock", ("d0",))
            backend = Backend(serve_command([disk], [export]), folder / "serve.log")
            guest.machine.plug("disks", Plug("scsi", export.socket))
            node = guest.disk(disk.serial)
            done = guest.shell.run(f"echo disk {number} > {node}; sync", seconds=120)
            assert done.status == 0, done.stderr
            guest.machine.unplug("disks")
            assert backend.stop() == 0
            assert disk.path.read_bytes()[:7] == f"disk {number}\n".encode()
        guest.power_off()
    finally:
        guest.kill()


def test_a_state_that_does_not_fit(spec: GuestSpec, cache: StateCache, folder: Path) -> None:
    """QEMU's own words are the reason, the guest is booted, and the state is gone: the next run saves anew."""
    other = replace(spec, memory_mib=320)
    os.link(cache.path(state_key(spec)), cache.path(state_key(other)))
    start = start_guest(other, folder, cache=cache)
    try:
        assert not start.resumed
        assert "QEMU ended with exit code 1" in start.reason
        assert start.guest.shell.run("true", seconds=120).status == 0
    finally:
        start.guest.kill()
    assert cache.find(state_key(other)) is None


def test_a_cache_that_cannot_be_written(spec: GuestSpec, folder: Path) -> None:
    """The guest is booted, and the reason told."""
    (folder / "file").write_text("")
    told: list[str] = []
    start = start_guest(spec, folder, cache=StateCache(folder / "file" / "saved"), report=told.append)
    start.guest.kill()
    assert not start.resumed
    assert "Not a directory" in start.reason
    assert told == [f"booting the guest: {start.reason}"]
