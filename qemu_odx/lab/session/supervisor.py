"""The process that keeps a lab up: it starts everything, says when it is ready, and takes everything away.

May import: errors, interrupts, phases, run_folder, session/{record,running}. Forked by `up.py`. Everything it starts
dies with it, should it be killed.
"""

from __future__ import annotations

import atexit
import json
import os
import signal
import time
from contextlib import suppress
from datetime import datetime
from typing import TYPE_CHECKING, NoReturn

from qemu_odx.lab.errors import EndedError, LabError
from qemu_odx.lab.interrupts import SIGNALS, signals_end_the_run
from qemu_odx.lab.phases import Phases
from qemu_odx.lab.run_folder import RunFolder
from qemu_odx.lab.session.record import GuestRecord, LabRecord, Process, claimed, write_record
from qemu_odx.lab.session.running import MONITOR, guest_folder, running

if TYPE_CHECKING:
    from typing import TextIO

    from qemu_odx.lab.config.model import Lab
    from qemu_odx.lab.session.running import RunningLab

LOOK_SECONDS = 1.0
GENTLY = 128 + signal.SIGTERM
"""Taken down by SIGTERM the guests are shut down; by another signal the machines are ended at once."""


class Reporting:
    """An observer whose reports go through a pipe, a JSON object in each line."""

    def __init__(self, pipe: TextIO) -> None:
        self._pipe = pipe

    def send(self, **what: object) -> None:
        """Send one. Raises BrokenPipeError if nobody waits any more."""
        self._pipe.write(json.dumps(what) + "\n")
        self._pipe.flush()

    def phase_began(self, name: str) -> None:
        """See `Observer`."""
        self.send(began=name)

    def detail(self, text: str) -> None:
        """See `Observer`."""
        self.send(detail=text)

    def progress(self, done: int, total: int) -> None:
        """See `Observer`."""
        self.send(done=done, total=total)

    def phase_ended(self, name: str, seconds: float) -> None:
        """See `Observer`."""
        self.send(ended=name, seconds=seconds)


def keep_up(name: str, lab: Lab, reports: TextIO) -> NoReturn:
    """Bring a lab up and keep it so until a signal comes or its last guest is off. The body of the process."""
    code = 0
    try:
        with signals_end_the_run():
            signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)  # blocked since the fork
            _live(name, lab, Reporting(reports))
    except LabError as error:
        with suppress(OSError):
            Reporting(reports).send(**_as_report(error))
        code = 1
    except BrokenPipeError:
        code = 1  # whoever wanted the lab is gone, so it was taken down again
    except SystemExit as ending:
        code = ending.code if isinstance(ending.code, int) else 1
    finally:
        atexit._run_exitfuncs()  # noqa: SLF001 - what was lost in an exception is ended there
        os._exit(code)


def _as_report(error: LabError) -> dict[str, object]:
    return {
        "error": error.cause,
        "cure": error.cure,
        "details": error.details,
        "logs": None if error.logs is None else str(error.logs),
        "kind": type(error).__name__,
    }


def _live(name: str, lab: Lab, reporting: Reporting) -> None:
    with claimed(name) as folder, RunFolder() as run:
        try:
            with running(lab, run.path, Phases(reporting)) as session:
                write_record(folder, record_of(name, session))
                reporting.send(ready=True)
                _until_told(session)
        except LabError as error:
            error.logs = run.keep_logs()
            raise


def _until_told(session: RunningLab) -> None:
    """Look after the lab until a signal ends it."""
    try:
        while any(guest.machine.running for guest in session.guests.values()):
            session.backend.check()
            time.sleep(LOOK_SECONDS)
    except SystemExit as ending:
        if ending.code == GENTLY:
            session.power_off()
        raise
    for guest in session.guests.values():
        guest.machine.check()
    raise EndedError("the last guest is off", "bring the lab up again")


def record_of(name: str, session: RunningLab) -> LabRecord:
    """What others need to use the lab."""
    return LabRecord(
        name=name,
        supervisor=Process.of(os.getpid()),
        since=datetime.now().astimezone().isoformat(timespec="seconds"),
        folder=str(session.folder),
        guests=tuple(guest_record(session, guest) for guest in session.guests),
        disks={disk: str(path.absolute()) for disk, path in session.disks.items()},
        exports={export: str(path) for export, path in session.exports.items()},
        monitor=str(session.folder / MONITOR),
    )


def guest_record(session: RunningLab, name: str) -> GuestRecord:
    """What others need to use a guest."""
    live, prepared = session.guests[name], session.prepared[name]
    login = live.adapter.login
    pid = getattr(live.machine, "pid", None)
    return GuestRecord(
        name=name,
        system=live.adapter.name,
        description=prepared.image.description,
        user=login.user,
        port=live.machine.ssh_port,
        private_key=None if login.private_key is None else str(login.private_key),
        host_key=login.host_key,
        serial_log=str(guest_folder(session.lab, session.folder, name) / "serial.log"),
        process=None if pid is None else Process.of(pid),
    )
