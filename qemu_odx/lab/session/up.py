"""Labs that stay: bring one up in a process of its own, take it down again.

May import: errors, interrupts, phases, run_folder, session/{record,supervisor}. Next: `cli/up.py`.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qemu_odx.lab import errors
from qemu_odx.lab.errors import LabError, LateError
from qemu_odx.lab.interrupts import SIGNALS
from qemu_odx.lab.paths import labs_folder
from qemu_odx.lab.run_folder import remove_abandoned
from qemu_odx.lab.session.record import check_name, is_claimed, read_record
from qemu_odx.lab.session.supervisor import keep_up

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager
    from typing import TextIO

    from qemu_odx.lab.config.model import Lab
    from qemu_odx.lab.phases import Observer
    from qemu_odx.lab.session.record import LabRecord

DOWN_SECONDS = 300.0
POLL_SECONDS = 0.05
KINDS = (errors.UsageError, errors.MissingError, errors.EndedError, errors.LateError)


def bring_up(
    name: str,
    lab: Lab,
    shown: Callable[[], AbstractContextManager[Observer]],
    settled: Callable[[], None] = lambda: None,
) -> LabRecord:
    """Bring a lab up; it stays when this process ends.

    Args:
        name: what to call it.
        lab: what to start.
        shown: makes the observer, after the lab's process has been forked off this one, which has one thread then.
        settled: called when the lab is up; until it returns, an interruption takes the lab down again.

    Raises:
        LabError: a lab of that name is up, or this one did not come up; then nothing of it is left.
    """
    check_name(name)
    if is_claimed(name):
        raise LabError(f"a lab called {name} is up", f"choose another name, or: qemu-odx down {name}")
    ours, theirs = os.pipe()
    child = 0
    with os.fdopen(ours) as reports:
        try:
            child = _fork(name, lab, ours, theirs)
            with shown() as observer:
                _await_ready(reports, observer)
            settled()
        except BaseException:
            _end(child)
            raise
    return read_record(name)


def _fork(name: str, lab: Lab, ours: int, theirs: int) -> int:
    """Start the lab's process; signals wait until it, or this one, can take them."""
    sys.stdout.flush()
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    child = os.fork()
    if child == 0:
        try:
            _become_supervisor(name, lab, ours, theirs)
        finally:
            os._exit(1)  # it never returns into its parent's work
    os.close(theirs)
    return child


def _become_supervisor(name: str, lab: Lab, ours: int, theirs: int) -> None:
    """Leave the terminal, and keep the lab up. `nohup` and `&` must not make it deaf for `down`."""
    os.setsid()
    os.close(ours)
    null = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(null, stream)
    for number in SIGNALS:
        signal.signal(number, signal.SIG_DFL)
    keep_up(name, lab, os.fdopen(theirs, "w"))


def _await_ready(reports: TextIO, observer: Observer) -> None:
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
    for line in reports:
        report: dict[str, Any] = json.loads(line)
        if "ready" in report:
            return
        if "error" in report:
            raise _as_error(report)
        _pass_on(report, observer)
    raise LabError("the lab's own process ended without a word", "try again, and report it")


def _pass_on(report: dict[str, Any], observer: Observer) -> None:
    if "began" in report:
        observer.phase_began(report["began"])
    elif "ended" in report:
        observer.phase_ended(report["ended"], report["seconds"])
    elif "detail" in report:
        observer.detail(report["detail"])
    else:
        observer.progress(report["done"], report["total"])


def _as_error(report: dict[str, Any]) -> LabError:
    kind = next((kind for kind in KINDS if kind.__name__ == report["kind"]), LabError)
    error = kind(report["error"], report["cure"], details=report["details"])
    error.logs = Path(report["logs"]) if report["logs"] else None
    return error


def _end(child: int) -> None:
    """End our child and wait until it has taken everything away."""
    if not child:
        return
    with suppress(ProcessLookupError):
        os.kill(child, signal.SIGHUP)
    with suppress(ChildProcessError):
        os.waitpid(child, 0)


def take_down(record: LabRecord, *, now: bool = False, seconds: float = DOWN_SECONDS) -> None:
    """Shut a lab's guests down (or end them at once) and remove all that belongs to it.

    Raises:
        LateError: it did not end in time; its supervisor has been killed, and with it all that it started.
    """
    supervisor = record.supervisor
    supervisor.send(signal.SIGHUP if now else signal.SIGTERM)
    deadline = time.monotonic() + seconds
    while supervisor.alive and time.monotonic() < deadline:
        time.sleep(POLL_SECONDS)
    late = supervisor.alive
    if late:
        supervisor.send(signal.SIGKILL)
        while supervisor.alive:
            time.sleep(POLL_SECONDS)
    _await_children(record)
    _sweep(record)
    if late:
        raise LateError(f"lab {record.name} did not go down in {seconds:g} s", "it has been killed")


def _await_children(record: LabRecord) -> None:
    """The kernel ends what a killed supervisor started; that takes a moment."""
    deadline = time.monotonic() + DOWN_SECONDS
    processes = [guest.process for guest in record.guests if guest.process]
    while any(process.alive for process in processes) and time.monotonic() < deadline:
        time.sleep(POLL_SECONDS)


def _sweep(record: LabRecord) -> None:
    """Remove what a killed supervisor could not: its folder and its record, if nobody has the name by now."""
    remove_abandoned(Path(record.folder).parent)
    folder = labs_folder() / record.name
    with suppress(OSError), (folder / "lock").open("r+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(folder, ignore_errors=True)
