"""A signal while a command of a monitor is under way: the client leaves without a word of its library's."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import threading
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

GREETING = {
    "QMP": {"version": {"qemu": {"major": 10, "minor": 0, "micro": 0}, "package": ""}, "capabilities": []}
}
THIN_CLIENT = """
import sys
from qemu_odx.cli.main import main
main(["token", "list", "--monitor", sys.argv[1]])
"""
LAB = """
import socket, sys
from contextlib import closing
from qemu_odx.lab.interrupts import signals_end_the_run
from qemu_odx.lab.qmp import Monitor
connection = socket.socket(socket.AF_UNIX)
connection.connect(sys.argv[1])
with signals_end_the_run(), closing(Monitor(connection)) as monitor:
    monitor.execute("query-status")
"""


class MuteServer:
    """A QMP server that greets, and never answers a command.

    Attributes:
        asked: a command has come.
    """

    def __init__(self, path: Path) -> None:
        self.asked = threading.Event()
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        connection, _ = self._listener.accept()
        with connection:
            connection.send(json.dumps(GREETING).encode() + b"\n")
            connection.recv(
                4096
            )  # qmp_capabilities; every message of theirs is so short that it comes at once
            connection.send(b'{"return": {}}\n')
            connection.recv(4096)
            self.asked.set()
            connection.recv(4096)  # until the client leaves

    def close(self) -> None:
        """Its one client has left."""
        self._thread.join()
        self._listener.close()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[MuteServer]:
    """It listens at `m.sock`."""
    with closing(MuteServer(tmp_path / "m.sock")) as made:
        yield made


@pytest.mark.parametrize("program", [THIN_CLIENT, LAB], ids=["thin client", "lab"])
def test_nothing_is_said_of_the_command(program: str, server: MuteServer, tmp_path: Path) -> None:
    """No traceback of a task that nobody waits for any more."""
    command = ["env", "--default-signal=INT", sys.executable, "-c", program, str(tmp_path / "m.sock")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert server.asked.wait(60)
        process.send_signal(signal.SIGINT)
        said, complaints = process.communicate(timeout=60)
    assert process.returncode in {1, 128 + signal.SIGINT}, complaints
    assert said == ""
    assert complaints.strip() in {"", "Aborted!", "Aborted."}
