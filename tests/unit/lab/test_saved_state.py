"""Which saved guest fits, and how the cache keeps them."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from qemu_odx.lab import saved_state
from qemu_odx.lab.errors import LabError
from qemu_odx.lab.image import Image
from qemu_odx.lab.qemu import GuestSpec
from qemu_odx.lab.saved_state import KEPT_STATES, StateCache, state_key, why_not


@pytest.fixture
def spec(tmp_path: Path) -> GuestSpec:
    """A guest of the lab's Linux image."""
    folder = tmp_path / "image"
    for name in ("image", "other"):
        (tmp_path / name).mkdir(exist_ok=True)
        for file in ("vmlinux", "initrd", "root.erofs"):
            (tmp_path / name / file).write_text(name)
    return GuestSpec(Image("linux", folder), "tcg", hotplug_ports=2)


@pytest.fixture
def qemu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The QEMU that is found on PATH."""
    program = tmp_path / saved_state.PROGRAM
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    return program


def test_everything_that_a_state_depends_on_is_in_its_name(spec: GuestSpec, qemu: Path) -> None:
    """QEMU's own bytes, memory, processors, devices, the image."""
    other_image = Image("linux", spec.image.folder.parent / "other")
    specs = [
        spec,
        replace(spec, memory_mib=256),
        replace(spec, cpus=1),
        replace(spec, tcg_cpu="qemu64"),
        replace(spec, accelerator="kvm"),
        replace(spec, hotplug_ports=3),
        replace(spec, extra=("-device", "pvpanic")),
        replace(spec, image=other_image),
    ]
    keys = {state_key(one) for one in specs}
    assert len(keys) == len(specs)
    assert state_key(spec) == state_key(replace(spec))
    os.utime(spec.image.root, (1, 1))
    assert state_key(spec) not in keys, "another build of the image"
    keys.add(state_key(spec))
    qemu.write_text("#!/bin/sh\n# another version\n")
    assert state_key(spec) not in keys


def test_no_qemu(spec: GuestSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The usual sentence."""
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(LabError, match="QEMU is not installed"):
        state_key(spec)


def test_a_guest_with_disks_from_the_start_is_not_saved(spec: GuestSpec) -> None:
    """With the cure."""
    assert why_not(spec) == ""
    assert "plug them in afterwards" in why_not(replace(spec, blk_sockets=(Path("b.sock"),)))
    assert "plug them in afterwards" in why_not(replace(spec, scsi_sockets=(Path("s.sock"),)))


def test_a_state_is_there_whole_or_not_at_all(tmp_path: Path) -> None:
    """Nothing is found before it is finished, and a failure leaves nothing."""
    cache = StateCache(tmp_path / "saved")
    with cache.locked():
        with cache.new("k") as path:
            path.write_bytes(b"state")
            assert cache.find("k") is None
        with pytest.raises(ZeroDivisionError), cache.new("other"):
            _ = 1 / 0
    assert cache.find("k").read_bytes() == b"state"
    assert {path.name for path in cache.folder.iterdir()} == {"lock", "k.state"}
    cache.forget("k")
    cache.forget("k")
    assert cache.find("k") is None


def test_the_least_used_make_room(tmp_path: Path) -> None:
    """A state that was used lately stays, however old it is."""
    cache = StateCache(tmp_path)
    for number in range(KEPT_STATES):
        with cache.new(f"k{number}"):
            pass
        os.utime(cache.path(f"k{number}"), (number, number))
    assert cache.find("k0") is not None
    with cache.new("new"):
        pass
    kept = {path.stem for path in tmp_path.glob("*.state")}
    assert kept == {"k0", "new", *(f"k{number}" for number in range(2, KEPT_STATES))}
