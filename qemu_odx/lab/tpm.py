"""An emulated TPM 2.0 for a guest that asks for one: Windows 11 does.

May import: errors, process. Used by `machines/qemu.py`; libvirt runs its own.
"""

from __future__ import annotations

import shutil
import time
from typing import TYPE_CHECKING

from qemu_odx.lab.errors import LabError, MissingError
from qemu_odx.lab.process import ManagedProcess

if TYPE_CHECKING:
    from pathlib import Path

PROGRAM = "swtpm"
READY_SECONDS = 60.0
POLL_SECONDS = 0.02


class Tpm:
    """A running swtpm(8) that ends by itself when QEMU hangs up."""

    def __init__(self, state: Path, folder: Path) -> None:
        """Start it and wait for its socket `tpm.sock` in `folder`.

        Raises:
            LabError: swtpm is missing or does not start.
        """
        if shutil.which(PROGRAM) is None:
            raise MissingError(
                "this guest needs an emulated TPM, and swtpm is not installed", "install package swtpm"
            )
        state.mkdir(exist_ok=True)
        socket = folder / "tpm.sock"
        socket.unlink(missing_ok=True)
        command = [PROGRAM, "socket", "--tpm2", "--tpmstate", f"dir={state}", "--terminate"]
        command += ["--ctrl", f"type=unixio,path={socket}"]
        self._process = ManagedProcess("the TPM emulator", command, folder / "tpm.log")
        deadline = time.monotonic() + READY_SECONDS
        while not socket.exists():
            if self._process.exit_code() is not None or time.monotonic() > deadline:
                self._process.stop()
                raise LabError(
                    "the TPM emulator did not start", "see tpm.log", details=self._process.last_words()
                )
            time.sleep(POLL_SECONDS)

    def stop(self) -> None:
        """End it. Idempotent."""
        self._process.stop()
