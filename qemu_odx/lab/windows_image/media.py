"""The media that the user gives: is each what it should be, before an hour is spent on it.

May import: errors, wim. Windows' ISOs are UDF with next to nothing in ISO 9660, so both are looked at.
"""

from __future__ import annotations

import zipfile
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pycdlib
from pycdlib.pycdlibexception import PyCdlibException

from qemu_odx.lab.errors import LabError
from qemu_odx.lab.windows_image.wim import WindowsEdition, choose_edition, read_editions

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

INSTALL_IMAGES = ("/sources/install.wim", "/sources/install.esd")
NEEDED_DRIVERS = ("vioscsi", "viostor", "NetKVM")
SSHD_IN_ZIP = "sshd.exe"
RELEASES = (  # first build, server: driver folder of virtio-win, our name
    (26100, True, "2k25", "server2025"),
    (20348, True, "2k22", "server2022"),
    (17763, True, "2k19", "server2019"),
    (14393, True, "2k16", "server2016"),
    (22000, False, "w11", "windows11"),
    (10240, False, "w10", "windows10"),
)


@dataclass(frozen=True, slots=True)
class Release:
    """A release of Windows, by what differs for us.

    Attributes:
        name: "server2022" for one.
        driver_folder: what virtio-win calls it.
        has_sshd: OpenSSH's server is installed, only switched off.
        needs_tpm: Setup asks for a TPM 2.0.
    """

    name: str
    driver_folder: str
    has_sshd: bool
    needs_tpm: bool


def release_of(edition: WindowsEdition) -> Release:
    """The release of an image. Raises LabError if it is older than the drivers."""
    for first, server, folder, name in RELEASES:
        if edition.server == server and edition.build >= first:
            return Release(name, folder, has_sshd=name == "server2025", needs_tpm=name == "windows11")
    raise LabError(
        f"{edition.name} (build {edition.build}) is too old", "use Windows 10 or Server 2016, or newer"
    )


@contextmanager
def opened(path: Path, what: str) -> Iterator[Any]:
    """An ISO as pycdlib has it. Raises LabError if there is none, or it is no ISO."""
    if not path.is_file():
        raise LabError(f"there is no {what} {path}", "give the path of an ISO file")
    iso = pycdlib.PyCdlib()
    try:
        iso.open(str(path))
    except (PyCdlibException, OSError) as error:
        raise LabError(f"{path} is no readable ISO ({error})", f"give the ISO of the {what}") from error
    try:
        yield iso
    finally:
        iso.close()


def windows_edition(path: Path, wanted: str | None) -> WindowsEdition:
    """The image to install from a Windows ISO. Raises LabError if it holds none."""
    with opened(path, "Windows installation medium") as iso:
        for name in INSTALL_IMAGES:
            for kind in ("udf_path", "joliet_path"):
                with suppress(PyCdlibException), iso.open_file_from_iso(**{kind: name}) as wim:
                    return choose_edition(read_editions(wim), wanted)
    raise LabError(
        f"{path} has neither {' nor '.join(INSTALL_IMAGES)}",
        "give the installation ISO of Windows, not an update or a tools ISO",
    )


def check_drivers(path: Path, release: Release) -> None:
    """Raise LabError unless a virtio-win ISO has the drivers for this release."""
    with opened(path, "virtio-win medium") as iso:
        for driver in NEEDED_DRIVERS:
            folder = f"/{driver}/{release.driver_folder}/amd64"
            if not any(_is_folder(iso, kind, folder) for kind in ("joliet_path", "udf_path", "rr_path")):
                raise LabError(
                    f"{path} has no {folder}", f"give a virtio-win ISO with drivers for {release.name}"
                )


def _is_folder(iso: Any, kind: str, path: str) -> bool:
    try:
        return bool(iso.get_record(**{kind: path}).is_dir())
    except PyCdlibException:
        return False


def check_openssh(path: Path) -> None:
    """Raise LabError unless a zip file holds OpenSSH for Windows."""
    try:
        with zipfile.ZipFile(path) as package:
            names = package.namelist()
    except (OSError, zipfile.BadZipFile) as error:
        raise LabError(f"{path} is no readable zip file ({error})", "give OpenSSH-Win64.zip") from error
    if not any(name.rsplit("/", 1)[-1] == SSHD_IN_ZIP for name in names):
        raise LabError(f"{path} holds no {SSHD_IN_ZIP}", "give OpenSSH-Win64.zip of PowerShell/Win32-OpenSSH")
