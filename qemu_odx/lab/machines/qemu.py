"""A machine that is a QEMU process of the lab: ended with it, controlled by QMP over a socket pair.

May import: errors, machine, process, qemu, qmp, tpm, machines/*. Next: `live.py`.
"""

from __future__ import annotations

import shutil
import socket
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from qemu_odx.lab.abilities import abilities
from qemu_odx.lab.errors import EndedError, LabError, MissingError, tail
from qemu_odx.lab.machine import SHUT_DOWN_SECONDS, UNPLUG_SECONDS
from qemu_odx.lab.machines.hosted import HostedMachine
from qemu_odx.lab.machines.plugging import Ports, plug_commands, unplugged
from qemu_odx.lab.machines.power import press_until_off
from qemu_odx.lab.machines.usernet import forwarded_port
from qemu_odx.lab.process import ManagedProcess
from qemu_odx.lab.qemu import PROGRAM, GuestSpec, qemu_command
from qemu_odx.lab.qmp import CONNECT_SECONDS, Monitor, hung_up
from qemu_odx.lab.sockets import require_served
from qemu_odx.lab.tpm import Tpm

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from qemu_odx.lab.machine import Plug

RESET_SECONDS = 60.0
ENDING_SECONDS = 60.0  # QEMU closes its monitor a moment before it is gone
STATE_COMMANDS = ("info status", "info registers -a", "info virtio", "info usernet")


class QemuMachine(HostedMachine):
    """See `Machine`.

    Attributes:
        folder: takes `qemu.log`, `serial.log`, `state.log` and the machine's own system disk.
    """

    def __init__(self, spec: GuestSpec, folder: Path, *, start_seconds: float = CONNECT_SECONDS) -> None:
        """Prepare it; nothing runs yet. Raises LabError if the image is not there."""
        super().__init__(spec, folder)
        self._start_seconds = start_seconds
        self._ports = Ports(spec.hotplug_ports)
        self._process: ManagedProcess | None = None
        self._monitor: Monitor | None = None
        self._tpm: Tpm | None = None

    @property
    def monitor(self) -> Monitor:
        """QEMU's monitor. Raises LabError if the machine was never started."""
        if self._monitor is None:
            raise LabError("the machine is off", "start it first")
        return self._monitor

    @property
    def pid(self) -> int:
        """QEMU's process id. Raises LabError if the machine was never started."""
        if self._process is None:
            raise LabError("the machine is off", "start it first")
        return self._process.pid

    @property
    def running(self) -> bool:
        """See `Machine`."""
        return self._process is not None and self._process.exit_code() is None

    @property
    def ssh_port(self) -> int:
        """See `Machine`."""
        return forwarded_port(self)

    def start(self) -> None:
        """See `Machine`."""
        if self.running:
            raise LabError("the machine is on already", "shut it down first")
        require_served(self._sockets)
        self._leave()
        self._ports.free_all()
        try:
            if self._system and self._system.tpm_state:
                self._tpm = Tpm(self._system.tpm_state, self.folder)
            self._process, connection = self._start_qemu()
            self._monitor = self._negotiate(connection)
        except BaseException:
            if self._process is not None:
                self._process.kill()  # no guest has run, and a QEMU that waits for a socket hears no SIGTERM
            self.kill()
            raise

    def _start_qemu(self) -> tuple[ManagedProcess, socket.socket]:
        """QEMU and our end of its monitor: a socket pair leaves no path behind and needs no waiting."""
        if shutil.which(PROGRAM) is None:
            raise MissingError(f"QEMU is not installed ({PROGRAM} is not on PATH)", "run ./odx setup")
        files = self._system.files if self._system else None
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                command = qemu_command(self._spec, theirs.fileno(), self.folder / "serial.log", files)
                log = self.folder / "qemu.log"
                return ManagedProcess("QEMU", command, log, pass_fds=[theirs.fileno()]), ours
            except BaseException:
                ours.close()
                raise

    def _negotiate(self, connection: socket.socket) -> Monitor:
        try:
            return Monitor(connection, self._start_seconds)
        except LabError as error:
            connection.close()
            if self.await_end(ENDING_SECONDS if hung_up(error) else 0):
                self.check()
            elif self._sockets:
                raise LabError(
                    f"QEMU did not start in {self._start_seconds:.0f} s: a disk server listens and does not answer",
                    "see the log of the disk server",
                ) from error
            raise

    def check(self) -> None:
        """See `Machine`."""
        code = self._process.exit_code() if self._process else None
        if self._process is None or not code:
            return
        words = self._process.last_words() or tail(self.folder / "serial.log")
        reason = words.splitlines()[-1] if words else "it gave no reason"
        raise EndedError(f"QEMU ended with exit code {code}: {reason}", "see qemu.log", details=words)

    def shut_down(self, seconds: float = SHUT_DOWN_SECONDS) -> None:
        """See `Machine`."""
        if not press_until_off(self, lambda: self.execute("system_powerdown"), seconds):
            raise LabError(
                "the guest did not shut down when the power button was pressed",
                "give it longer, or end it with kill",
                details=tail(self.folder / "serial.log"),
            )
        self.check()

    def await_end(self, seconds: float) -> bool:
        """See `Machine`."""
        return self._process is None or self._process.wait(seconds) is not None

    def let_reboot(self, *, allowed: bool) -> None:
        """See `Machine`."""
        self.execute("set-action", {"reboot": "reset" if allowed else "shutdown"})

    def reset(self) -> None:
        """See `Machine`. SeaBIOS follows with a second reset of its own, so reboots stay allowed."""
        self.let_reboot(allowed=True)
        if not self.monitor.execute_until("system_reset", {}, "RESET", lambda _: True, RESET_SECONDS):
            raise LabError("QEMU did not reset the machine in time", "see qemu.log")

    def pause(self) -> None:
        """See `Machine`."""
        self.execute("stop")

    def resume(self) -> None:
        """See `Machine`."""
        self.execute("cont")

    def plug(self, name: str, plug: Plug) -> None:
        """See `Machine`."""
        require_served([plug.socket])
        port = self._ports.take(name)
        try:
            reconnects = plug.kind == "scsi" and abilities(PROGRAM).scsi_reconnects
            for command, arguments in plug_commands(name, plug, port, scsi_reconnects=reconnects):
                self.execute(command, arguments)
        except LabError:
            with suppress(LabError):
                self.execute("chardev-remove", {"id": f"{name}-socket"})
            self._ports.free(name)
            raise

    def unplug(self, name: str, seconds: float = UNPLUG_SECONDS) -> None:
        """See `Machine`."""
        self._ports.check_taken(name)
        gone = self.monitor.execute_until(
            "device_del", {"id": name}, "DEVICE_DELETED", lambda data: data.get("device") == name, seconds
        )
        if not gone:
            raise unplugged(name, seconds)
        self.execute("chardev-remove", {"id": f"{name}-socket"})
        self._ports.free(name)

    @property
    def console_is_whole(self) -> bool:
        """QEMU writes it to a file."""
        return True

    def screenshot(self, target: Path) -> None:
        """See `Machine`."""
        self._require_screen()
        self.execute("screendump", {"filename": str(target.absolute()), "format": "png"})

    def press_keys(self, *keys: str) -> None:
        """See `Machine`."""
        for key in keys:
            self.execute("send-key", {"keys": [{"type": "qcode", "data": key}]})

    def execute(self, command: str, arguments: Mapping[str, object] | None = None) -> Any:
        """See `Machine`."""
        return self.monitor.execute(command, arguments)

    def write_state(self) -> None:
        """See `Machine`: in `state.log`."""
        with suppress(LabError):
            lines = [
                str(self.execute("human-monitor-command", {"command-line": command}))
                for command in STATE_COMMANDS
            ]
            (self.folder / "state.log").write_text("\n".join(lines))

    def kill(self) -> None:
        """See `Machine`."""
        self._leave()
        if self._process is not None:
            self._process.stop()
        if self._tpm is not None:
            self._tpm.stop()

    def _leave(self) -> None:
        """Close the monitor; the last events stay readable for `take_events` until then."""
        if self._monitor is not None:
            self._monitor.close()
        self._monitor = None
