"""A lab that runs: disk server and guests, from nothing to logged in, and away again.

May import: errors, backend, demo (its end), live, phases, config/model, session/machines. Next: `run.py` and
`supervisor.py`.
"""

from __future__ import annotations

import logging
import shlex
import sys
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from qemu_odx.lab.backend import Backend
from qemu_odx.lab.config.model import disk_argument, export_argument
from qemu_odx.lab.demo import end_of, trace_arguments
from qemu_odx.lab.live import LiveGuest
from qemu_odx.lab.session.machines import make_machine, prepare

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from qemu_odx.lab.config.model import Lab
    from qemu_odx.lab.machine import Machine
    from qemu_odx.lab.phases import Phases
    from qemu_odx.lab.session.machines import Prepared

SERVE_LOG, QMP_LOG, COMMANDS, MONITOR = "serve.log", "qmp.log", "commands.txt", "monitor.sock"


@dataclass
class RunningLab:
    """A disk server and its guests.

    Attributes:
        lab: what was asked for.
        folder: sockets, thrown-away disks, logs.
        disks: image file by disk name.
        exports: socket by export name.
        backend: the disk server.
        prepared: the guests as they were prepared, by name.
        guests: the guests that are logged in to, by name.
    """

    lab: Lab
    folder: Path
    disks: Mapping[str, Path]
    exports: Mapping[str, Path]
    backend: Backend
    prepared: Mapping[str, Prepared]
    guests: dict[str, LiveGuest] = field(default_factory=dict)

    def power_off(self) -> None:
        """Shut every guest down, then the disk server. Raises LabError if one does not end well."""
        for guest in self.guests.values():
            if guest.machine.running:
                guest.power_off()
        end_of(self.backend)


def guest_folder(lab: Lab, folder: Path, name: str) -> Path:
    """The run's folder if the lab has one guest, else a folder for each guest in it."""
    return folder if len(lab.guests) == 1 else folder / name


@contextmanager
def running(
    lab: Lab, folder: Path, phases: Phases, *, patience: float | None = None, trace: bool = False
) -> Iterator[RunningLab]:
    """Start a lab; whatever happens inside, everything that was started is ended.

    Args:
        lab: what to start.
        folder: for sockets, disks and logs; empty.
        phases: is told of "image", "serve" and "boot".
        patience: how long a guest's boot may take, in seconds; None: what its kind says.
        trace: record every request in a file of `folder`.

    Raises:
        LabError: something is missing, or did not start.
    """
    with phases.phase("image"):
        prepared = {guest.name: prepare(guest, phases.observer.detail) for guest in lab.guests}
    with ExitStack() as stack, _qmp_logged(folder / QMP_LOG):
        with phases.phase("serve"):
            session = _served(lab, folder, prepared, trace=trace)
            stack.callback(session.backend.stop)
        with phases.phase("boot"):
            _boot(session, stack, patience)
        yield session


def _served(lab: Lab, folder: Path, prepared: Mapping[str, Prepared], *, trace: bool) -> RunningLab:
    disks = {disk.name: disk.path or folder / f"{disk.name}.img" for disk in lab.disks}
    exports = {export.name: folder / f"{export.name}.sock" for export in lab.exports}
    command = [*serve_command(lab, disks, exports), "--monitor", str(folder / MONITOR)]
    if trace:
        command += trace_arguments(folder)
    _note(folder, command)
    return RunningLab(lab, folder, disks, exports, Backend(command, folder / SERVE_LOG), prepared)


def serve_command(lab: Lab, disks: Mapping[str, Path], exports: Mapping[str, Path]) -> list[str]:
    """The command line of the lab's disk server."""
    command = [sys.executable, "-m", "qemu_odx", "serve", "--json"]
    for disk in lab.disks:
        command += ["--disk", disk_argument(disk, disks[disk.name])]
    for export in lab.exports:
        command += ["--export", export_argument(export, exports[export.name])]
    for fault in lab.faults:
        command += ["--fault", fault]
    return command


def _boot(session: RunningLab, stack: ExitStack, patience: float | None) -> None:
    """Switch all machines on, so that they boot side by side, then log in to one after the other."""
    machines: dict[str, Machine] = {}
    for name, prepared in session.prepared.items():
        own = guest_folder(session.lab, session.folder, name)
        own.mkdir(exist_ok=True)
        machines[name] = make_machine(session.lab, prepared, session.exports, own)
        stack.callback(machines[name].kill)
        machines[name].start()
        _note(session.folder, _command_of(machines[name]))
    for name, machine in machines.items():
        guest = LiveGuest(machine, session.prepared[name].adapter, patience=patience)
        stack.callback(guest.kill)
        session.guests[name] = guest
        session.backend.check()


def _command_of(machine: Machine) -> list[str]:
    """QEMU's command line, empty if somebody else runs it."""
    with suppress(AttributeError, OSError):
        words = Path(f"/proc/{machine.pid}/cmdline").read_bytes()  # type: ignore[attr-defined]
        return [word.decode(errors="replace") for word in words.split(b"\0")[:-1]]
    return []


def _note(folder: Path, command: list[str]) -> None:
    """Keep a command line, to be repeated by hand."""
    if command:
        with (folder / COMMANDS).open("a") as file:
            file.write(f"{shlex.join(command)}\n\n")


@contextmanager
def _qmp_logged(file: Path) -> Iterator[None]:
    """Write what goes over QEMU's monitors to a file."""
    logger = logging.getLogger("qemu.qmp")
    handler = logging.FileHandler(file)
    handler.setFormatter(logging.Formatter("%(asctime)s %(name)s %(message)s"))
    before = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    try:
        yield
    finally:
        logger.setLevel(before)
        logger.removeHandler(handler)
        handler.close()
