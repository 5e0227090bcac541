"""What is known of a lab that stays up: a file for each, in the user's state folder, and a lock while it lives.

May import: errors, paths. Written by `supervisor.py`, read by `down`, `ps`, `exec` and the like.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import signal
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from qemu_odx.lab.errors import LabError, UsageError
from qemu_odx.lab.paths import labs_folder

if TYPE_CHECKING:
    from collections.abc import Iterator

FILE, LOCK, LOG = "lab.json", "lock", "supervisor.log"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,31}")
STARTED = 19  # field 22 of /proc/PID/stat (proc(5)), counted behind the program's name


@dataclass(frozen=True, slots=True)
class Process:
    """A process that is not taken for another one with the same number: number and start, in ticks after boot."""

    pid: int
    started: int

    @classmethod
    def of(cls, pid: int) -> Process:
        """The process that has this number now; `started` is 0 if there is none."""
        return cls(pid, _started(pid))

    @property
    def alive(self) -> bool:
        """Whether it still runs."""
        return self.started != 0 and _started(self.pid) == self.started

    def send(self, number: int) -> bool:
        """Send it a signal; False if it is gone. Whoever has its number by then gets none."""
        with suppress(ProcessLookupError):
            handle = os.pidfd_open(self.pid)
            try:
                if self.alive:
                    signal.pidfd_send_signal(handle, number)
                    return True
            finally:
                os.close(handle)
        return False


def _started(pid: int) -> int:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return 0
    fields = stat.rpartition(")")[2].split()
    return 0 if fields[0] == "Z" else int(fields[STARTED])


@dataclass(frozen=True, slots=True)
class GuestRecord:
    """How to reach a guest of a lab.

    Attributes:
        name: unique in the lab.
        system: "linux", "wine" or "windows".
        description: what it is, for people.
        user: who logs in.
        port: on 127.0.0.1, leads to its ssh server.
        private_key: file; None: the user's own.
        host_key: its public key line; None: any.
        serial_log: what it writes to its serial port.
        process: the QEMU that runs it; None for a libvirt domain.
    """

    name: str
    system: str
    description: str
    user: str
    port: int
    private_key: str | None
    host_key: str | None
    serial_log: str
    process: Process | None = None


@dataclass(frozen=True, slots=True)
class LabRecord:
    """A lab.

    Attributes:
        name: its own.
        supervisor: the process that keeps it up and takes it down.
        since: when it was ready, ISO 8601.
        folder: sockets, disks, logs; gone with the lab.
        guests: in the order of the lab's file.
        disks: image file by disk name.
        exports: socket by export name.
        monitor: the disk server's monitor socket, None if it has none.
    """

    name: str
    supervisor: Process
    since: str
    folder: str
    guests: tuple[GuestRecord, ...]
    disks: dict[str, str]
    exports: dict[str, str]
    monitor: str | None = None

    def as_json(self) -> dict[str, Any]:
        """One object of `qemu-odx ps --json`."""
        return asdict(self)

    def guest(self, name: str = "") -> GuestRecord:
        """A guest by name, the first one if none is given. Raises LabError if there is none."""
        for guest in self.guests:
            if name in {"", guest.name}:
                return guest
        there = ", ".join(guest.name for guest in self.guests)
        raise LabError(f"lab {self.name} has no guest {name}", f"take one of {there}")


def check_name(name: str) -> None:
    """Raise UsageError if a lab cannot be called so."""
    if not NAME.fullmatch(name):
        raise UsageError(f"'{name}' is no name for a lab", "take up to 32 letters, digits, '.', '_' and '-'")


@contextmanager
def claimed(name: str) -> Iterator[Path]:
    """The folder of a lab's record, its name taken while inside, and gone afterwards.

    Raises:
        LabError: a lab of that name is up.
    """
    check_name(name)
    folder = labs_folder() / name
    with _locked(folder, name):
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def _locked(folder: Path, name: str) -> IO[str]:
    """The lock of a lab's folder, once more if it went with the folder of a lab that went down just then."""
    while True:
        folder.mkdir(parents=True, exist_ok=True)
        with suppress(FileNotFoundError):
            lock = (folder / LOCK).open("w")
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                lock.close()
                cure = f"choose another name, or: qemu-odx down {name}"
                raise LabError(f"a lab called {name} is up", cure) from None
            if os.path.samestat(os.fstat(lock.fileno()), (folder / LOCK).stat()):
                return lock
            lock.close()


def is_claimed(name: str) -> bool:
    """Whether somebody keeps a lab of that name up, or brings it up just now."""
    with suppress(FileNotFoundError), (labs_folder() / name / LOCK).open("r+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def write_record(folder: Path, record: LabRecord) -> None:
    """Write it at one stroke: a reader sees all of it or nothing."""
    fresh = folder / f".{FILE}"
    fresh.write_text(json.dumps(record.as_json()))
    fresh.replace(folder / FILE)


def read_record(name: str) -> LabRecord:
    """The record of a lab that is up. Raises LabError if none is."""
    check_name(name)
    try:
        text = (labs_folder() / name / FILE).read_text()
    except OSError:
        there = ", ".join(record.name for record in records())
        cure = f"up are: {there}" if there else "bring one up: qemu-odx up"
        raise LabError(f"no lab called {name} is up", cure) from None
    return _parsed(json.loads(text))


def records() -> list[LabRecord]:
    """Every lab there is a record of, those of killed supervisors too."""
    found = []
    for file in sorted(labs_folder().glob(f"*/{FILE}")):
        with suppress(OSError, ValueError, KeyError, TypeError):  # it goes just now
            found.append(_parsed(json.loads(file.read_text())))
    return found


def the_record(name: str | None) -> LabRecord:
    """The lab of that name, or the only one. Raises LabError if that is unclear."""
    if name:
        return read_record(name)
    there = records()
    if len(there) == 1:
        return there[0]
    cure = f"name one of {', '.join(record.name for record in there)}" if there else "qemu-odx up"
    raise LabError("several labs are up" if there else "no lab is up", cure)


def _parsed(data: dict[str, Any]) -> LabRecord:
    def process(value: dict[str, int] | None) -> Process | None:
        return Process(**value) if value else None

    guests = tuple(GuestRecord(**{**guest, "process": process(guest["process"])}) for guest in data["guests"])
    return LabRecord(**{**data, "guests": guests, "supervisor": Process(**data["supervisor"])})
