"""A shell in the guest: one ssh transport, many channels; file upload by SFTP.

May import: errors. Connect only after the guest said on its serial port that it listens (`guest.py`).
"""

from __future__ import annotations

import base64
import socket
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import paramiko

from qemu_odx.lab.errors import LabError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

BANNER_SECONDS = 60.0
CONNECT_SECONDS = 30.0
RETRY_SECONDS = 0.05


@dataclass(frozen=True, slots=True)
class Completed:
    """What a command in the guest left: its exit status and its output."""

    status: int
    stdout: str
    stderr: str


class GuestShell:
    """An authenticated ssh connection to the guest's root."""

    def __init__(
        self, port: int, private_key: Path, host_key: str, *, patience: float = CONNECT_SECONDS
    ) -> None:
        """Connect to 127.0.0.1:`port`.

        Args:
            port: host port that leads to the guest's ssh server.
            private_key: file with the key the guest accepts.
            host_key: the guest's public key line; any other guest is refused.
            patience: how long, in seconds, refused or reset connections are tried again.

        Raises:
            LabError: nothing answers, or it is not our guest.
        """
        self._transport = _connect(port, time.monotonic() + patience)
        try:
            _check_host_key(self._transport, host_key)
            self._transport.auth_publickey("root", paramiko.Ed25519Key(filename=str(private_key)))
        except (paramiko.SSHException, OSError) as error:
            self._transport.close()
            raise _not_answering(error) from error

    def run(
        self,
        command: str,
        *,
        seconds: float,
        on_stderr: Callable[[str], None] = lambda _: None,
    ) -> Completed:
        """Run a shell command to its end.

        Args:
            command: for the guest's /bin/sh.
            seconds: how long the guest may be silent.
            on_stderr: called, on another thread, with every line of standard error as it comes.

        Raises:
            LabError: the connection broke or the guest was silent for too long.
        """
        try:
            with self._transport.open_session(timeout=seconds) as channel:
                channel.settimeout(seconds)
                channel.exec_command(command)
                return _collect(channel, on_stderr)
        except (paramiko.SSHException, OSError) as error:
            raise LabError(
                f"the guest stopped answering during `{command}` ({error!r})", "see the guest's serial log"
            ) from error

    def start(self, command: str) -> None:
        """Run a shell command and do not wait for it: the guest may be gone before it answers."""
        try:
            channel = self._transport.open_session(timeout=CONNECT_SECONDS)
            channel.exec_command(command)
        except (paramiko.SSHException, OSError):
            return  # the caller looks at what the command was to do, not at this

    def upload(self, folder: Path, target: str) -> None:
        """Copy the files of `folder` (not its folders) into the new folder `target` of the guest."""
        try:
            with paramiko.SFTPClient.from_transport(self._transport) as sftp:  # type: ignore[union-attr]
                sftp.mkdir(target)
                for path in sorted(path for path in folder.iterdir() if path.is_file()):
                    sftp.put(str(path), f"{target}/{path.name}")
                _let_the_server_close(sftp)
        except (paramiko.SSHException, OSError) as error:
            raise LabError(f"cannot copy files into the guest ({error!r})", "see the serial log") from error

    def close(self) -> None:
        """Hang up. Idempotent."""
        self._transport.close()
        self._transport.join(CONNECT_SECONDS)


def _let_the_server_close(sftp: paramiko.SFTPClient) -> None:
    """Wait until the file server in the guest has ended.

    Measured: in one of a hundred uploads dropbear hung up when the next channel was opened before that.
    """
    channel = sftp.get_channel()
    assert channel is not None  # noqa: S101 - it was opened with the client
    channel.shutdown_write()
    channel.recv_exit_status()


def _connect(port: int, deadline: float) -> paramiko.Transport:
    """A transport with the ssh banner received; refused and reset connections are tried again."""
    while True:
        transport = None
        try:
            connection = socket.create_connection(("127.0.0.1", port), CONNECT_SECONDS)
            transport = paramiko.Transport(connection)
            transport.banner_timeout = transport.auth_timeout = BANNER_SECONDS
            transport.start_client(timeout=BANNER_SECONDS)
        except (paramiko.SSHException, OSError) as error:
            if transport is not None:
                transport.close()
            if time.monotonic() > deadline:
                raise _not_answering(error) from error
            time.sleep(RETRY_SECONDS)
        else:
            return transport


def _check_host_key(transport: paramiko.Transport, host_key: str) -> None:
    if transport.get_remote_server_key().asbytes() != base64.b64decode(host_key.split()[1]):
        raise paramiko.SSHException("another host key than the image's")


def _not_answering(error: Exception) -> LabError:
    return LabError(f"the guest's ssh server does not answer ({error!r})", "see the guest's serial log")


def _collect(channel: paramiko.Channel, on_stderr: Callable[[str], None]) -> Completed:
    """Drain both streams (a full window would stop the command), then take the exit status."""
    errors: list[str] = []

    def read_errors() -> None:
        with channel.makefile_stderr("r") as stream:
            for line in stream:
                errors.append(line)
                on_stderr(line.rstrip("\n"))

    reader = threading.Thread(target=read_errors, daemon=True)
    reader.start()
    with channel.makefile("rb") as stream:
        output = stream.read()
    reader.join()
    return Completed(channel.recv_exit_status(), output.decode(errors="replace"), "".join(errors))
