"""The way into a guest: keys that are none, and servers that say nothing."""

from __future__ import annotations

import socket
import subprocess
import sys
from typing import TYPE_CHECKING

import paramiko
import pytest
from scripted_windows import write_key

from qemu_odx.lab import ssh
from qemu_odx.lab.config.model import Guest
from qemu_odx.lab.errors import LabError
from qemu_odx.lab.session.machines import prepare
from qemu_odx.lab.ssh import GuestShell, Login

if TYPE_CHECKING:
    from pathlib import Path


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
    monkeypatch.setattr(ssh, "BANNER_SECONDS", 0.2)
    monkeypatch.setattr(ssh, "CONNECT_SECONDS", 0.2)
    real = paramiko.Transport.start_client
    late = {"timeout": 0.1}  # paramiko's own limit comes first, and then it returns as if all were well
    write_key(home / "key")
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(LabError, match=r"does not answer.*banner"):
            GuestShell(port, Login("root", home / "key"), patience=0)
        monkeypatch.setattr(paramiko.Transport, "start_client", lambda self, **_: real(self, **late))
        with pytest.raises(LabError, match=r"does not answer.*No existing session"):
            GuestShell(port, Login("root", home / "key"), patience=0)


def test_paramiko_prints_nothing_by_itself() -> None:
    """What it logs is raised as well; without a handler Python prints it on standard error, traceback and all."""
    command = [
        sys.executable,
        "-c",
        "import logging, qemu_odx.lab.ssh; logging.getLogger('paramiko.x').error('no')",
    ]
    assert subprocess.run(command, capture_output=True, check=True).stderr == b""
