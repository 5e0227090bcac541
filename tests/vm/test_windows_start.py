"""The machine of a Windows installation, for real: UEFI, the CD, our disks, the key, the reboot, the end.

Windows is not here. In its place is a program on the CD that does towards us what Setup does (`setup.c`); the
firmware, its lines, the drives and the flow of `install` are the real ones.
"""

from __future__ import annotations

import io
import shutil
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pycdlib
import pytest
from machine_rig import Bench, bench

from qemu_odx.lab.backend import Backend, BlkExport, DiskSpec, ScsiExport, serve_command
from qemu_odx.lab.disk_image import DiskImage, find_firmware
from qemu_odx.lab.machines.qemu import QemuMachine
from qemu_odx.lab.qemu import GuestSpec
from qemu_odx.lab.run_folder import RunFolder
from qemu_odx.lab.system_disk import run_qemu_img
from qemu_odx.lab.windows_image.install import install
from qemu_odx.lab.windows_image.steps import Deadline

if TYPE_CHECKING:
    from collections.abc import Iterator

SECONDS = 240.0
COMPILE = ["x86_64-w64-mingw32-gcc", "-O1", "-ffreestanding", "-fshort-wchar", "-nostdlib"]
AS_EFI = ["-Wl,--subsystem,10", "-Wl,-e,efi_main"]
SECTOR = 512


@pytest.fixture(scope="module", params=["qemu", "session"])
def place(request: pytest.FixtureRequest) -> Iterator[Bench]:
    """A bench of either kind."""
    for program, package in (("x86_64-w64-mingw32-gcc", "gcc-mingw-w64-x86-64-win32"), ("mformat", "mtools")):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed (package {package})")
    with bench(request.param) as made:
        yield made


def setup_disc(folder: Path) -> Path:
    """A CD that UEFI boots: El Torito, platform EFI, a FAT image with the program in the usual place."""
    program, fat = folder / "BOOTX64.EFI", folder / "efi.img"
    source = Path(__file__).parent / "setup.c"
    subprocess.run([*COMPILE, *AS_EFI, "-o", program, source], check=True)
    subprocess.run(["mformat", "-C", "-i", fat, "-f", "1440", "::"], check=True)
    subprocess.run(["mmd", "-i", fat, "::/EFI", "::/EFI/BOOT"], check=True)
    subprocess.run(["mcopy", "-i", fat, program, "::/EFI/BOOT/BOOTX64.EFI"], check=True)
    content = fat.read_bytes()
    iso = pycdlib.PyCdlib()
    iso.new()
    iso.add_fp(io.BytesIO(content), len(content), "/EFI.IMG;1")
    iso.add_eltorito("/EFI.IMG;1", platform_id=0xEF, boot_load_size=len(content) // SECTOR)
    iso.write(str(folder / "setup.iso"))
    iso.close()
    return folder / "setup.iso"


@pytest.fixture(scope="module")
def sockets(place: Bench) -> Iterator[tuple[Path, Path]]:
    """Our disks: a SCSI unit and a virtio-blk disk, served."""
    scsi, blk = (place.folder / f"{name}.sock" for name in ("scsi", "blk"))
    disks = [DiskSpec(name, place.folder / f"{name}.img", 16 << 20, f"odx-{name}") for name in ("d0", "d1")]
    exports = [ScsiExport(scsi, ("d0",)), BlkExport(blk, "d1")]
    backend = Backend(serve_command(disks, exports), place.folder / "serve.log")
    for path in (scsi, blk):
        place.let_in(path)
    yield scsi, blk
    assert backend.stop() == 0


def test_from_the_firmware_to_the_end(place: Bench, sockets: tuple[Path, Path], tmp_path: Path) -> None:
    """UEFI finds the CD behind the empty disk, gets its key, reboots, and the marker and the power end it."""
    blank = place.folder / "blank.qcow2"
    run_qemu_img("create", "-q", "-f", "qcow2", str(blank), "64G")
    scsi, blk = sockets
    image = DiskImage(blank, system="windows", firmware=find_firmware(), cdroms=(setup_disc(place.folder),))
    spec = GuestSpec(image, "tcg", (scsi,), (blk,), memory_mib=256, cpus=1, display=True)
    machine = place.machine(spec, "setup")
    for path in (place.folder / "setup").iterdir():
        path.chmod(0o666)  # a daemon's QEMU is another user here
    reported: list[str] = []
    try:
        progress = install(machine, Deadline(time.monotonic() + SECONDS, SECONDS, "-"), reported.append)
        console = machine.console()
    finally:
        machine.kill()
    cd = next(entry for entry in progress.boots if "DVD-ROM" in entry)
    assert progress.boots[cd] == 2
    assert "Press any key to boot from CD" in console
    assert "Windows is set up: drivers" in reported
    assert reported[-1] == "Windows is installed"
    assert not machine.running


def test_emulated_tpm(tmp_path: Path) -> None:
    """QEMU finds the TPM that is started for it; both end together, and a saved state comes back."""
    if shutil.which("swtpm") is None:
        pytest.skip("swtpm is not installed (package swtpm)")
    blank = tmp_path / "blank.qcow2"
    run_qemu_img("create", "-q", "-f", "qcow2", str(blank), "64M")
    with RunFolder() as run:
        machine = QemuMachine(GuestSpec(DiskImage(blank, tpm=True), "tcg", memory_mib=64, cpus=1), run.path)
        for _ in range(2):
            machine.start()
            assert machine.execute("query-tpm")[0]["model"] == "tpm-crb"
            machine.kill()
        state = run.path / "tpm" / "tpm2-00.permall"
        first = state.read_bytes()
        machine.save_system()
        state.write_bytes(b"another")
        machine.revert_system()
        assert state.read_bytes() == first
        command = f"dir={run.path / 'tpm'}".encode()
        assert not [path for path in Path("/proc").glob("[0-9]*/cmdline") if command in _read(path)]


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""
