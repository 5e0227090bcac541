"""Ways into the guest of a lab that is up: a shell connection, the user's own ssh, files.

May import: errors, ssh, session/record. Next: `cli/guests.py`.
"""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from qemu_odx.lab.adapters.linux import LinuxAdapter
from qemu_odx.lab.adapters.windows import WindowsAdapter
from qemu_odx.lab.adapters.wine import WineAdapter
from qemu_odx.lab.errors import LabError, UsageError
from qemu_odx.lab.session.record import the_record
from qemu_odx.lab.ssh import GuestShell, Login

if TYPE_CHECKING:
    from collections.abc import Sequence

    from qemu_odx.lab.adapters.port import GuestAdapter
    from qemu_odx.lab.session.record import GuestRecord, LabRecord

KNOWN_HOSTS = "known_hosts"
IN_GUEST = re.compile(r"(?P<address>([A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?)?):(?P<path>.+)")


def find_guest(address: str | None) -> tuple[LabRecord, GuestRecord]:
    """The guest at `LAB/GUEST`; the lab's first without `/GUEST`, the only lab's without anything.

    Raises:
        LabError: there is none.
    """
    lab, _, guest = (address or "").partition("/")
    record = the_record(lab or None)
    found = record.guest(guest)
    if found.process is not None and not found.process.alive:
        raise LabError(f"guest {found.name} of lab {record.name} is off", f"qemu-odx down {record.name}")
    return record, found


def log_in(guest: GuestRecord) -> GuestShell:
    """A connection to the guest. Raises LabError if it does not answer."""
    return GuestShell(guest.port, login_of(guest))


def login_of(guest: GuestRecord) -> Login:
    """Who logs in to a guest, and how."""
    key = None if guest.private_key is None else Path(guest.private_key)
    return Login(guest.user, key, guest.host_key)


def adapter_of(guest: GuestRecord) -> GuestAdapter:
    """How to use a guest."""
    kinds = {"windows": WindowsAdapter, "wine": WineAdapter}
    adapter: GuestAdapter = kinds.get(guest.system, LinuxAdapter)(login_of(guest))
    return adapter


def ssh_command(guest: GuestRecord, folder: Path, words: Sequence[str] = ()) -> list[str] | None:
    """The command line of the user's ssh client for this guest, None if there is no client.

    Args:
        guest: where to.
        folder: takes the file of known hosts.
        words: a command for the guest; without one it is a shell.
    """
    program = shutil.which("ssh")
    if program is None:
        return None
    command = [program, "-p", str(guest.port), "-o", "LogLevel=ERROR"]
    if guest.private_key is not None:
        command += ["-i", guest.private_key, "-o", "IdentitiesOnly=yes"]
    if guest.host_key is None:
        command += ["-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null"]
    else:
        known = folder / f"{KNOWN_HOSTS}-{guest.name}"
        known.write_text(f"[127.0.0.1]:{guest.port} {guest.host_key}\n")
        command += ["-o", "StrictHostKeyChecking=yes", "-o", f"UserKnownHostsFile={known}"]
    return [*command, f"{guest.user}@127.0.0.1", *words]


@dataclass(frozen=True, slots=True)
class Place:
    """One side of a copy: a path on the host, or in a guest."""

    address: str | None
    path: str

    @classmethod
    def parse(cls, text: str) -> Place:
        """`LAB:PATH` or `LAB/GUEST:PATH` is in a guest (`:PATH`: in the only lab's), anything else on the host."""
        match = IN_GUEST.fullmatch(text)
        return cls(match["address"], match["path"]) if match else cls(None, text)


def copy(source: Place, target: Place) -> int:
    """Copy one file between host and guest; its size in bytes.

    Raises:
        LabError: both or none of the sides is in a guest, or it cannot be copied.
    """
    if (source.address is None) == (target.address is None):
        raise UsageError(
            "one side must be in a guest, the other on the host", "write LAB:PATH for the guest's"
        )
    there = source if source.address is not None else target
    here = Path(target.path if there is source else source.path)
    shell = log_in(find_guest(there.address)[1])
    try:
        if there is source:
            file = here / Path(source.path).name if here.is_dir() else here
            shell.download(source.path, file)
            return file.stat().st_size
        if not here.is_file():
            raise UsageError(f"there is no file {here}", "name a file on the host")
        path = f"{target.path}{here.name}" if target.path.endswith("/") else target.path
        shell.put(here, path)
        return here.stat().st_size
    finally:
        shell.close()
