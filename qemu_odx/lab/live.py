"""A guest one can work with: a machine of either kind, and on it a system that an adapter describes.

May import: errors, machine, ssh, adapters/port. Next: whoever runs something in a guest.
"""

from __future__ import annotations

import time
from contextlib import suppress
from typing import TYPE_CHECKING

from qemu_odx.lab.errors import EndedError, LabError, LateError
from qemu_odx.lab.ssh import CONNECT_SECONDS, GuestShell

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from qemu_odx.lab.adapters.port import GuestAdapter
    from qemu_odx.lab.machine import Machine
    from qemu_odx.lab.ssh import Completed

POLL_SECONDS = 0.02
RETRY_SECONDS = 1.0
POWER_OFF_SECONDS = 120.0
COMMAND_SECONDS = 120.0
PROBE_SECONDS = 30.0
"""After so long without the marker ssh is tried all the same, if words may get lost on the way from the console."""


class LiveGuest:
    """A booted guest one can log in to.

    Attributes:
        machine: what it runs on.
        adapter: what kind of guest it is.
        shell: commands and files.
    """

    def __init__(
        self,
        machine: Machine,
        adapter: GuestAdapter,
        *,
        patience: float | None = None,
        booted: bool = False,
    ) -> None:
        """Start the machine if it is off, wait for the guest's marker, and log in.

        Args:
            machine: ended again if the guest does not come up.
            adapter: the guest.
            patience: how long the boot may take, in seconds; None: what the adapter says.
            booted: the machine runs a guest that is ready (a resumed one): it will write no marker.

        Raises:
            LabError: the machine does not start, or the guest does not come up.
        """
        self.machine = machine
        self.adapter = adapter
        self._patience = adapter.boot_seconds if patience is None else patience
        seen = 0 if machine.running else self._markers()
        try:
            if not machine.running:
                machine.start()
            if not booted:
                self._await_marker(seen)
            self.shell = self._log_in()
        except BaseException:
            self.kill()
            raise

    def _markers(self) -> int:
        """How many boots have been announced on the serial port."""
        return self.machine.console().count(self.adapter.marker) if self.adapter.marker else 0

    def _await_marker(self, seen: int, left: str = "") -> None:
        """Wait for one marker more instead of polling the port: see `lab-init`.

        Args:
            seen: how many there have been.
            left: identity of a boot whose end is waited for first: until then it may answer.
        """
        start = time.monotonic()
        while self.adapter.marker and self._markers() <= seen:
            if not self.machine.running and self._markers() <= seen:
                raise self._ended()
            waited = time.monotonic() - start
            if waited > self._patience:
                raise self._silent(self.adapter.marker)
            if waited > PROBE_SECONDS and not self.machine.console_is_whole and self._answers(left):
                return
            time.sleep(POLL_SECONDS)

    def _answers(self, left: str) -> bool:
        """Whether a guest answers by ssh that is not in the boot `left`."""
        try:
            shell = GuestShell(self.machine.ssh_port, self.adapter.login, patience=RETRY_SECONDS)
        except LabError:
            return False
        identity = self._boot_identity(shell)
        shell.close()
        return identity not in {"", left}

    def _ended(self) -> LabError:
        self.machine.check()
        words = self._last_words()
        reason = words.splitlines()[-1] if words else "it gave no reason"
        return EndedError(
            f"the machine ended before the guest was ready: {reason}", "see its logs", details=words
        )

    def _silent(self, marker: str) -> LabError:
        self.machine.write_state()
        return LateError(
            f"ssh is not answering: the guest did not write {marker} on its serial port in time",
            "see the last lines of its serial log",
            details=self._last_words() or "(the guest wrote nothing)",
        )

    def _last_words(self, lines: int = 12) -> str:
        return "\n".join(self.machine.console().splitlines()[-lines:])

    def _log_in(self) -> GuestShell:
        patience = CONNECT_SECONDS if self.adapter.marker else self._patience
        try:
            return GuestShell(self.machine.ssh_port, self.adapter.login, patience=patience)
        except LabError as error:
            error.details = error.details or self._last_words()
            raise

    def run(
        self,
        arguments: Sequence[str],
        *,
        folder: str | None = None,
        seconds: float = COMMAND_SECONDS,
        on_stderr: Callable[[str], None] = lambda _: None,
    ) -> Completed:
        """Run a program with exactly these arguments in the guest; see `GuestShell.run`."""
        return self.shell.run(self.adapter.command(arguments, folder), seconds=seconds, on_stderr=on_stderr)

    def upload(self, source: Path, name: str) -> str:
        """Copy the files of a folder into a new scratch folder `name` of the guest; returns its path there."""
        target = self.adapter.new_folder(name)
        self.shell.upload(source, target)
        return target

    def download(self, source: str, target: Path) -> None:
        """Copy the guest's file `source` to `target`. Raises LabError if there is none."""
        self.shell.download(source, target)

    def disk(self, serial: str, seconds: float = COMMAND_SECONDS) -> str:
        """The guest's path of the disk with this serial number, waited for.

        Raises:
            LabError: the guest did not find one in time.
        """
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            found = self.shell.run(self.adapter.disk_node(serial), seconds=seconds).stdout.strip()
            if found:
                return found
            time.sleep(RETRY_SECONDS / 10)
        raise LabError(f"the guest finds no disk with serial number {serial}", "see the guest's own log")

    def reboot(self) -> None:
        """Let the guest reboot, and log in again. Raises LabError if it does not come back in time."""
        self._come_back(lambda: self.shell.start(self.adapter.reboot()))

    def reset(self) -> None:
        """Press the reset button, and log in when the guest is up again."""
        self._come_back(self.machine.reset)

    def _come_back(self, leave: Callable[[], None]) -> None:
        seen, before = self._markers(), self._boot_identity(self.shell)
        self.machine.let_reboot(allowed=True)
        leave()
        self.shell.close()
        self._await_marker(seen, before)
        deadline = time.monotonic() + self._patience
        while True:  # without a marker the old system may answer once more
            self.shell = self._log_in()
            if self._boot_identity(self.shell) not in {"", before}:
                break
            self.shell.close()
            if time.monotonic() > deadline:
                raise LabError("the guest did not reboot", "see its serial log", details=self._last_words())
            time.sleep(RETRY_SECONDS)
        self.machine.let_reboot(allowed=False)

    def _boot_identity(self, shell: GuestShell) -> str:
        try:
            return shell.run(self.adapter.boot_identity(), seconds=COMMAND_SECONDS).stdout.strip()
        except LabError:
            return ""  # it is going down just now

    def collect(self, folder: Path) -> list[Path]:
        """Fetch what helps to understand a failure: logs, versions, crash dumps; the files that arrived."""
        folder.mkdir(parents=True, exist_ok=True)
        found = []
        for name, command in self.adapter.collected_commands().items():
            with suppress(LabError):
                done = self.shell.run(command, seconds=COMMAND_SECONDS)
                (folder / name).write_text(done.stdout + done.stderr)
                found.append(folder / name)
        for path in self.adapter.collected_files():
            target = folder / path.rsplit("/", 1)[-1]
            try:
                self.shell.download(path, target)
            except LabError:
                target.unlink(missing_ok=True)
            else:
                found.append(target)
        return found

    def power_off(self) -> None:
        """Shut the guest down and wait for the machine to end.

        Raises:
            LabError: it did not; the machine has been killed.
        """
        self.shell.start(self.adapter.power_off())
        ended = self.machine.await_end(POWER_OFF_SECONDS)
        words = self._last_words()
        try:
            self.machine.check()
        finally:
            self.kill()
        if not ended:
            raise LabError("the guest did not power off", "see the serial log", details=words)

    def kill(self) -> None:
        """End the machine whatever the guest does. Idempotent."""
        if hasattr(self, "shell"):
            with suppress(LabError):
                self.shell.close()
        self.machine.kill()
