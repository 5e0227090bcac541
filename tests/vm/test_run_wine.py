"""`qemu-odx run --guest wine`: a Windows program through the same door; what it prints is what the doctor reads."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import pytest
from leftovers import Scratch

from qemu_odx.lab.doctor.guest.layer import Verdict
from qemu_odx.lab.doctor.guest.windows import windows_view
from qemu_odx.lab.image import Image, ensure_image

DISK = r"\\.\PhysicalDrive1"
MACHINE = {
    "system": "windows",
    "version": "Wine",
    "odx_off": None,
    "tool": True,
    "volume": {"name": "C:", "file_system": "NTFS", "disk": "", "bitlocker": "Off", "filters": []},
    "files": [],
    "proof": None,
}


@pytest.fixture(scope="module")
def wine_image() -> Image:
    """The cached image with Wine."""
    return ensure_image("wine")


def test_offload_property_is_read_by_the_doctor(wine_image: Image) -> None:
    """The structure crosses the class driver's IOCTL for real; `odx.exe` prints it, the doctor understands it."""
    with tempfile.TemporaryDirectory(prefix="t") as folder:
        scratch = Scratch(Path(folder))
        done = scratch.run("run", "--guest", "wine", "--json", "odx.exe", "property", DISK)
        assert done.returncode == 0, done.stdout + done.stderr
        assert scratch.left() == {}
    printed = json.loads(done.stdout)["result"]
    assert printed["calls"][0]["ntstatus"] == "0x00000000"
    disk = {"node": DISK, "serial": "odx-source", "driver": "odxdisk", "property": printed}
    (view,) = windows_view({**MACHINE, "disks": [disk]}).disks
    device, driver, *_ = view.layers
    assert device.verdict is driver.verdict is Verdict.PASSES
    assert f"{printed['property']['optimal_transfer_count']} blocks" in device.found
