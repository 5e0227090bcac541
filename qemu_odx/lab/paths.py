"""Where the lab finds its recipes and guest scripts, and where it keeps images and logs.

May import: errors. In a checkout the recipes lie beside the package; a wheel brings them to `share`,
of the interpreter, of Debian's `/usr/local` or of the user, as pip was told.
"""

from __future__ import annotations

import sysconfig
from pathlib import Path

from platformdirs import user_cache_path, user_state_path

from qemu_odx.lab.errors import MissingError

APPLICATION = "qemu-odx"


def data_folder(name: str) -> Path:
    """The folder `vm_images` or `guest_scripts` of this installation.

    Raises:
        LabError: the installation is incomplete.
    """
    installed = (
        sysconfig.get_path("data"),
        sysconfig.get_path("data", sysconfig.get_preferred_scheme("user")),
    )
    for parent in (Path(__file__).parents[2], *(Path(data) / "share" / APPLICATION for data in installed)):
        if (parent / name).is_dir():
            return parent / name
    raise MissingError(f"this installation has no folder {name}", "install the package again")


def images_folder() -> Path:
    """Where built guest images are cached."""
    return user_cache_path(APPLICATION) / "images"


def saved_guests_folder() -> Path:
    """Where the memory of booted guests is kept, to resume them."""
    return user_cache_path(APPLICATION) / "saved"


def kept_runs_folder() -> Path:
    """Where the logs of failed runs are kept, one folder for each."""
    return user_state_path(APPLICATION) / "runs"


def labs_folder() -> Path:
    """Where labs that stay up are recorded, one folder for each."""
    return user_state_path(APPLICATION) / "labs"
