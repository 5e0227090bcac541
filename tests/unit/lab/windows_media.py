"""Media like the real ones, small: a Windows ISO (UDF, with a real WIM in it) and a virtio-win ISO."""

from __future__ import annotations

import io
import shutil
import subprocess
import zipfile
from typing import TYPE_CHECKING

import pycdlib
import pytest

if TYPE_CHECKING:
    from pathlib import Path

SERVER_2022 = {
    "WINDOWS/ARCH": "9",
    "WINDOWS/EDITIONID": "ServerStandard",
    "WINDOWS/PRODUCTTYPE": "ServerNT",
    "WINDOWS/INSTALLATIONTYPE": "Server Core",
    "WINDOWS/VERSION/BUILD": "20348",
    "WINDOWS/LANGUAGES/DEFAULT": "en-US",
}
SERVER_2025 = {**SERVER_2022, "WINDOWS/VERSION/BUILD": "26100"}
WINDOWS_11 = {
    **SERVER_2022,
    "WINDOWS/EDITIONID": "Professional",
    "WINDOWS/PRODUCTTYPE": "WinNT",
    "WINDOWS/INSTALLATIONTYPE": "Client",
    "WINDOWS/VERSION/BUILD": "26100",
    "WINDOWS/LANGUAGES/DEFAULT": "de-DE",
}


def make_wim(folder: Path, images: dict[str, dict[str, str]]) -> Path:
    """A WIM by wimlib, an implementation that is not ours: name of each image -> its properties."""
    if shutil.which("wimlib-imagex") is None:
        pytest.skip("wimlib-imagex is not installed (package wimtools)")
    content, wim = folder / "content", folder / "install.wim"
    content.mkdir(exist_ok=True)
    (content / "hello.txt").write_text("hello")
    for index, (name, properties) in enumerate(images.items(), 1):
        verb = ["capture"] if index == 1 else ["append"]
        subprocess.run(["wimlib-imagex", *verb, content, wim, name], check=True, capture_output=True)
        options = [f"--image-property={key}={value}" for key, value in properties.items()]
        subprocess.run(["wimlib-imagex", "info", wim, str(index), *options], check=True, capture_output=True)
    return wim


def windows_iso(folder: Path, images: dict[str, dict[str, str]], name: str = "install.wim") -> Path:
    """As Microsoft's: the files are in UDF, ISO 9660 has a note only."""
    wim = make_wim(folder, images).read_bytes()
    iso = pycdlib.PyCdlib()
    iso.new(udf="2.60")
    note = b"This disc contains a UDF file system."
    iso.add_fp(io.BytesIO(note), len(note), "/README.TXT;1")
    iso.add_directory(udf_path="/sources")
    iso.add_fp(io.BytesIO(wim), len(wim), udf_path=f"/sources/{name}")
    target = folder / "windows.iso"
    iso.write(str(target))
    iso.close()
    return target


def virtio_iso(folder: Path, *releases: str) -> Path:
    """As virtio-win's: Joliet, a folder for each driver and release."""
    iso = pycdlib.PyCdlib()
    iso.new(interchange_level=3, joliet=3)
    for driver in ("vioscsi", "viostor", "NetKVM"):
        iso.add_directory(f"/{driver.upper()}", joliet_path=f"/{driver}")
        for release in releases:
            iso.add_directory(f"/{driver.upper()}/{release.upper()}", joliet_path=f"/{driver}/{release}")
            iso.add_directory(
                f"/{driver.upper()}/{release.upper()}/AMD64", joliet_path=f"/{driver}/{release}/amd64"
            )
    target = folder / "virtio-win.iso"
    iso.write(str(target))
    iso.close()
    return target


def openssh_zip(folder: Path) -> Path:
    """As PowerShell/Win32-OpenSSH's."""
    target = folder / "OpenSSH-Win64.zip"
    with zipfile.ZipFile(target, "w") as package:
        package.writestr("OpenSSH-Win64/sshd.exe", "MZ")
        package.writestr("OpenSSH-Win64/install-sshd.ps1", "")
    return target
