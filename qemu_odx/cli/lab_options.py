"""The options that say which lab: shared by `run`, `shell` and `up`.

May import: the lab, and through `cli/config.py` the server's option parsers. Next: a `Lab`.
"""

from __future__ import annotations

import functools
import sys
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import rich_click as click

from qemu_odx.cli import failing
from qemu_odx.cli.config import check_option
from qemu_odx.lab.catalogue import check_name
from qemu_odx.lab.config.load import load_lab
from qemu_odx.lab.config.model import ACCELERATORS, FIRMWARES, MACHINES, MEBIBYTE, SYSTEMS, Guest, Lab
from qemu_odx.lab.config.options import DEFAULT_DISKS, WINE_DISKS, LabOptionError, disks_and_exports
from qemu_odx.lab.session.outcome import ExitCode, code_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from qemu_odx.lab.errors import LabError

_OPTIONS = (
    click.option(
        "--guest",
        metavar="NAME",
        help="The guest's image: linux (default), wine, windows, or another recipe (qemu-odx image list).",
    ),
    click.option(
        "--image", type=click.Path(exists=True, dir_okay=False), metavar="FILE", help="Your own disk image."
    ),
    click.option(
        "--ssh", metavar="USER@PORT", help="Who logs in to --image, and the port of its ssh server (root@22)."
    ),
    click.option(
        "--key",
        type=click.Path(exists=True, dir_okay=False, path_type=Path),
        metavar="FILE",
        help="The private key that --image accepts (default: your ssh agent and usual key files).",
    ),
    click.option("--os", "system", type=click.Choice(SYSTEMS), help="What is in --image."),
    click.option("--firmware", type=click.Choice(FIRMWARES), help="What starts --image (default: bios)."),
    click.option(
        "--disk",
        "disks",
        multiple=True,
        metavar="size=SIZE[,...]",
        help="A disk; may be repeated. size=1G for one that goes with the lab, or path=FILE; id=NAME; bus=scsi, blk "
        "or scsi+blk; mailbox=on; and what qemu-odx serve --disk knows. Default: two of 256M with the serial numbers "
        "odx-source and odx-destination, on both buses.",
    ),
    click.option(
        "--lab",
        "file",
        type=click.Path(path_type=Path),
        metavar="FILE",
        help="A lab's file (odx.toml): several disks, exports and guests.",
    ),
    click.option("--machine", type=click.Choice(MACHINES), help="Who runs QEMU (default: qemu, we do)."),
    click.option(
        "--connect", metavar="URI", help="libvirt's, with --machine libvirt (default: qemu:///session)."
    ),
    click.option("--accel", type=click.Choice(ACCELERATORS), help="kvm, tcg, or what works (auto)."),
    click.option(
        "--memory", type=click.IntRange(64), metavar="MIB", help="RAM of the guest (512; of Windows 4096)."
    ),
    click.option("--cpus", type=click.IntRange(1, 255), metavar="N", help="Processors of the guest (2)."),
)


def folder_option(*names: str, about: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """An option that takes a folder: that it cannot be made is said before the work, not behind it."""
    kind = click.Path(file_okay=False, writable=True, path_type=Path)
    return click.option(*names, type=kind, callback=_make_folder, metavar="DIR", help=about)


def _make_folder(_context: click.Context, _parameter: click.Parameter, folder: Path | None) -> Path | None:
    if folder is not None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise click.BadParameter(f"folder {folder} cannot be made ({error.strerror})") from error
    return folder


report_option = folder_option(
    "--report",
    "report_folder",
    about="Write index.html, junit.xml, report.json and the logs there (docs/report.md).",
)


@dataclass(frozen=True, slots=True)
class LabChoice:
    """What the options say, as given."""

    guest: str | None
    image: str | None
    ssh: str | None
    key: Path | None
    system: str | None
    firmware: str | None
    disks: tuple[str, ...]
    file: Path | None
    machine: str | None
    connect: str | None
    accel: str | None
    memory: int | None
    cpus: int | None

    @property
    def given(self) -> bool:
        """Something is said."""
        return any(asdict(self).values())

    def lab(self) -> Lab:
        """The lab that is meant.

        Raises:
            LabFileError: its file is not right.
            LabOptionError: the options are not.
            UsageError: they name an image that there is not.
        """
        lab = self._from_options() if self.file is None else self._from_file(self.file)
        machine, accelerator = self.machine or lab.machine, self.accel or lab.accelerator
        if self.connect and machine != "libvirt":
            raise LabOptionError("--connect belongs to libvirt", "add --machine libvirt, or leave it out")
        return replace(lab, machine=machine, accelerator=accelerator, uri=self.connect or lab.uri)

    def _from_options(self) -> Lab:
        wanted = self.disks or (WINE_DISKS if self.guest == "wine" else DEFAULT_DISKS)
        disks, exports = disks_and_exports(wanted, Path.cwd(), check_option)
        guest = replace(self._guest(), exports=tuple(export.name for export in exports))
        return Lab(disks=disks, exports=exports, guests=(guest,))

    def _from_file(self, file: Path) -> Lab:
        self._refuse_beside_a_file()
        return load_lab(file, check_option)

    def _refuse_beside_a_file(self) -> None:
        others = {
            "--guest": self.guest,
            "--disk": self.disks,
            "--image": self.image,
            "--memory": self.memory,
            "--cpus": self.cpus,
            "--ssh": self.ssh,
            "--key": self.key,
            "--os": self.system,
            "--firmware": self.firmware,
        }
        for option, value in others.items():
            if value:
                raise LabOptionError(f"{option} does not go with --lab", f"write it into {self.file}")

    def _guest(self) -> Guest:
        if self.image is None and (self.ssh or self.key or self.system or self.firmware):
            raise LabOptionError(
                "--ssh, --key, --os and --firmware belong to --image", "name your image, or leave them out"
            )
        if self.image and self.guest:
            raise LabOptionError("--guest and --image exclude each other", "take one of them out")
        name = self.guest or "linux"
        check_name(name)
        user, port = parse_login(self.ssh or "root@22")
        default = Guest("guest", name, ())
        return Guest(
            "guest",
            str(Path(self.image).absolute()) if self.image else name,
            (),
            memory=self.memory * MEBIBYTE if self.memory else None,
            cpus=self.cpus or default.cpus,
            system=self.system or "linux",
            firmware=self.firmware or "bios",
            user=user,
            port=port,
            private_key=self.key,
        )


def parse_login(text: str) -> tuple[str, int]:
    """`USER@PORT` in its two parts. Raises LabOptionError if it is not that."""
    user, at, port = text.rpartition("@")
    if not (user and at and port.isdigit() and 0 < int(port) < 1 << 16):
        raise LabOptionError(f"--ssh {text}", "write USER@PORT, such as Administrator@22")
    return user, int(port)


def lab_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options; it gets them as one argument `choice`."""

    @functools.wraps(function)
    def wrapped(**arguments: Any) -> Any:
        mine = {name: arguments.pop(name) for name in LabChoice.__dataclass_fields__}
        return function(choice=LabChoice(**mine), **arguments)

    for option in reversed(_OPTIONS):
        wrapped = option(wrapped)
    return wrapped


def complain(error: LabError) -> None:
    """Cause and cure on stderr, what the logs say above them, where they are below."""
    if error.details:
        click.echo(error.details, err=True)
    failing.complain(error)
    if error.logs is not None:
        click.echo(f"The logs are in {error.logs}", err=True)


def fail(error: LabError, code: int = ExitCode.FAILED) -> NoReturn:
    """Complain and end, with --json by an object too; the kind of the error may know a better code."""
    if failing.json_is_wanted():
        failing.print_failure(error, logs=str(error.logs) if error.logs else None)
    complain(error)
    sys.exit(code_of(error, code))
