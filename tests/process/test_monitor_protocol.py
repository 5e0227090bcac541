"""The monitor over its real socket: real QMP clients, and those that mean no good."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import stat
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from guests import Blk, eventually

from qemu_odx.cli.monitor_client import MonitorClient, MonitorFailure, NoServerError
from qemu_odx.testing.serve import ServeProcess, run_serve

if TYPE_CHECKING:
    from collections.abc import Iterator

DAY = 86400
"""Seconds; the host's clock may be set while a test runs."""
DISK = ("--disk", "id=d0,path=a.img,size=16M", "--export", "type=vhost-user-blk,socket=b.sock,disk=d0")


ARGUMENTS = (*DISK, "--monitor", "m.sock", "--clock", "virtual")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ServeProcess]:
    """A server with one disk and a monitor, where time stands still."""
    with ServeProcess(ARGUMENTS, cwd=tmp_path) as process:
        yield process


@pytest.fixture(scope="module")
def survivor(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServeProcess]:
    """The same for all clients that mean no good."""
    with ServeProcess(ARGUMENTS, cwd=tmp_path_factory.mktemp("survivor")) as process:
        yield process


@pytest.fixture
def path(server: ServeProcess) -> str:
    """Where its monitor listens."""
    return str(server.cwd / "m.sock")


@contextlib.contextmanager
def raw(path: str) -> Iterator[socket.socket]:
    """A client without manners, who has read the greeting."""
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(60)
        client.connect(path)
        assert b'"QMP"' in client.recv(4096)
        yield client


def test_a_qmp_client_is_served_and_ends_the_server(server: ServeProcess, path: str) -> None:
    """The library qemu.qmp; SHUTDOWN comes before the end; the socket is gone."""
    with MonitorClient(path) as client:
        assert client.execute("query-version")["package"].startswith("qemu-odx ")
        names = {row["name"] for row in client.execute("query-commands")}
        assert {"quit", "query-qmp-schema", "odx-clock-advance"} <= names
        assert client.execute("quit") == {}
        event = client.next_event(60)
        assert event is not None
        assert event["event"] == "SHUTDOWN"
        assert event["data"] == {"guest": False, "reason": "host-qmp-quit"}
        assert abs(event["timestamp"]["seconds"] - time.time()) < DAY
    eventually(lambda: not server.alive, "it did not end")
    assert server.terminate() == 0
    assert not Path(path).exists()


def test_qmp_shell_is_served(path: str) -> None:
    """The program of that name, with its own way of writing arguments; it completes from query-commands."""
    program = Path(sys.executable).with_name("qmp-shell")
    typed = "query-odx-clock\nodx-clock-advance seconds=1 milliseconds=500\nno-such-command\n"
    done = subprocess.run(
        [program, path], input=typed, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert '"clock": "virtual"' in done.stdout
    assert '"now": 1.5' in done.stdout
    assert '"CommandNotFound"' in done.stdout


def test_only_its_user_may_connect(path: str) -> None:
    """0600, whatever the umask says."""
    assert stat.S_IMODE(os.lstat(path).st_mode) == 0o600


def test_clients_do_not_disturb_each_other(path: str) -> None:
    """Each negotiates for itself; events go to all."""
    with MonitorClient(path) as one, MonitorClient(path) as two, raw(path) as silent:
        assert one.execute("odx-clock-advance", {"seconds": 1})["now"] == 1
        assert two.execute("query-odx-clock")["now"] == 1
        two.execute("quit")
        assert one.next_event(60)["event"] == "SHUTDOWN"  # type: ignore[index]  # None fails too
        assert silent.recv(4096) == b"", "who has not negotiated hears no events"


@pytest.mark.parametrize(
    "said",
    [
        b'{"execute": "qmp_cap',
        b"nonsense\n" * 1000,
        b"[" * 1_000_000,
        b'{"execute": "' + b"x" * 3_000_000,
        b"\xff\xfe\xfd" * 10_000 + b"\n",
        b'{"execute": "qmp_capabilities"}' + b'{"execute": "query-qmp-schema"}' * 5000,
        b"}" * 200_000,
    ],
    ids=["half", "nonsense", "deep", "endless", "no UTF-8", "flood", "brackets"],
)
def test_who_never_reads_hurts_nobody(survivor: ServeProcess, said: bytes) -> None:
    """Disk and monitor go on for the others; memory and descriptors are as before when the client has left."""
    server, path = survivor, str(survivor.cwd / "m.sock")
    guest = Blk(str(server.cwd / "b.sock")).go()
    try:
        guest.write(0, b"before" + bytes(506))
        memory, descriptors = server.own_memory(), server.descriptors()
        with raw(path) as enemy:
            enemy.setblocking(False)
            left = said
            with contextlib.suppress(BlockingIOError, ConnectionError):
                for _ in range(200):
                    left = left[enemy.send(left) :] if left else b""
                    assert guest.read(0, 512)[:6] == b"before"
            with MonitorClient(path) as friend:
                assert friend.execute("query-odx-clock")["clock"] == "virtual"
            assert server.own_memory() < memory + (16 << 20)
        eventually(lambda: server.descriptors() == descriptors, "the client's socket was kept")
    finally:
        guest.front.close()
    assert server.alive


def test_a_flood_is_answered_in_order(path: str) -> None:
    """By who reads: a thousand commands in one piece."""
    with raw(path) as client:
        flood = "".join(f'{{"execute": "query-version", "id": {number}}}' for number in range(1000))
        client.sendall(b'{"execute": "qmp_capabilities"}' + flood.encode())
        reader = client.makefile("rb")
        assert json.loads(reader.readline()) == {"return": {}}
        assert [json.loads(reader.readline())["id"] for _ in range(1000)] == list(range(1000))


def test_more_clients_than_there_is_room_for_wait(path: str) -> None:
    """Until another one leaves."""
    with contextlib.ExitStack() as stack:
        for _ in range(32):
            stack.enter_context(raw(path))
        with socket.socket(socket.AF_UNIX) as late:
            late.connect(path)
            late.settimeout(0.3)
            with pytest.raises(TimeoutError):
                late.recv(1)
            stack.close()
            late.settimeout(60)
            assert b'"QMP"' in late.recv(4096)


def test_who_cannot_connect_is_told_the_cure(tmp_path: Path) -> None:
    """No server, or one that has gone."""
    with pytest.raises(
        NoServerError, match=r"no server listens at .*start one with qemu-odx serve --monitor"
    ):
        MonitorClient(str(tmp_path / "m.sock"))


def test_a_server_that_dies_is_noticed(server: ServeProcess, path: str) -> None:
    """By the next command."""
    with MonitorClient(path) as client:
        server.kill()
        with pytest.raises(NoServerError, match="went away"):
            client.execute("query-version")


def test_the_system_clock_cannot_be_advanced(tmp_path: Path) -> None:
    """The sentence says how to start it otherwise; without disks there may be a server if it has a monitor."""
    with (
        ServeProcess(["--monitor", "m.sock"], cwd=tmp_path) as server,
        MonitorClient(str(server.cwd / "m.sock")) as client,
    ):
        with pytest.raises(MonitorFailure, match="start with --clock virtual"):
            client.execute("odx-clock-advance", {"seconds": 1})
        assert client.execute("query-odx-clock")["clock"] == "real"


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        ([], 2, "nothing to serve"),
        ([*DISK, "--clock", "virtual"], 2, "give a --monitor"),
        ([*DISK, "--monitor", "no/such/folder/m.sock"], 1, "the monitor: socket no/such"),
        ([*DISK, "--monitor", "b.sock"], 1, "another program listens here"),
    ],
)
def test_a_server_that_cannot_start_says_why(
    tmp_path: Path, arguments: list[str], code: int, said: str
) -> None:
    """And leaves nothing behind."""
    done = run_serve(arguments, cwd=tmp_path)
    assert (done.returncode, said in done.stderr) == (code, True), done.stderr
    assert list(tmp_path.iterdir()) == []
