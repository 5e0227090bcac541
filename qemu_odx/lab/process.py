"""A program the lab starts: ended by its own id, and never left over, not even by a killed lab.

May import: errors, interrupts. Used by `backend.py` and `guest.py`.
"""

from __future__ import annotations

import os
import signal
import subprocess
import weakref
from typing import IO, TYPE_CHECKING

from qemu_odx.lab.errors import MissingError, tail
from qemu_odx.lab.interrupts import uninterrupted

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

TERMINATE_SECONDS = 30.0
KILL_SECONDS = 60.0
UNLESS_ORPHANED = 'test "$PPID" = "$1" || exit 1; shift; exec "$@"'
"""Shell words: the lab may have died before the parent-death signal was set, which then never comes."""


class ManagedProcess:
    """A running program whose standard error goes to a log file.

    It is started through setpriv(1) with a parent-death signal: the kernel ends it when the lab dies without
    a chance to clean up. That signal follows the thread that starts it, so start from a thread that lives as
    long as the process should (the main thread). Ctrl-C at the terminal does not reach it: it is in a process group
    of its own, and the lab ends it in its order. One that nobody stopped ends with this object or with the program.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        log: Path,
        *,
        orphan_signal: signal.Signals = signal.SIGKILL,
        stdout: int = subprocess.DEVNULL,
        pass_fds: Sequence[int] = (),
        patience: float | None = None,
    ) -> None:
        """Start `command`.

        Args:
            name: what to call it in messages.
            command: program and arguments.
            log: file that takes its standard error.
            orphan_signal: what the kernel sends it if this process dies first.
            stdout: as in `subprocess.Popen`.
            pass_fds: file descriptors it inherits under the same numbers.
            patience: how long, in seconds, SIGTERM may take to end it before SIGKILL does; None: as usual.

        Raises:
            MissingError: the program could not be started.
        """
        self.name = name
        self.log = log
        self._patience = TERMINATE_SECONDS if patience is None else patience
        launcher = ["setpriv", "--pdeathsig", orphan_signal.name.removeprefix("SIG"), "--"]
        wrapped = [*launcher, "sh", "-c", UNLESS_ORPHANED, "sh", str(os.getpid()), *command]
        with log.open("wb") as errors, uninterrupted():
            try:
                self._process = subprocess.Popen(
                    wrapped,
                    stdin=subprocess.DEVNULL,
                    stdout=stdout,
                    stderr=errors,
                    pass_fds=pass_fds,
                    process_group=0,
                )
            except OSError as error:
                raise MissingError(f"cannot start {name} ({error})", "run ./odx setup") from error
            self._finalizer = weakref.finalize(self, _end, self._process, self._patience)

    @property
    def pid(self) -> int:
        """Process id."""
        return self._process.pid

    @property
    def stdout(self) -> IO[bytes]:
        """The reading end of its standard output, if it was asked for with `subprocess.PIPE`."""
        if self._process.stdout is None:
            raise ValueError(f"the output of {self.name} is not piped")
        return self._process.stdout

    def exit_code(self) -> int | None:
        """Exit code, negative signal number, or None while it runs."""
        return self._process.poll()

    def last_words(self) -> str:
        """The last lines it wrote to standard error."""
        return tail(self.log)

    def wait(self, seconds: float) -> int | None:
        """Wait for its end at most so long; the exit code, or None if it still runs."""
        try:
            return self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return None

    def kill(self) -> None:
        """End it at once, by SIGKILL, for it has nothing to lose. Idempotent; `stop` takes the exit code."""
        self._process.kill()

    def stop(self) -> int:
        """End it if it runs, by SIGTERM, then by SIGKILL; the exit code. Idempotent."""
        code = _end(self._process, self._patience)
        self._finalizer.detach()
        return code


def _end(process: subprocess.Popen[bytes], patience: float) -> int:
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(patience)
        except subprocess.TimeoutExpired:
            process.kill()
    code = process.wait(KILL_SECONDS)
    if process.stdout is not None:
        process.stdout.close()
    return code
