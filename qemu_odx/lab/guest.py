"""A guest from power-on to power-off: QEMU, its monitor, its serial port, its ssh server.

May import: errors, process, qemu, qmp, ssh. Next: `demo.py` does something with it.
"""

from __future__ import annotations

import re
import shutil
import socket
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from qemu_odx.lab.errors import LabError, tail
from qemu_odx.lab.process import ManagedProcess
from qemu_odx.lab.qemu import PROGRAM, GuestSpec, qemu_command
from qemu_odx.lab.qmp import Monitor
from qemu_odx.lab.ssh import GuestShell

if TYPE_CHECKING:
    from pathlib import Path

MARKER = "LAB:ssh-ready"  # vm_images/linux/lab-init writes it once its ssh server listens
BOOT_SECONDS = 90.0  # thirty times what a quiet machine takes
POWEROFF_SECONDS = 30.0
POLL_SECONDS = 0.02
STATE_COMMANDS = ("info status", "info registers -a", "info virtio", "info usernet")
FORWARDED_PORT = re.compile(r"TCP\[HOST_FORWARD\]\s+\d+\s+127\.0\.0\.1\s+(\d+)\s+\S+\s+22\b")


class Guest:
    """A booted guest one can log in to.

    Attributes:
        shell: commands and file upload.
        monitor: QEMU's monitor.
    """

    def __init__(
        self, spec: GuestSpec, folder: Path, *, marker: str = MARKER, patience: float = BOOT_SECONDS
    ) -> None:
        """Start QEMU, wait for the guest's marker on the serial port, and log in.

        Args:
            spec: what to boot.
            folder: takes `qemu.log`, `serial.log` and, if the guest does not come up, `state.log`.
            marker: what the guest writes when its ssh server listens.
            patience: how long the marker may take, in seconds.

        Raises:
            LabError: QEMU is missing or refuses its devices, or the guest does not come up.
        """
        self._serial_log = folder / "serial.log"
        self._process, connection = _start_qemu(spec, folder / "qemu.log", self._serial_log)
        try:
            self.monitor = self._negotiate(connection)
            self._await_marker(marker, time.monotonic() + patience)
            self.shell = self._log_in(spec, patience)
        except BaseException:
            self.kill()
            raise

    def _negotiate(self, connection: socket.socket) -> Monitor:
        try:
            return Monitor(connection)
        except LabError:
            connection.close()
            self._check_running()
            raise

    def _check_running(self) -> None:
        """Raise LabError if QEMU ended, with what it said last."""
        code = self._process.wait(0.2)
        if code is None:
            return
        words = self._process.last_words() or tail(self._serial_log)
        reason = words.splitlines()[-1] if words else "it gave no reason"
        raise LabError(f"QEMU ended with exit code {code}: {reason}", "see qemu.log", details=words)

    def _await_marker(self, marker: str, deadline: float) -> None:
        """Wait for the marker instead of polling the port: see `lab-init`."""
        while marker not in _read(self._serial_log):
            if self._process.exit_code() is not None:
                self._check_running()
            if time.monotonic() > deadline:
                self._write_state()
                raise LabError(
                    f"ssh is not answering: the guest did not write {marker} on its serial port in time",
                    "see the last lines of its serial log",
                    details=tail(self._serial_log) or "(the guest wrote nothing)",
                )
            time.sleep(POLL_SECONDS)

    def _write_state(self) -> None:
        """Keep what tells a guest stuck in its firmware from one stuck in a driver, or in QEMU itself."""
        with suppress(LabError):
            lines = [
                str(self.monitor.execute("human-monitor-command", {"command-line": command}))
                for command in STATE_COMMANDS
            ]
            (self._serial_log.parent / "state.log").write_text("\n".join(lines))

    def _log_in(self, spec: GuestSpec, patience: float) -> GuestShell:
        networks = str(self.monitor.execute("human-monitor-command", {"command-line": "info usernet"}))
        port = FORWARDED_PORT.search(networks)
        if port is None:
            raise LabError(
                "QEMU forwards no port to the guest's ssh server", "see qemu.log", details=networks
            )
        try:
            return GuestShell(int(port[1]), spec.image.private_key, spec.image.host_key, patience=patience)
        except LabError as error:
            error.details = tail(self._serial_log)
            raise

    @property
    def pid(self) -> int:
        """QEMU's process id."""
        return self._process.pid

    def power_off(self) -> None:
        """Shut the guest down and wait for QEMU to end.

        Raises:
            LabError: it did not; QEMU has been killed.
        """
        self.shell.start("sync; poweroff -f")
        code = self._process.wait(POWEROFF_SECONDS)
        self.kill()
        if code is None:
            raise LabError(
                "the guest did not power off", "see the serial log", details=tail(self._serial_log)
            )
        if code != 0:
            raise LabError(
                f"QEMU ended with exit code {code}", "see qemu.log", details=self._process.last_words()
            )

    def kill(self) -> None:
        """End QEMU whatever the guest does. Idempotent."""
        for part in ("shell", "monitor"):
            if hasattr(self, part):
                with suppress(LabError):
                    getattr(self, part).close()
        self._process.stop()


def _start_qemu(spec: GuestSpec, log: Path, serial_log: Path) -> tuple[ManagedProcess, socket.socket]:
    """QEMU and our end of its monitor: a socket pair leaves no path behind and needs no waiting."""
    if shutil.which(PROGRAM) is None:
        raise LabError(f"QEMU is not installed ({PROGRAM} is not on PATH)", "run ./odx setup")
    ours, theirs = socket.socketpair()
    with theirs:
        try:
            command = qemu_command(spec, theirs.fileno(), serial_log)
            return ManagedProcess("QEMU", command, log, pass_fds=[theirs.fileno()]), ours
        except BaseException:
            ours.close()
            raise


def _read(log: Path) -> str:
    try:
        return log.read_text(errors="replace")
    except OSError:
        return ""
