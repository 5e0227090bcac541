"""One script in one guest: boot, upload, run, power off, and what came of it.

May import: errors, interrupts, live, phases, run_folder, windows_programs, session/*. Next: `cli/run.py` shows it.
"""

from __future__ import annotations

import json
import re
import shutil
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from qemu_odx.lab.errors import EndedError, LabError, LateError
from qemu_odx.lab.phases import Phases, Silent
from qemu_odx.lab.run_folder import RunFolder
from qemu_odx.lab.session.outcome import ExitCode, code_of
from qemu_odx.lab.session.running import guest_folder, running
from qemu_odx.lab.session.script import OWN, USERS, script_folder
from qemu_odx.lab.windows_programs import ensure_programs

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from qemu_odx.lab.config.model import Lab
    from qemu_odx.lab.live import LiveGuest
    from qemu_odx.lab.phases import Observer
    from qemu_odx.lab.session.running import RunningLab
    from qemu_odx.lab.session.script import Script

DEFAULT_SECONDS = 600.0
CRASH_SECONDS = 20.0  # a machine that panics is gone that soon behind its ssh connection, on a slow host too
SUMMARY, STDOUT, STDERR = "summary.json", "stdout.txt", "stderr.txt"
CRASH = re.compile("Kernel panic|BUG:|Oops")
QUOTED = 12


@dataclass(frozen=True, slots=True)
class Orders:
    """What to run, and how.

    Attributes:
        lab: what to boot.
        script: what to run.
        guest: the guest of the lab that runs it.
        seconds: how long the script may take.
        keep: "all" keeps logs and results always, "failed" only of runs that failed, "none" never.
        copy_to: a folder that takes them in any case.
        relay: called with each line the script writes to standard error.
        trace: record every request in `trace.jsonl`, one of the results.
    """

    lab: Lab
    script: Script
    guest: str
    seconds: float = DEFAULT_SECONDS
    keep: str = "failed"
    copy_to: Path | None = None
    relay: Callable[[str], None] = lambda _: None
    trace: bool = False


@dataclass(slots=True)
class RunResult:
    """How a run ended. `as_json` is the public form.

    Attributes:
        code: the script's exit code, or one of `ExitCode`.
        finished: the script ran to its end, so that `code` is its own.
        stdout: what the script printed.
        stderr: what it printed there.
        error: why it did not end, empty if it did.
        cure: what helps.
        phases: seconds by name.
        artefacts: the folder where logs and results were kept, None if they were not.
        guest: what ran it.
    """

    code: int = ExitCode.LAB_FAILED
    finished: bool = False
    stdout: str = ""
    stderr: str = ""
    error: str = ""
    cure: str = ""
    details: str = ""
    phases: Mapping[str, float] = field(default_factory=dict)
    artefacts: Path | None = None
    guest: str = ""

    @property
    def ok(self) -> bool:
        """The script ended with 0."""
        return self.finished and self.code == 0

    @property
    def printed(self) -> Any:
        """The JSON value that the script printed: all of its output or its last line; None if there is none."""
        for text in (self.stdout, self.stdout.strip().rpartition("\n")[2]):
            with suppress(ValueError):
                return json.loads(text)
        return None

    def as_json(self) -> dict[str, Any]:
        """The object that `qemu-odx run --json` prints."""
        return {
            "ok": self.ok,
            "exit": int(self.code),
            "finished": self.finished,
            "result": self.printed,
            "stdout": self.stdout,
            "stderr": self.stderr,
            "error": self.error,
            "cure": self.cure,
            "guest": self.guest,
            "phases": {name: round(seconds, 3) for name, seconds in self.phases.items()},
            "artefacts": None if self.artefacts is None else str(self.artefacts),
        }


def run_script(orders: Orders, observer: Observer | None = None) -> RunResult:
    """Boot the lab, run the script, power off. Never raises LabError: the result says what went wrong.

    A run that is interrupted keeps nothing and leaves nothing.
    """
    phases = Phases(observer or Silent())
    result = RunResult(phases=phases.seconds)
    with RunFolder() as run:
        try:
            _run(orders, run.path, phases, result)
        except LabError as error:
            _blame(error, result)
        (run.path / SUMMARY).write_text(json.dumps(result.as_json(), indent=1))
        if orders.keep == "all" or (orders.keep == "failed" and not result.ok):
            result.artefacts = run.keep_logs()
        if orders.copy_to is not None:
            run.copy_logs(orders.copy_to)
    return result


def _blame(error: LabError, result: RunResult) -> None:
    """Put an error into the result, unless the script had already ended: then its own code counts if it failed."""
    result.error, result.cure, result.details = error.cause, error.cure, error.details
    if not result.finished or result.code == 0:
        result.finished = False
        result.code = code_of(error, ExitCode.LAB_FAILED)


def _run(orders: Orders, folder: Path, phases: Phases, result: RunResult) -> None:
    with running(orders.lab, folder, phases, trace=orders.trace) as session:
        guest = session.guests[orders.guest]
        result.guest = session.prepared[orders.guest].image.description
        with phases.phase("script"):
            _run_in(guest, orders, session, result)
        if result.code != 0:
            guest.collect(guest_folder(orders.lab, folder, orders.guest))
        with phases.phase("power_off"):
            session.power_off()


def _run_in(guest: LiveGuest, orders: Orders, session: RunningLab, result: RunResult) -> None:
    """Upload and run; if the connection breaks, find out whose end that was."""
    deadline = Deadline(guest, orders.seconds)
    try:
        words = upload_script(guest, orders.script, session.folder)
        done = guest.run(
            words, folder=guest.adapter.new_folder(OWN), seconds=orders.seconds, on_stderr=orders.relay
        )
    except LabError as error:
        session.backend.check()
        raise _whose_end(guest, deadline, error) from error
    finally:
        deadline.cancel()
    session.backend.check()
    result.stdout, result.stderr = done.stdout, done.stderr
    (session.folder / STDOUT).write_text(done.stdout)
    (session.folder / STDERR).write_text(done.stderr)
    if done.status < 0:
        raise _whose_end(guest, deadline, LabError("the script's exit code was lost", "see the guest's logs"))
    result.code, result.finished = done.status, True


class Deadline:
    """Hangs up when a script has had its time: a script that keeps talking is late all the same.

    Attributes:
        seconds: how long it has.
        over: it was late.
    """

    def __init__(self, guest: LiveGuest, seconds: float) -> None:
        self.seconds, self.over = seconds, False
        self._guest = guest
        self._end = time.monotonic() + seconds
        self._timer = threading.Timer(seconds, self._hang_up)
        self._timer.daemon = True
        self._timer.start()

    def _hang_up(self) -> None:
        self.over = True
        self._guest.shell.close()

    def cancel(self) -> None:
        """It was in time."""
        self._timer.cancel()


def _whose_end(guest: LiveGuest, deadline: Deadline, error: LabError) -> LabError:
    """What a broken connection means: the machine is gone, the time is over, or the connection alone broke."""
    if deadline.over:
        late = LateError(
            f"the script was not done within {deadline.seconds:g} s", "give it longer: --time-out"
        )
        late.details = error.details
        return late
    if guest.machine.await_end(CRASH_SECONDS):
        words = crash_words(guest.machine.console())
        return EndedError("the guest ended while the script ran", "see its serial log", details=words)
    return error


def crash_words(console: str) -> str:
    """What a serial log says of a crash: from the kernel's verdict on, else its end."""
    lines = console.splitlines()
    verdict = next((number for number, line in enumerate(lines) if CRASH.search(line)), len(lines) - QUOTED)
    return "\n".join(lines[max(verdict, 0) :][:QUOTED])


def upload_script(guest: LiveGuest, script: Script, scratch: Path) -> list[str]:
    """Put our scripts and the user's file into the guest; the words that run it there."""
    system = guest.adapter.name
    own = guest.upload(_ours(system, scratch / "ours"), OWN)
    if script.ours:
        return script.words(system, own)
    with_it = scratch / "script"
    with_it.mkdir()
    shutil.copy(script.file, with_it)
    return script.words(system, guest.upload(with_it, USERS))


def _ours(system: str, target: Path) -> Path:
    """Our scripts for such a guest; the Windows programs beside them where they can run."""
    if system == "linux":
        return script_folder(system)
    target.mkdir()
    for path in (*script_folder(system).iterdir(), *ensure_programs().iterdir()):
        if path.is_file():
            shutil.copy(path, target)
    return target
