"""A Windows guest as the lab sees it, played by a script: an ssh server like OpenSSH on Windows, and a machine.

The tests' own: what it cannot show is Windows itself.
"""

from __future__ import annotations

import base64
import functools
import socket
import threading
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

import paramiko
import tree_sitter_powershell
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from tree_sitter import Language, Parser

from qemu_odx.lab.errors import LabError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path


PATIENCE = 60.0


def script_of(line: str) -> str:
    """The PowerShell behind a command line, as PowerShell decodes it."""
    *words, word = line.split(" ")
    assert words[0] == "powershell.exe"
    assert words[-1] == "-EncodedCommand"
    return base64.b64decode(word).decode("utf-16-le")


def powershell_errors(script: str) -> list[str]:
    """What an independent parser does not understand."""
    tree = Parser(Language(tree_sitter_powershell.language())).parse(script.encode())
    nodes, wrong = [tree.root_node], []
    while nodes:
        node = nodes.pop()
        nodes += node.children
        if node.type == "ERROR" or node.is_missing:
            wrong.append(script[node.start_byte : node.end_byte] or node.type)
    return wrong


class ScriptedWindows(paramiko.ServerInterface):
    """An ssh server like OpenSSH on Windows: one key for Administrator, commands go to a shell that we play."""

    def __init__(self, key: str, answer: Callable[[str], tuple[int, str]]) -> None:
        self._key = key
        self._answer = answer
        self.users: list[str] = []

    def get_allowed_auths(self, username: str) -> str:
        """Keys only."""
        self.users.append(username)
        return "publickey"

    def check_auth_publickey(self, username: str, key: paramiko.PKey) -> int:
        """One user, one key."""
        self.users.append(username)
        known = username == "Administrator" and key.get_base64() == self._key
        return paramiko.AUTH_SUCCESSFUL if known else paramiko.AUTH_FAILED

    def check_channel_request(self, _kind: str, _channel: int) -> int:
        """Any channel."""
        return paramiko.OPEN_SUCCEEDED

    def check_channel_exec_request(self, channel: paramiko.Channel, command: bytes) -> bool:
        """Play it."""
        threading.Thread(target=self._run, args=(channel, command.decode()), daemon=True).start()
        return True

    def _run(self, channel: paramiko.Channel, command: str) -> None:
        status, output = self._answer(command)
        with suppress(OSError, EOFError):  # nobody waits for the answer to a shutdown
            channel.sendall(output.encode())
            channel.sendall_stderr(b"played\r\n")
            channel.send_exit_status(status)
            channel.shutdown_write()
        while not channel.closed:  # the client hangs up first: it may not have read our consent yet
            time.sleep(0.01)


@functools.cache
def _host_key() -> paramiko.PKey:
    """One for all: it takes its time to be found."""
    return paramiko.RSAKey.generate(2048)


def write_key(path: Path) -> str:
    """Make a fresh private key file; returns its public half in base64."""
    key = Ed25519PrivateKey.generate()
    form = serialization.PrivateFormat.OpenSSH
    path.write_bytes(key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption()))
    return paramiko.PKey.from_path(path).get_base64()


@contextmanager
def ssh_server(key: str, answer: Callable[[str], tuple[int, str]]) -> Iterator[int]:
    """A scripted server on a port of the host's, which it yields; `answer` maps a command to status and output."""
    transports: list[paramiko.Transport] = []
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()

        def serve() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                transport = paramiko.Transport(connection)
                transports.append(transport)
                transport.add_server_key(_host_key())
                transport.banner_timeout = transport.handshake_timeout = transport.auth_timeout = PATIENCE
                with suppress(paramiko.SSHException, OSError, EOFError):  # who does not like our key hangs up
                    transport.start_server(server=ScriptedWindows(key, answer))

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        try:
            yield server.getsockname()[1]
        finally:
            server.shutdown(socket.SHUT_RDWR)
            thread.join(PATIENCE)
            for transport in transports:
                transport.close()
                transport.join(PATIENCE)


class ScriptedMachine:
    """A machine whose guest follows a script: each look at the console lets it do one step more.

    A step is a text for the serial port, or what happens: "wait for a key", "wait for another key", "off", "die".

    Attributes:
        keys: what was pressed.
        starts: how often it was started.
    """

    def __init__(self, steps: Sequence[str], *, ssh_port: int = 1) -> None:
        self._steps = list(steps)
        self._console = ""
        self._on = False
        self._died = False
        self._before: int | None = None
        self.ssh_port = ssh_port
        self.keys: list[str] = []
        self.starts = 0
        self.reboots_allowed = False

    @property
    def running(self) -> bool:
        """Until it is off."""
        return self._on

    def start(self) -> None:
        """Begin the script."""
        self.starts += 1
        self._on = True

    def console(self) -> str:
        """All that was written; goes one step on."""
        if self._on and self._steps:
            self._step(self._steps[0])
        return self._console

    def _step(self, step: str) -> None:
        if step == "wait for a key":
            if not self.keys:
                return
        elif step == "wait for another key":
            self._before = len(self.keys) if self._before is None else self._before
            if len(self.keys) == self._before:
                return
        elif step in {"off", "die"}:
            self._on, self._died = False, step == "die"
        else:
            self._console += f"{step}\n"
        self._steps.pop(0)

    def press_keys(self, *keys: str) -> None:
        """Kept."""
        self.keys += keys

    def let_reboot(self, *, allowed: bool) -> None:
        """Kept."""
        self.reboots_allowed = allowed

    def check(self) -> None:
        """A machine that died says so."""
        if self._died:
            raise LabError("QEMU ended with exit code 1: out of memory", "see qemu.log")

    def await_end(self, _seconds: float) -> bool:
        """Go on until it is off, or the script is at its end."""
        while self._on and self._steps:
            self.console()
        return not self._on

    def switch_off(self) -> None:
        """As a guest does that was told to."""
        self._on = False

    def write_state(self) -> None:
        """Nothing to write."""

    def screenshot(self, target: Path) -> None:
        """A file."""
        target.write_bytes(b"\x89PNG")

    def kill(self) -> None:
        """End."""
        self._on = False
