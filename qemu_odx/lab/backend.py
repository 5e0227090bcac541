"""The disk server as the lab sees it: a program with a command line, one line of JSON, and SIGTERM.

May import: errors, process. It never imports the server: what a user can start, the lab starts.
"""

from __future__ import annotations

import json
import select
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from qemu_odx.lab.errors import EndedError, LabError
from qemu_odx.lab.process import ManagedProcess

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

READY_SECONDS = 60.0
STOP_SECONDS = 180.0
"""It flushes its disks at the end, and all that guests wrote may have to go to a slow disk of the host's then."""


@dataclass(frozen=True, slots=True)
class DiskSpec:
    """One `--disk` of `qemu-odx serve`: identifier, image file, size in bytes, serial number.

    `options` are further ones as they stand on the command line, such as `{"block-size": "4096"}`.
    """

    name: str
    path: Path
    size: int
    serial: str
    options: Mapping[str, str] = field(default_factory=dict)

    def argument(self) -> str:
        """The value of `--disk`."""
        more = "".join(f",{key}={value}" for key, value in self.options.items())
        return f"id={self.name},path={self.path},size={self.size},serial={self.serial}{more}"


@dataclass(frozen=True, slots=True)
class ScsiExport:
    """One `--export type=vhost-user-scsi`: the disks are its logical units from 0 on."""

    socket: Path
    disks: tuple[str, ...]

    def argument(self) -> str:
        """The value of `--export`."""
        units = ",".join(f"lun{number}={disk}" for number, disk in enumerate(self.disks))
        return f"type=vhost-user-scsi,socket={self.socket},{units}"


@dataclass(frozen=True, slots=True)
class BlkExport:
    """One `--export type=vhost-user-blk`, with a mailbox at the default place or without."""

    socket: Path
    disk: str
    mailbox: bool = False

    def argument(self) -> str:
        """The value of `--export`."""
        mailbox = ",mailbox=on" if self.mailbox else ""
        return f"type=vhost-user-blk,socket={self.socket},disk={self.disk}{mailbox}"


def serve_command(disks: Sequence[DiskSpec], exports: Sequence[ScsiExport | BlkExport]) -> list[str]:
    """The command line of the disk server."""
    command = [sys.executable, "-m", "qemu_odx", "serve", "--json"]
    for disk in disks:
        command += ["--disk", disk.argument()]
    for export in exports:
        command += ["--export", export.argument()]
    return command


class Backend:
    """A running disk server, all its sockets listening."""

    def __init__(self, command: Sequence[str], log: Path, *, patience: float = READY_SECONDS) -> None:
        """Start it and wait until it says that it is ready. Raises LabError if it does not."""
        self._process = ManagedProcess(
            "the disk server",
            command,
            log,
            orphan_signal=signal.SIGTERM,
            stdout=subprocess.PIPE,
            patience=STOP_SECONDS,
        )
        try:
            self._await_ready(time.monotonic() + patience)
        except BaseException:
            self._process.stop()
            raise

    def _await_ready(self, deadline: float) -> None:
        remaining = max(deadline - time.monotonic(), 0.0)
        readable, _, _ = select.select([self._process.stdout], [], [], remaining)
        line = self._process.stdout.readline() if readable else b""
        told = _object_of(line)
        if told.get("ready") is not True:
            raise self._not_ready(told.get("error"), timed_out=not readable)

    def _not_ready(self, error: str | None, *, timed_out: bool) -> LabError:
        """In the server's own words: an error that it told may not be in its log yet."""
        *others, last = self._process.last_words().splitlines() or ["it gave no reason"]
        cause = "the disk server is not ready in time" if timed_out else "the disk server did not start"
        said = error or last.removeprefix("qemu-odx serve: ")
        return LabError(f"{cause}: {said}", "see its log", details="\n".join(others))

    @property
    def pid(self) -> int:
        """Process id."""
        return self._process.pid

    def check(self) -> None:
        """Raise LabError if it ended by itself."""
        code = self._process.exit_code()
        if code is not None:
            raise EndedError(
                f"the disk server ended by itself (exit code {code})",
                "see its log",
                details=self._process.last_words(),
            )

    def stop(self) -> int:
        """Ask it to drain, flush and end; the exit code, which is 0 if all went well. Idempotent."""
        return self._process.stop()


def _object_of(line: bytes) -> dict[str, Any]:
    try:
        told = json.loads(line)
    except ValueError:
        return {}
    return told if isinstance(told, dict) else {}
