"""A real QEMU without a guest: its virtio-pci devices driven from Python over the qtest socket.

May import anything but `lab` and `cli`. Guest RAM is a `GuestRam` that QEMU opens too, so rings are written
directly (`testing/driver.py`); only PCI set-up, registers and notifications go over the socket:

    with QtestMachine(["-chardev", f"socket,id=c,path={path}",
                       "-device", "vhost-user-blk-pci,chardev=c,addr=04.0,disable-legacy=on"]) as machine:
        device = VirtioPci(machine, slot=4)
        queue = device.start(queues=1)[0]

The processor runs a firmware that halts at once, under TCG: qtest's own accelerator is not in every package.
Source: QEMU `docs/devel/testing/qtest.rst`; PCI and virtio-pci: virtio 1.2, 4.1.
"""

from __future__ import annotations

import os
import select
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Self

from qemu.qmp import QMPError
from qemu.qmp.legacy import QEMUMonitorProtocol

from qemu_odx.testing.ram import GuestRam

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

PATIENCE = 60.0
"""Seconds for anything to happen on a loaded machine."""

_HALT = b"\xfa\xf4\xeb\xfd"
"""cli; hlt; jmp back to hlt: what the processor finds at the reset vector, 16 bytes before the end."""
_FIRMWARE_SIZE = 0x1_0000
_LOW_MEMORY = 0x20_0000
"""Left alone: on a PC the first MiB has holes."""


class QtestMachine:
    """A QEMU that runs nothing.

    Args:
        arguments: character devices and devices to add.
        memory: bytes of guest RAM.
        program: the QEMU to start.
    """

    def __init__(
        self, arguments: Sequence[str], *, memory: int = 64 << 20, program: str = "qemu-system-x86_64"
    ) -> None:
        self.ram = GuestRam(memory, base=0)
        self.ram.allocate(_LOW_MEMORY)
        self._folder = tempfile.TemporaryDirectory(prefix="odx-qtest-")
        self._log = Path(self._folder.name, "log").open("w+b")  # noqa: SIM115  # closed by `close`
        self._process: subprocess.Popen[bytes] | None = None
        self._qmp = QEMUMonitorProtocol(str(Path(self._folder.name, "qmp")), server=True)
        self._lines: socket.socket | None = None
        self._closed = False
        self._input = b""
        try:
            self._start(program, arguments)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def command(self, text: str) -> list[str]:
        """Send a qtest command; the words of its answer.

        Raises:
            AssertionError: QEMU refused it or ended; the text has what QEMU said.
        """
        lines = self._connected()
        lines.sendall(text.encode() + b"\n")
        while b"\n" not in self._input:
            piece = lines.recv(4096)
            if not piece:
                raise AssertionError(f"QEMU ended: {self.log()}")
            self._input += piece
        line, _, self._input = self._input.partition(b"\n")
        words = line.decode().split()
        if words[:1] != ["OK"]:
            raise AssertionError(f"{text}: {line.decode()}")
        return words[1:]

    def qmp(self, command: str, **arguments: object) -> object:
        """Send a QMP command; what it returns."""
        return self._qmp.cmd(command, **arguments)

    def log(self) -> str:
        """All that QEMU wrote so far."""
        return os.pread(self._log.fileno(), 1 << 20, 0).decode()

    def exit_code(self) -> int:
        """Wait until QEMU ends by itself."""
        return self._running().wait(PATIENCE)

    def close(self) -> None:
        """End QEMU and forget everything. Idempotent."""
        if self._closed:
            return
        self._closed = True
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        if self._lines is not None:
            self._lines.close()
        self._qmp.close()
        self._log.close()
        self.ram.close()
        self._folder.cleanup()

    def _start(self, program: str, arguments: Sequence[str]) -> None:
        folder = Path(self._folder.name)
        firmware = folder / "halt.bin"
        firmware.write_bytes((_HALT + bytes(12)).rjust(_FIRMWARE_SIZE, b"\0"))
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
            listener.bind(str(folder / "qtest"))
            listener.listen(1)
            self._process = subprocess.Popen(
                [program, *self._base_arguments(folder), *arguments],
                stdin=subprocess.DEVNULL,
                stdout=self._log,
                stderr=subprocess.STDOUT,
            )
            self._lines = self._accept(listener)
        try:
            self._qmp.accept(PATIENCE)
        except QMPError as error:
            raise AssertionError(f"QEMU ended: {self.log()}") from error

    def _base_arguments(self, folder: Path) -> list[str]:
        memory = f"memory-backend-file,id=ram,size={self.ram.size},share=on"
        return [
            *("-accel", "tcg", "-machine", "q35,memory-backend=ram", "-m", f"{self.ram.size >> 20}M"),
            *("-object", f"{memory},mem-path=/proc/{os.getpid()}/fd/{self.ram.fd}"),
            *("-bios", str(folder / "halt.bin"), "-nodefaults", "-display", "none"),
            *("-qtest", f"unix:{folder / 'qtest'}", "-qtest-log", "none", "-qmp", f"unix:{folder / 'qmp'}"),
        ]

    def _accept(self, listener: socket.socket) -> socket.socket:
        """QEMU's connection, or what it said when it ended instead."""
        deadline = time.monotonic() + PATIENCE
        while not select.select([listener], [], [], 0.1)[0]:
            if self._running().poll() is not None or time.monotonic() > deadline:
                raise AssertionError(f"QEMU did not start: {self.log()}")
        lines, _ = listener.accept()
        lines.settimeout(PATIENCE)
        return lines

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise AssertionError("QEMU was not started")
        return self._process

    def _connected(self) -> socket.socket:
        if self._lines is None:
            raise AssertionError("QEMU was not started")
        return self._lines


def poll(ready: Callable[[], bool], what: str, patience: float = PATIENCE) -> None:
    """Wait until `ready()`.

    Raises:
        TimeoutError: it never was.
    """
    deadline = time.monotonic() + patience
    while not ready():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what}: not within {patience} seconds")
        time.sleep(0.001)
