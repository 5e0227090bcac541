"""`odx.toml` as a `Lab`. Every error names file, line and key.

May import: config/{model,positions,table}. `docs/cli.md` describes the file.
"""

from __future__ import annotations

import re
import tomllib
from dataclasses import replace
from typing import TYPE_CHECKING

from qemu_odx.lab.config.model import (
    ACCELERATORS,
    BLK,
    FIRMWARES,
    KINDS,
    MACHINES,
    SCSI,
    SYSTEMS,
    Disk,
    Export,
    Guest,
    Lab,
    disk_argument,
    export_argument,
)
from qemu_odx.lab.config.positions import positions
from qemu_odx.lab.config.table import LabFileError, Table

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    Check = Callable[[str, str], None]

SECTIONS = ("lab", "disk", "export", "guest", "fault")
IMAGE_KEYS = ("os", "firmware", "user", "port", "key")
GUEST_KEYS = ("image", "exports", "memory", "cpus", *IMAGE_KEYS)
LUN = re.compile(r"lun(\d+)")
_AT = re.compile(r"\(at line (\d+), column \d+\)")
SOMEWHERE = "somewhere"  # stands for paths not known yet when options are checked


def _accept(_option: str, _value: str) -> None:
    pass


def load_lab(file: Path, check: Check = _accept) -> Lab:
    """Read a lab.

    Args:
        file: the file.
        check: called with `--disk`, `--export` or `--fault` and its value; raises ValueError if the server would
            not take it. Called with `--guest` and the name of an image too.

    Raises:
        LabFileError: with file, line and key.
    """
    root = _parsed(file)
    root.known(SECTIONS)
    lab = root.below("lab", root._table_of("lab"))  # noqa: SLF001 - the same part
    lab.known(("machine", "accelerator", "uri"))
    disks = [_disk(name, table, check) for name, table in root.tables("disk")]
    if not disks:
        root.fail(None, "there is no disk", 'write [disk.d0] and size = "1G"')
    exports = _exports(root, [disk.name for disk in disks], check)
    guests = _guests(root, [export.name for export in exports], check)
    return Lab(
        disks=tuple(disks),
        exports=tuple(_of_its_guest(export, guests) for export in exports),
        guests=tuple(guests),
        machine=lab.choice("machine", MACHINES, "qemu"),
        accelerator=lab.choice("accelerator", ACCELERATORS, "auto"),
        uri=lab.text("uri", "qemu:///session"),
        faults=tuple(_fault(table, check) for table in root.array("fault")),
    )


def _parsed(file: Path) -> Table:
    try:
        text = file.read_text("utf-8")
        data = tomllib.loads(text)
    except OSError as error:
        raise LabFileError(
            file, 0, "", f"cannot be read ({error.strerror})", "give the path of a lab"
        ) from None
    except UnicodeDecodeError:
        raise LabFileError(file, 0, "", "is not in UTF-8", "write it in UTF-8") from None
    except tomllib.TOMLDecodeError as error:
        at = _AT.search(str(error))
        problem = _AT.sub("", str(error)).strip()
        raise LabFileError(file, int(at[1]) if at else 0, "", problem, "see https://toml.io") from None
    return Table(file, positions(text), (), data)


def _disk(name: str, table: Table, check: Check) -> Disk:
    path = table.file.parent / table.text("path", "") if "path" in table.data else None
    if "id" in table.data:
        table.fail("id", "is the table's name", f"write [disk.{table.data['id']}] above")
    options = {key: table.option(key) for key in table.data if key != "path"}
    disk = Disk(name, path, {"serial": f"odx-{name}"[:20], **options})
    _checked(table, check, "--disk", disk_argument(disk, path or table.file.parent / SOMEWHERE))
    if path is None and "size" not in table.data:
        table.fail(None, "has neither path nor size", 'write size = "1G" for a disk that goes with the run')
    if path is not None and "size" not in table.data and not path.exists():
        table.fail("path", f"there is no {path}", "correct it, or add size to have it made")
    return disk


def _exports(root: Table, disks: Sequence[str], check: Check) -> list[Export]:
    """Those in the file; without any, one SCSI device that has all disks."""
    exports = [_export(name, table, disks, check) for name, table in root.tables("export")]
    return exports or [Export("scsi", SCSI, dict(enumerate(disks)))]


def _export(name: str, table: Table, disks: Sequence[str], check: Check) -> Export:
    kind = table.choice("type", KINDS, SCSI)
    for key in ("socket", "id"):
        if key in table.data:
            table.fail(key, "is not chosen here", "leave it out: the lab makes the sockets")
    units = _blk_unit(table, disks) if kind == BLK else _scsi_units(table, disks)
    own = {"type", "disk", "disks", *(key for key in table.data if LUN.fullmatch(key))}
    options = {key: table.option(key) for key in table.data if key not in own}
    export = Export(name, kind, units, options)
    _checked(table, check, "--export", export_argument(export, table.file.parent / SOMEWHERE))
    return export


def _of_its_guest(export: Export, guests: Sequence[Guest]) -> Export:
    """Each of several guests is a group of its own, with tokens of its own, if the file does not say otherwise."""
    mine = [guest.name for guest in guests if export.name in guest.exports]
    if len(guests) < 2 or not mine or "group" in export.options:
        return export
    return replace(export, options={**export.options, "group": mine[0]})


def _blk_unit(table: Table, disks: Sequence[str]) -> dict[int, str]:
    if "disk" not in table.data:
        table.fail("disk", "is missing", f"name one of {', '.join(disks)}")
    return {0: _existing(table, "disk", table.text("disk", ""), disks)}


def _scsi_units(table: Table, disks: Sequence[str]) -> dict[int, str]:
    """`disks` from unit 0 on, or `lunN`; all disks if neither is there."""
    luns = {int(match[1]): key for key in table.data if (match := LUN.fullmatch(key))}
    if luns and "disks" in table.data:
        table.fail("disks", f"and {next(iter(luns.values()))} exclude each other", "take one of them out")
    if luns:
        return {
            number: _existing(table, key, table.text(key, ""), disks) for number, key in sorted(luns.items())
        }
    named = table.texts("disks", tuple(disks))
    if not named:
        table.fail("disks", "is empty", f"name some of {', '.join(disks)}")
    return {number: _existing(table, "disks", disk, disks) for number, disk in enumerate(named)}


def _existing(table: Table, key: str, name: str, among: Sequence[str]) -> str:
    if name not in among:
        table.fail(key, f"there is no '{name}'", f"take one of {', '.join(among) or '(none)'}")
    return name


def _guests(root: Table, exports: Sequence[str], check: Check) -> list[Guest]:
    """Those in the file; without any, one Linux guest that has all exports."""
    taken: dict[str, str] = {}
    guests = []
    for name, table in root.tables("guest"):
        guests.append(_guest(name, table, exports, check))
        for export in guests[-1].exports:
            if export in taken:
                table.fail(
                    "exports", f"'{export}' is guest {taken[export]}'s", "a socket serves one guest at a time"
                )
            taken[export] = name
    return guests or [Guest("guest", "linux", tuple(exports))]


def _guest(name: str, table: Table, exports: Sequence[str], check: Check) -> Guest:
    table.known(GUEST_KEYS)
    return Guest(
        name=name,
        image=_image(table, check),
        exports=tuple(_existing(table, "exports", export, exports) for export in table.texts("exports", ())),
        memory=table.size("memory") if "memory" in table.data else None,
        cpus=table.number("cpus", 2, 1, 255),
        system=table.choice("os", SYSTEMS, "linux"),
        firmware=table.choice("firmware", FIRMWARES, "bios"),
        user=table.text("user", "root"),
        port=table.number("port", 22, 1, 65535),
        private_key=_file(table, "key") if "key" in table.data else None,
    )


def _image(table: Table, check: Check) -> str:
    """The path of the user's, or a name of the lab's; only the former says who is in it."""
    image = table.text("image", "linux")
    if "/" in image or "." in image:
        return str(_file(table, "image"))
    _checked(table, check, "--guest", image)
    for key in IMAGE_KEYS:
        if key in table.data:
            table.fail(key, "is said of a disk image only", "name your file as image, or leave it out")
    return image


def _file(table: Table, key: str) -> Path:
    """A file that is there."""
    path = (table.file.parent / table.text(key, "")).absolute()
    if not path.is_file():
        table.fail(key, f"there is no file {path}", "correct the path; it is relative to this file")
    return path


def _fault(table: Table, check: Check) -> str:
    rule = ",".join(f"{key}={table.option(key).replace(',', ',,')}" for key in table.data)
    _checked(table, check, "--fault", rule)
    return rule


def _checked(table: Table, check: Check, option: str, value: str) -> None:
    """Let the server look; what it says of a key points to the line of that key."""
    try:
        check(option, value)
    except ValueError as error:
        said = str(error)
        key = next((key for key in table.data if re.search(rf"(^|'){re.escape(key)}(:|=?'|\b)", said)), None)
        problem, _, cure = said.removeprefix(f"{key}: ").partition("; ")
        table.fail(key, problem, cure or "see qemu-odx serve --help")
