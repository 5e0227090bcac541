"""The way into a guest: keys that are none, and servers that say nothing."""

from __future__ import annotations

import errno
import socket
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING, Any, cast

import paramiko
import pytest
from scripted_windows import ssh_server, write_key

from qemu_odx.lab import ssh
from qemu_odx.lab.config.model import Guest
from qemu_odx.lab.errors import LabError, LateError
from qemu_odx.lab.session.machines import prepare
from qemu_odx.lab.ssh import GuestShell, Login

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from typing import Self


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home without keys, and no agent."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    (tmp_path / ".ssh").mkdir()
    return tmp_path


def locked_key(path: Path) -> Path:
    """A key with a passphrase."""
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "secret", "-f", path], check=True)
    return path


def test_usual_keys_that_want_a_passphrase_are_left_to_the_agent(home: Path) -> None:
    """The others are offered all the same."""
    locked_key(home / ".ssh/id_ed25519")
    (home / ".ssh/id_rsa").write_text("no key at all\n")
    public = write_key(home / ".ssh/id_ecdsa")
    assert [key.get_base64() for key in Login().offers()] == [public]


def test_key_that_cannot_be_used_is_named(home: Path) -> None:
    """Not a key, or one with a passphrase; a traceback helps nobody."""
    (home / "text").write_text("no key at all\n")
    for path in (home / "text", locked_key(home / "locked"), home):
        with pytest.raises(LabError, match=rf"{path} cannot be used as a private key .*; give one without"):
            next(Login("root", path).offers())


def test_own_image_needs_a_key_before_it_boots(home: Path) -> None:
    """It would boot, and then there would be no way in."""
    (home / "own.img").write_bytes(bytes(512))
    guest = Guest("guest", str(home / "own.img"), ())
    with pytest.raises(LabError, match="no ssh key to log in with"):
        prepare(guest, lambda _: None)
    write_key(home / ".ssh/id_ed25519")
    assert prepare(guest, lambda _: None).image.description == "own.img"


def test_server_that_says_nothing(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Slirp takes connections for a guest that has no ssh server; a time that is over is no success."""
    real = paramiko.Transport.start_client
    late = {"timeout": 0.1}  # paramiko's own limit comes first, and then it returns as if all were well
    write_key(home / "key")
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with monkeypatch.context() as patch:
            patch.setattr(ssh, "BANNER_SECONDS", 0.2)
            with pytest.raises(LabError, match=r"does not answer.*banner"):
                GuestShell(port, Login("root", home / "key"), patience=0)
        monkeypatch.setattr(paramiko.Transport, "start_client", lambda self, **_: real(self, **late))
        with pytest.raises(LabError, match=r"does not answer.*No existing session"):
            GuestShell(port, Login("root", home / "key"), patience=0)


def test_server_that_hangs_up_in_the_middle(home: Path) -> None:
    """Behind its banner: one sentence, whatever paramiko makes of it."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def hang_up() -> None:
            connection, _ = server.accept()
            with connection:
                connection.sendall(b"SSH-2.0-short\r\n")
                connection.recv(1)

        thread = threading.Thread(target=hang_up)
        thread.start()
        with pytest.raises(LabError, match="does not answer"):
            GuestShell(server.getsockname()[1], Login("root", home / "key"), patience=0)
        thread.join()


class Quiet:
    """A stream on which nothing comes for too long, and then a line."""

    def __init__(self, happens: list[str | None]) -> None:
        self.happens = happens

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing to close."""

    def __iter__(self) -> Iterator[str]:
        while self.happens:
            text = self.happens.pop(0)
            if text is None:
                raise TimeoutError
            yield text

    def read(self) -> bytes:
        """All of it."""
        return "".join(self).encode()


def test_who_says_nothing_on_standard_error_is_not_silent() -> None:
    """While its output goes on: what it says there at last is heard."""
    errors = Quiet([None, None, "at last\n"])

    class Channel:
        def makefile_stderr(self, _mode: str) -> Quiet:
            return errors

        def makefile(self, _mode: str) -> Quiet:
            while errors.happens:  # it goes on until all is said
                time.sleep(0.001)
            return Quiet(["output"])

        def recv_exit_status(self) -> int:
            return 0

    heard: list[str] = []
    done = ssh._collect(cast("Any", Channel()), heard.append)
    assert (done, heard) == (ssh.Completed(0, "output", "at last\n"), ["at last"])


def test_silence_ends_a_command(home: Path) -> None:
    """With one sentence, and no traceback of the thread that waits for its standard error."""
    over = threading.Event()

    def answer(_command: str) -> tuple[int, str]:
        over.wait(60)
        return 0, ""

    with ssh_server(write_key(home / "key"), answer) as port:
        shell = GuestShell(port, Login("Administrator", home / "key"))
        with pytest.raises(LateError, match=r"silent for 0.3 s during `sleep`; give it longer"):
            shell.run("sleep", seconds=0.3)
        over.set()
        shell.close()


def test_file_of_the_host_that_cannot_be_written(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is named by the host's own error; what the guest refuses is the lab's."""

    class Files:
        def __enter__(self) -> Self:
            return self

        def __exit__(self, *_: object) -> None:
            """Nothing to close."""

        def open(self, source: str) -> Files:
            if source == "/missing":
                raise FileNotFoundError(errno.ENOENT, "No such file")  # as paramiko says it
            return self

        def close(self) -> None:
            """There it is."""

        def get(self, _source: str, target: str) -> None:
            open(target, "wb").close()  # noqa: PTH123 - as paramiko does

    monkeypatch.setattr(paramiko.SFTPClient, "from_transport", lambda _transport: Files())
    with ssh_server(write_key(home / "key"), lambda _command: (0, "")) as port:
        shell = GuestShell(port, Login("Administrator", home / "key"))
        with pytest.raises(IsADirectoryError, match=str(home)):
            shell.download("/tmp/x", home)  # noqa: S108 - in the guest
        with pytest.raises(LabError, match="cannot fetch /missing from the guest"):
            shell.download("/missing", home / "x")
        shell.close()


def test_nobody_reads_standard_error(home: Path) -> None:
    """`2>&1 | head`: the command goes on to its end."""

    def broken(_: str) -> None:
        raise BrokenPipeError

    with ssh_server(write_key(home / "key"), lambda _: (0, "all of it")) as port:
        shell = GuestShell(port, Login("Administrator", home / "key"))
        done = shell.run("talk", seconds=60, on_stderr=broken)
        shell.close()
    assert (done.status, done.stdout) == (0, "all of it")
    assert "played" in done.stderr


def test_paramiko_prints_nothing_by_itself() -> None:
    """What it logs is raised as well; without a handler Python prints it on standard error, traceback and all."""
    command = [
        sys.executable,
        "-c",
        "import logging, qemu_odx.lab.ssh; logging.getLogger('paramiko.x').error('no')",
    ]
    assert subprocess.run(command, capture_output=True, check=True).stderr == b""
