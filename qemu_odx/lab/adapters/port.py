"""The seam: what the lab must know of a guest to use it.

May import: ssh (its `Login`). Implemented by the files beside this one; used by `live.py`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from qemu_odx.lab.ssh import Login


class GuestAdapter(Protocol):
    """A kind of guest. All commands are for the guest's ssh server as it is."""

    @property
    def name(self) -> str:
        """One of linux, wine and windows."""

    @property
    def login(self) -> Login:
        """Who logs in."""

    @property
    def marker(self) -> str | None:
        """What the guest writes to its serial port once its ssh server listens; None if it writes nothing."""

    @property
    def boot_seconds(self) -> float:
        """How long a boot may take under TCG on a busy host."""

    def command(self, arguments: Sequence[str], folder: str | None = None) -> str:
        """A command line that runs a program with exactly these arguments, in `folder` if it is given."""

    def new_folder(self, name: str) -> str:
        """The path of a scratch folder called `name`, with slashes; `upload` makes it."""

    def boot_identity(self) -> str:
        """A command that prints a word which is another one after each boot."""

    def reboot(self) -> str:
        """A command that reboots; the connection may break before it answers."""

    def power_off(self) -> str:
        """A command that writes back what is in memory and switches off."""

    def disk_node(self, serial: str) -> str:
        """A command that prints the path of the disk with this serial number, nothing if there is none yet."""

    def collected_commands(self) -> Mapping[str, str]:
        """File name of an artefact -> the command whose output it is: logs, versions, disks."""

    def collected_files(self) -> Sequence[str]:
        """Paths in the guest of files worth keeping after a failure, where they exist: crash dumps."""
