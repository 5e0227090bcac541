"""The options that say which guest `qemu-odx doctor` is to examine, and what to look at there.

May import: the lab.
"""

from __future__ import annotations

import functools
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import rich_click as click

from qemu_odx.cli.lab_options import parse_login
from qemu_odx.lab.config.model import SYSTEMS
from qemu_odx.lab.config.options import LabOptionError
from qemu_odx.lab.doctor.guest.ask import Question
from qemu_odx.lab.session.access import find_guest
from qemu_odx.lab.session.record import GuestRecord

if TYPE_CHECKING:
    from collections.abc import Callable

_OPTIONS = (
    click.option("--guest", "address", metavar="LAB[/GUEST]", help="A guest of a lab that is up."),
    click.option(
        "--ssh", metavar="USER@PORT", help="Any guest with an ssh server at this port of 127.0.0.1."
    ),
    click.option(
        "--key", type=click.Path(exists=True, dir_okay=False), metavar="FILE", help="Private key for --ssh."
    ),
    click.option("--os", "system", type=click.Choice(SYSTEMS), default="linux", help="What is behind --ssh."),
    click.option(
        "--monitor", metavar="PATH", help="The disk server's monitor, to hear its side too (with --ssh)."
    ),
    click.option("--serial", help="Linux: only the disk with this serial number."),
    click.option("--volume", metavar="D:", help="Windows: the volume to look at."),
    click.option("--source", metavar="FILE", help="Windows: a file to copy by token, as the proof."),
    click.option("--destination", metavar="FILE", help="Windows: where to; it is overwritten."),
)


@dataclass(frozen=True, slots=True)
class Target:
    """What the options say, as given."""

    address: str | None
    ssh: str | None
    key: str | None
    system: str
    monitor: str | None
    serial: str | None
    volume: str | None
    source: str | None
    destination: str | None

    @property
    def wanted(self) -> bool:
        """A guest is to be examined, not this machine: something is said of one."""
        return any(value is not None for name, value in asdict(self).items() if name != "system")

    def find(self) -> tuple[GuestRecord, str | None]:
        """The guest, and the monitor of its disk server if that is known.

        Raises:
            LabError: there is no such guest.
        """
        if self.ssh is None and self.address is None:
            raise LabOptionError("it is not said which guest", "name one: --guest LAB, or --ssh USER@PORT")
        if self.ssh is None:
            record, guest = find_guest(self.address)
            return guest, record.monitor
        if self.address is not None:
            raise LabOptionError("--guest and --ssh exclude each other", "take one of them out")
        user, port = parse_login(self.ssh)
        key = None if self.key is None else str(Path(self.key).absolute())
        return GuestRecord("guest", self.system, "by ssh", user, port, key, None, ""), self.monitor

    def question(self) -> Question:
        """What to ask it. Raises LabOptionError if one of two files is missing."""
        if (self.source is None) != (self.destination is None):
            raise LabOptionError("--source and --destination belong together", "name both files, or none")
        files = None if self.source is None or self.destination is None else (self.source, self.destination)
        return Question(self.serial, self.volume, files)


def guest_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options; it gets them as one argument `target`."""

    @functools.wraps(function)
    def wrapped(**arguments: Any) -> Any:
        mine = {name: arguments.pop(name) for name in Target.__dataclass_fields__}
        return function(target=Target(**mine), **arguments)

    for option in reversed(_OPTIONS):
        wrapped = option(wrapped)
    return wrapped
