"""A shell in the guest: one ssh transport, many channels; file upload by SFTP.

May import: errors. Connect only after the guest said on its serial port that it listens (`live.py`).
"""

from __future__ import annotations

import base64
import logging
import socket
import threading
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import paramiko
from paramiko.pkey import UnknownKeyType

from qemu_odx.lab.errors import LabError, LateError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

BANNER_SECONDS = 60.0
CONNECT_SECONDS = 60.0
RETRY_SECONDS = 0.05
USUAL_KEYS = ("id_ed25519", "id_ecdsa", "id_rsa")
BROKEN = (paramiko.SSHException, OSError, EOFError)
"""What paramiko raises when a connection breaks, or its time is over; the plain EOFError too, from its thread."""

# It logs tracebacks of what it raises as well.
logging.getLogger("paramiko").addHandler(logging.NullHandler())


@dataclass(frozen=True, slots=True)
class Login:
    """Who logs in to a guest, and how both sides know each other.

    Attributes:
        user: the guest's user.
        private_key: file with the key that the guest accepts; None: the user's ssh agent and usual key files.
        host_key: the guest's public key line, any other guest is refused; None: any guest behind the port is ours.
    """

    user: str = "root"
    private_key: Path | None = None
    host_key: str | None = None

    def offers(self) -> Iterator[paramiko.PKey]:
        """What there is to offer to the guest. Raises UsageError if `private_key` is none, or is locked."""
        if self.private_key is not None:
            yield _load(self.private_key)
            return
        yield from paramiko.Agent().get_keys()
        for path in (Path.home() / ".ssh" / name for name in USUAL_KEYS):
            if path.exists():
                with suppress(UsageError):  # one with a passphrase belongs into the agent
                    yield _load(path)


def _load(path: Path) -> paramiko.PKey:
    try:
        return paramiko.PKey.from_path(path)
    except (paramiko.SSHException, UnknownKeyType, TypeError, ValueError, OSError) as error:
        raise UsageError(
            f"{path} cannot be used as a private key ({error})",
            "give one without a passphrase, or none and hand yours to your ssh agent",
        ) from error


@dataclass(frozen=True, slots=True)
class Completed:
    """What a command in the guest left: its exit status and its output."""

    status: int
    stdout: str
    stderr: str


class GuestShell:
    """An authenticated ssh connection to the guest."""

    def __init__(self, port: int, login: Login, *, patience: float = CONNECT_SECONDS) -> None:
        """Connect to 127.0.0.1:`port`.

        Args:
            port: host port that leads to the guest's ssh server.
            login: who we are and which guest we expect.
            patience: how long, in seconds, refused or reset connections are tried again.

        Raises:
            LabError: nothing answers, or it is not our guest.
        """
        self._transport = _connect(port, time.monotonic() + patience)
        try:
            _check_host_key(self._transport, login.host_key)
            _authenticate(self._transport, login)
        except BROKEN as error:
            self._transport.close()
            raise _not_answering(error) from error
        except LabError:
            self._transport.close()
            raise

    def run(
        self,
        command: str,
        *,
        seconds: float,
        on_stderr: Callable[[str], None] = lambda _: None,
    ) -> Completed:
        """Run a shell command to its end.

        Args:
            command: for the guest's own shell: /bin/sh, or cmd.exe on Windows.
            seconds: how long the guest may be silent.
            on_stderr: called, on another thread, with every line of standard error as it comes.

        Raises:
            LateError: the guest was silent for too long.
            LabError: the connection broke.
        """

        def relay(line: str) -> None:
            with suppress(OSError):  # nobody reads what we say any more; the command goes on
                on_stderr(line)

        try:
            with self._transport.open_session(timeout=seconds) as channel:
                channel.settimeout(seconds)
                channel.exec_command(command)
                return _collect(channel, relay)
        except TimeoutError as error:
            raise LateError(
                f"the guest was silent for {seconds:g} s during `{command}`", "give it longer"
            ) from error
        except BROKEN as error:
            raise LabError(
                f"the guest stopped answering during `{command}` ({error!r})", "see the guest's serial log"
            ) from error

    def start(self, command: str) -> None:
        """Run a shell command and do not wait for it: the guest may be gone before it answers."""
        try:
            channel = self._transport.open_session(timeout=CONNECT_SECONDS)
            channel.exec_command(command)
        except BROKEN:
            return  # the caller looks at what the command was to do, not at this

    def session(self) -> paramiko.Channel:
        """A channel on which nothing was asked for yet. Raises LabError if the connection broke."""
        try:
            return self._transport.open_session(timeout=CONNECT_SECONDS)
        except BROKEN as error:
            raise _not_answering(error) from error

    def upload(self, folder: Path, target: str) -> None:
        """Copy the files of `folder` (not its folders) into the new folder `target` of the guest."""
        files = sorted(path for path in folder.iterdir() if path.is_file())
        with self._files("copy files into the guest") as sftp:
            sftp.mkdir(target)
            for path in files:
                sftp.put(str(path), f"{target}/{path.name}")

    def put(self, source: Path, target: str) -> None:
        """Copy a file to the path `target` of the guest, over what is there."""
        with self._files(f"copy {source} into the guest") as sftp:
            sftp.put(str(source), target)

    def download(self, source: str, target: Path) -> None:
        """Copy the guest's file `source` to `target`.

        Raises:
            LabError: there is none.
            OSError: `target` cannot be written.
        """
        with self._files(f"fetch {source} from the guest") as sftp:
            sftp.open(source).close()  # get() would empty the target first
            sftp.get(source, str(target))

    @contextmanager
    def _files(self, purpose: str) -> Iterator[paramiko.SFTPClient]:
        try:
            with paramiko.SFTPClient.from_transport(self._transport) as sftp:  # type: ignore[union-attr]
                yield sftp
                _let_the_server_close(sftp)
        except BROKEN as error:
            if isinstance(error, OSError) and error.filename is not None:
                raise  # a file of the host's: what the guest refuses has no name here
            raise LabError(f"cannot {purpose} ({error!r})", "see the guest's serial log") from error

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
            transport.banner_timeout = transport.auth_timeout = transport.handshake_timeout = BANNER_SECONDS
            transport.start_client(timeout=BANNER_SECONDS + CONNECT_SECONDS)
            transport.get_remote_server_key()  # start_client raises nothing when its own time is over
        except BROKEN as error:
            if transport is not None:
                transport.close()
            if time.monotonic() > deadline:
                raise _not_answering(error) from error
            time.sleep(RETRY_SECONDS)
        else:
            return transport


def _authenticate(transport: paramiko.Transport, login: Login) -> None:
    """Offer one key after the other."""
    refusal: paramiko.SSHException = paramiko.AuthenticationException("there is no ssh key to offer")
    for key in login.offers():
        try:
            transport.auth_publickey(login.user, key)
        except paramiko.AuthenticationException as error:
            refusal = error
        else:
            return
    raise refusal


def _check_host_key(transport: paramiko.Transport, host_key: str | None) -> None:
    if host_key is None:
        return
    if transport.get_remote_server_key().asbytes() != base64.b64decode(host_key.split()[1]):
        raise paramiko.SSHException("another host key than the image's")


def _not_answering(error: Exception) -> LabError:
    return LabError(f"the guest's ssh server does not answer ({error!r})", "see the guest's serial log")


def _collect(channel: paramiko.Channel, on_stderr: Callable[[str], None]) -> Completed:
    """Drain both streams (a full window would stop the command), then take the exit status."""
    errors: list[str] = []
    over = threading.Event()

    def read_errors() -> None:
        with channel.makefile_stderr("r") as stream:
            while True:
                try:
                    for line in stream:
                        errors.append(line)
                        on_stderr(line.rstrip("\n"))
                except TimeoutError:  # whether the guest is silent is judged by its output
                    if over.is_set():
                        return
                else:
                    return

    reader = threading.Thread(target=read_errors, daemon=True)
    reader.start()
    try:
        with channel.makefile("rb") as stream:
            output = stream.read()
    finally:
        over.set()
    reader.join()
    return Completed(channel.recv_exit_status(), output.decode(errors="replace"), "".join(errors))
