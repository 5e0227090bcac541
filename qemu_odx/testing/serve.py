"""A running `qemu-odx serve`, for tests that want the real process behind a real socket.

May import anything but `lab` and `cli`; it uses the command line only.

    with ServeProcess(["--disk", "id=d0,path=a.img,size=1G", "--export", ...]) as server:
        FrontEnd(server.sockets[0])
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from collections.abc import Sequence

PATIENCE = 60.0
"""Seconds until it must be ready, or ended."""


class ServeProcess:
    """The server as its users start it; ready when made.

    Args:
        arguments: what follows `qemu-odx serve`; `--json` is added.
        cwd: its working folder.

    Attributes:
        ready: the object that it printed when it was.
        sockets: where its exports listen, in their order.

    Raises:
        AssertionError: it did not become ready; the text has its stderr.
    """

    def __init__(self, arguments: Sequence[str], *, cwd: str | os.PathLike[str] | None = None) -> None:
        self.cwd = Path(cwd or Path.cwd())
        # A file, not a pipe: nobody reads while the server runs, and a full pipe would stop it.
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115  # closed by `close`
        self._forgotten = 0
        self._process = subprocess.Popen(
            [sys.executable, "-m", "qemu_odx", "serve", "--json", *arguments],
            stdout=subprocess.PIPE,
            stderr=self._errors,
            cwd=cwd,
            env=_environment(),
        )
        try:
            self.ready = self._await_ready()
            self.sockets: list[str] = self.ready["sockets"]
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def pid(self) -> int:
        """Process id."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """True until it has ended."""
        return self._process.poll() is None

    def errors(self) -> str:
        """All that it wrote to stderr so far, or since `forget_errors`."""
        return os.pread(self._errors.fileno(), 1 << 20, self._forgotten).decode()

    def forget_errors(self) -> None:
        """Begin anew with `errors`."""
        self._forgotten = os.fstat(self._errors.fileno()).st_size

    def descriptors(self) -> int:
        """Open file descriptors."""
        return sum(1 for _ in Path(f"/proc/{self.pid}/fd").iterdir())

    def mappings(self) -> int:
        """Shared mappings of memory files: guest RAM and in-flight areas."""
        lines = Path(f"/proc/{self.pid}/maps").read_text().splitlines()
        return sum(1 for line in lines if "/memfd:" in line and " rw-s " in line)

    def own_memory(self) -> int:
        """Bytes of memory that are its own: neither guest RAM nor programs."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        return 1024 * int(status.partition("RssAnon:")[2].split()[0])

    def terminate(self, number: int = signal.SIGTERM) -> int:
        """Send a signal and wait for the end; the exit code."""
        self._process.send_signal(number)
        return self._process.wait(PATIENCE)

    def kill(self) -> None:
        """End it without a chance to do anything."""
        self._process.kill()
        self._process.wait()

    def close(self) -> None:
        """End it by any means, and forget its output."""
        if self.alive:
            self.kill()
        if self._process.stdout:
            self._process.stdout.close()
        self._errors.close()

    def _await_ready(self) -> dict[str, Any]:
        stdout = self._process.stdout
        line = b""
        if stdout and select.select([stdout], [], [], PATIENCE)[0]:
            line = stdout.readline()
        if not line:
            raise AssertionError(f"qemu-odx serve did not become ready: {self.errors()}")
        ready: dict[str, Any] = json.loads(line)
        if not (ready["ready"] is True and ready["pid"] == self.pid):
            raise AssertionError(f"qemu-odx serve says it is not ready: {ready}")
        return ready


def run_serve(
    arguments: Sequence[str], *, cwd: str | os.PathLike[str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run `qemu-odx serve` with arguments that must fail, to its end."""
    return subprocess.run(
        [sys.executable, "-m", "qemu_odx", "serve", *arguments],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        cwd=cwd,
        env=_environment(),
        check=False,
    )


def _environment() -> dict[str, str]:
    """The same qemu_odx as ours, wherever the server's working folder is."""
    package = Path(__file__).resolve().parents[2]
    return {**os.environ, "PYTHONPATH": str(package), "PYTHONUNBUFFERED": "1"}
