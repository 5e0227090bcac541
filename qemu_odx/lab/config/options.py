"""A lab of one guest from options of the command line: `--disk size=1G,bus=scsi+blk`.

May import: errors, config/model. Next: `lab/session/` starts it.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from qemu_odx.lab.config.model import BLK, SCSI, Disk, Export
from qemu_odx.lab.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

DEFAULT_DISKS = ("id=source,size=256M,bus=scsi+blk", "id=destination,size=256M,bus=scsi+blk")
"""What a script finds if nothing is said: serial numbers odx-source and odx-destination."""
WINE_DISKS = tuple(f"{disk},mailbox=on" for disk in DEFAULT_DISKS)
"""The filter driver that is tried under Wine needs a mailbox."""
BUSES = ("scsi", "blk")
BLK_ONLY = ("mailbox",)
"""Keys that belong to the vhost-user-blk export of a disk."""
SOMEWHERE = "somewhere"


class LabOptionError(UsageError):
    """An option of the command line is not as it must be."""


def disks_and_exports(
    options: Sequence[str], here: Path, check: Callable[[str, str], None]
) -> tuple[tuple[Disk, ...], tuple[Export, ...]]:
    """Disks, one SCSI device for all that are on `scsi`, and a virtio-blk device for each that is on `blk`.

    Args:
        options: values of `--disk`.
        here: the folder that relative paths mean.
        check: raises ValueError if the server would not take `--disk` or `--export` with this value.

    Raises:
        LabOptionError: an option is wrong.
    """
    disks: list[Disk] = []
    units: list[str] = []
    blk: list[Export] = []
    for number, text in enumerate(options):
        given = split(text)
        name = given.pop("id", f"d{number}")
        buses = given.pop("bus", "scsi").split("+")
        _require(
            text, set(buses) <= set(BUSES), f"bus: take {' or '.join(BUSES)}, or both with + between them"
        )
        _require(text, name not in {disk.name for disk in disks}, f"two disks have id={name}")
        extra = {key: given.pop(key) for key in BLK_ONLY if key in given}
        disks.append(_disk(text, name, given, here))
        if "scsi" in buses:
            units.append(name)
        if "blk" in buses:
            blk.append(Export(f"blk-{name}", BLK, {0: name}, extra))
        _ask(text, check, disks[-1], extra)
    scsi = [Export("scsi", SCSI, dict(enumerate(units)))] if units else []
    return tuple(disks), (*scsi, *blk)


def split(text: str) -> dict[str, str]:
    """`a=1,b=2` as a mapping; a comma in a value is written twice."""
    pieces = re.split(r"(?<!,),(?!,)", text)
    pairs = [piece.replace(",,", ",").partition("=") for piece in pieces]
    for key, equals, _ in pairs:
        _require(text, bool(key and equals), "write key=value,key=value")
    return {key: value for key, _, value in pairs}


def _disk(text: str, name: str, given: Mapping[str, str], here: Path) -> Disk:
    path = here / given["path"] if "path" in given else None
    _require(text, path is not None or "size" in given, "it has neither path= nor size=")
    _require(
        text,
        path is None or "size" in given or path.exists(),
        f"there is no {path}; add size= to have it made",
    )
    options = {key: value for key, value in given.items() if key != "path"}
    return Disk(name, path, {"serial": f"odx-{name}"[:20], **options})


def _ask(text: str, check: Callable[[str, str], None], disk: Disk, extra: Mapping[str, str]) -> None:
    more = "".join(f",{key}={value}" for key, value in extra.items())
    options = "".join(f",{key}={value.replace(',', ',,')}" for key, value in disk.options.items())
    try:
        check("--disk", f"id={disk.name},path={SOMEWHERE}{options}")
        check("--export", f"type={BLK},socket={SOMEWHERE},disk={disk.name}{more}")
    except ValueError as error:
        raise LabOptionError(f"--disk {text}: {error}", "see qemu-odx serve --help for its keys") from error


def _require(text: str, fine: bool, cure: str) -> None:
    if not fine:
        raise LabOptionError(f"--disk {text}", cure)
