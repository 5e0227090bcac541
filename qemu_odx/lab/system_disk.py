"""The system disk of one machine: overlays on an image that never changes, so that going back costs nothing.

May import: errors, disk_image. Used by both kinds of machines.
"""

from __future__ import annotations

import shutil
import subprocess
from typing import TYPE_CHECKING

from qemu_odx.lab.disk_image import SystemFiles
from qemu_odx.lab.errors import LabError, MissingError

if TYPE_CHECKING:
    from pathlib import Path

    from qemu_odx.lab.disk_image import DiskImage

PROGRAM = "qemu-img"


def make_overlay(base: Path, base_format: str, overlay: Path) -> None:
    """Make `overlay`, a qcow2 file that shows `base` until it is written. Raises LabError."""
    overlay.unlink(missing_ok=True)
    run_qemu_img("create", "-q", "-f", "qcow2", "-b", str(base.absolute()), "-F", base_format, str(overlay))


def run_qemu_img(*arguments: str, seconds: float | None = None) -> str:
    """Run qemu-img, at most so long, and return what it prints. Raises LabError with its own words."""
    try:
        done = subprocess.run(
            [PROGRAM, *arguments], capture_output=True, text=True, check=True, timeout=seconds
        )
    except subprocess.TimeoutExpired as error:
        raise LabError(
            f"qemu-img {arguments[0]} took longer than {seconds:.0f} s",
            "see whether the disk is full or slow",
        ) from error
    except FileNotFoundError as error:
        raise MissingError(f"{PROGRAM} is not installed", "install the package qemu-utils") from error
    except subprocess.CalledProcessError as error:
        words = error.stderr.strip().splitlines()
        reason = words[-1] if words else "it gave no reason"
        raise LabError(
            f"cannot work on the system disk: {reason}", "check the image file and free space"
        ) from error
    return done.stdout


class SystemDisk:
    """Overlay, UEFI variables and TPM state of one machine, in its folder."""

    def __init__(self, image: DiskImage, folder: Path) -> None:
        """Make them as the image has them. Raises LabError if there is no such image."""
        if not image.disk.exists():
            raise LabError(f"there is no image {image.disk}", "give the path of a disk image")
        self._image = image
        self._folder = folder
        self._saved = 0
        self._variables = folder / "variables.fd" if image.firmware else None
        self._tpm = folder / "tpm" if image.tpm else None
        if image.firmware and self._variables:
            shutil.copyfile(image.firmware.variables, self._variables)
        self._keep_beside()
        self._overlay()

    @property
    def tpm_state(self) -> Path | None:
        """The folder of the emulated TPM's state, None without one."""
        return self._tpm

    @property
    def files(self) -> SystemFiles:
        """What QEMU opens."""
        socket = self._folder / "tpm.sock" if self._tpm else None
        return SystemFiles(self._layer(self._saved), self._variables, socket)

    def save(self) -> None:
        """Keep the state of now: what is written from here on goes to a new overlay."""
        self._saved += 1
        self._keep_beside()
        self._overlay()

    def revert(self) -> None:
        """Forget what was written since the last `save`, or since the image was made."""
        self._overlay()
        self._take_back()

    def _layer(self, number: int) -> Path:
        return self._folder / f"system{number}.qcow2"

    def _overlay(self) -> None:
        if self._saved:
            make_overlay(self._layer(self._saved - 1), "qcow2", self._layer(self._saved))
        else:
            make_overlay(self._image.disk, self._image.disk_format, self._layer(0))

    def _keep_beside(self) -> None:
        """UEFI variables and TPM state belong to the disk: a boot entry or a sealed key must fit it."""
        if self._variables:
            shutil.copyfile(self._variables, self._kept(self._variables))
        if self._tpm:
            self._tpm.mkdir(exist_ok=True)
            shutil.copytree(self._tpm, self._kept(self._tpm))

    def _take_back(self) -> None:
        if self._variables:
            shutil.copyfile(self._kept(self._variables), self._variables)
        if self._tpm:
            shutil.rmtree(self._tpm)
            shutil.copytree(self._kept(self._tpm), self._tpm)

    def _kept(self, path: Path) -> Path:
        return path.with_name(f"{path.name}.{self._saved}")
