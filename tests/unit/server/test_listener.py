"""The listening socket: places it takes, and places it refuses."""

from __future__ import annotations

import contextlib
import os
import socket
from typing import TYPE_CHECKING

import pytest

from qemu_odx.server.access import SocketAccess
from qemu_odx.server.listener import Listener
from qemu_odx.server.options import ConfigError

if TYPE_CHECKING:
    from pathlib import Path


def test_it_listens_and_removes_itself(tmp_path: Path) -> None:
    """A front end can connect; nothing is left."""
    path = tmp_path / "s.sock"
    listener = Listener(str(path))
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
        accepted = listener.accept()
        assert accepted is not None
        accepted.close()
    listener.close()
    assert not path.exists()


def test_nobody_there_is_no_front_end(tmp_path: Path) -> None:
    """Accept does not wait."""
    listener = Listener(str(tmp_path / "s.sock"))
    assert listener.accept() is None
    listener.close()


def test_a_stale_socket_is_replaced(tmp_path: Path) -> None:
    """What a killed server leaves behind is no obstacle."""
    path = str(tmp_path / "s.sock")
    dead = socket.socket(socket.AF_UNIX)
    dead.bind(path)
    dead.listen()
    dead.close()
    Listener(path).close()


def test_a_live_socket_is_refused(tmp_path: Path) -> None:
    """Another server's clients stay with it."""
    path = str(tmp_path / "s.sock")
    first = Listener(path)
    with pytest.raises(ConfigError, match="another program listens here"):
        Listener(path)
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(path)
    first.close()


def test_a_live_socket_with_a_full_queue_is_refused(tmp_path: Path) -> None:
    """A server too busy to accept is alive."""
    path = str(tmp_path / "s.sock")
    with socket.socket(socket.AF_UNIX) as busy:
        busy.bind(path)
        busy.listen(0)
        clients = [socket.socket(socket.AF_UNIX) for _ in range(4)]
        for client in clients:
            client.setblocking(False)
            client.connect_ex(path)
        with pytest.raises(ConfigError, match="another program listens here"):
            Listener(path)
        for client in clients:
            client.close()


def test_another_file_is_never_removed(tmp_path: Path) -> None:
    """It may be somebody's image."""
    path = tmp_path / "s.sock"
    path.write_text("precious")
    with pytest.raises(ConfigError, match="no socket is in the way"):
        Listener(str(path))
    assert path.read_text() == "precious"


def test_a_missing_folder(tmp_path: Path) -> None:
    """Named, with the cure."""
    with pytest.raises(ConfigError, match=f"there is no folder {tmp_path / 'no'}; make it first"):
        Listener(str(tmp_path / "no" / "s.sock"))


def test_a_path_too_long(tmp_path: Path) -> None:
    """A socket address has 108 bytes, one of them the end; bytes count, not characters."""
    path = str(tmp_path / ("é" * 60))
    with pytest.raises(ConfigError, match="a socket's may have 107"):
        Listener(path)


def test_the_longest_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """107 bytes are taken."""
    monkeypatch.chdir(tmp_path)
    path = "s" * 107
    Listener(path).close()
    assert not os.path.lexists(path)


def test_a_successors_socket_stays(tmp_path: Path) -> None:
    """Only the file made here is removed at the end."""
    path = tmp_path / "s.sock"
    listener = Listener(str(path))
    path.unlink()
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(path))
        listener.close()
        assert path.exists()


def test_a_refused_place_leaks_no_descriptor(tmp_path: Path) -> None:
    """Tried often, by an impatient user."""
    before = sockets()
    for _ in range(3):
        with pytest.raises(ConfigError):
            Listener(str(tmp_path / "no" / "s.sock"))
    assert sockets() <= before


def sockets() -> set[str]:
    """This process' own, each with its number; those that others leave may go at any time, and none comes."""
    found = set()
    for name in os.listdir("/proc/self/fd"):  # noqa: PTH208  # the listing's own is among them
        with contextlib.suppress(OSError):
            found.add(os.readlink(f"/proc/self/fd/{name}"))  # noqa: PTH115  # it leads to no path
    return {target for target in found if target.startswith("socket:")}


def test_an_owner_that_cannot_be_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The cure is named, and no socket is left behind."""

    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "chown", refuse)
    with pytest.raises(ConfigError, match="give sockets to yourself"):
        Listener(str(tmp_path / "s.sock"), SocketAccess(owner=1))
    assert list(tmp_path.iterdir()) == []
