"""The thin clients of the monitor, as their users call them, on a real server."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import select
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner, Result
from guests import MIB, Blk

from qemu_odx.cli.main import main
from qemu_odx.testing.scsi_guest import ScsiGuest
from qemu_odx.testing.serve import ServeProcess
from qemu_odx.wire.scsi.token_lists import Range

if TYPE_CHECKING:
    from collections.abc import Iterator

ARGUMENTS = (
    *("--disk", "id=d0,path=d0.img,size=16M", "--disk", "id=d1,path=d1.img,size=16M"),
    *("--export", "type=vhost-user-scsi,id=scsi,socket=s.sock,lun0=d0,lun1=d1"),
    *("--monitor", "m.sock", "--clock", "virtual"),
)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServeProcess]:
    """A server for all; its monitor is where the variable says."""
    with ServeProcess(ARGUMENTS, cwd=tmp_path_factory.mktemp("server")) as process:
        yield process


@pytest.fixture(autouse=True)
def variable(server: ServeProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    """As users have it in their shell."""
    monkeypatch.setenv("QEMU_ODX_MONITOR", str(server.cwd / "m.sock"))
    monkeypatch.chdir(server.cwd)


@pytest.fixture
def guest(server: ServeProcess) -> Iterator[ScsiGuest]:
    """A SCSI guest."""
    with ScsiGuest(server.cwd / "s.sock") as made:
        yield made


def run(*words: str) -> Result:
    """`qemu-odx WORDS`, in this process."""
    return CliRunner().invoke(main, words)


def done(*words: str) -> str:
    """Its output, after it did well."""
    result = run(*words)
    assert (result.exit_code, result.stderr) == (0, ""), result.output
    return result.stdout


def told(*words: str) -> Any:
    """Its JSON."""
    return json.loads(done(*words, "--json"))


def test_tokens_are_listed_and_revoked(guest: ScsiGuest) -> None:
    """By the names that the list has."""
    assert done("token", "list").strip() == "no token is alive"
    secret = guest.initiator.token(0, [Range(0, 128)])
    guest.initiator.token(1, [Range(0, 64)])
    (name,) = (item["token"] for item in told("token", "list", "--disk", "d0"))
    text = done("token", "list")
    assert name in text
    assert "64 KiB" in text
    assert secret[-16:].hex() not in done("token", "list", "--json")
    assert done("token", "revoke", name) == f"{name}: revoked\n"
    assert guest.initiator.write_token(1, secret, [Range(0, 128)]).fault == (5, 0x23, 0x06)
    done("token", "revoke", *(item["token"] for item in told("token", "list")))
    assert told("token", "list") == []


def test_disks_and_exports_are_added_and_removed(server: ServeProcess) -> None:
    """With the options of `serve`; names without a folder are the caller's, not the server's."""
    here = server.cwd / "elsewhere"
    here.mkdir()
    os.chdir(here)
    assert done("disk", "add", "id=x,path=x.img,size=1M") == "x is there\n"
    assert (here / "x.img").stat().st_size == MIB
    assert done("disk", "resize", "x", "2M") == "x: 2 MiB\n"
    made = told("export", "add", "type=vhost-user-blk,id=e,socket=e.sock,disk=x,num-queues=2")
    assert (made["socket"], made["num-queues"]) == (str(here / "e.sock"), 2)
    guest = Blk(str(here / "e.sock")).go()
    with guest.front:
        guest.write(0, bytes(512))
        line = next(line for line in done("export", "list").splitlines() if " e " in line)
        assert "connected" in line
        assert done("export", "remove", "e") == "e is gone\n"
    assert "1:x" not in done("export", "list")
    done("export", "add-unit", "scsi", "7", "x")
    assert "7:x" in done("export", "list")
    assert "scsi" in next(line for line in done("disk", "list").splitlines() if " x " in line)
    done("export", "remove-unit", "scsi", "7")
    assert done("disk", "remove", "x") == "x is closed\n"
    assert sorted(path.name for path in here.iterdir()) == ["x.img"]


def test_time_passes_when_told_to(guest: ScsiGuest) -> None:
    """A token of a minute, in no time."""
    guest.initiator.token(0, [Range(0, 8)])
    assert "1 waiting, the first in 60 s" in done("clock", "show")
    before = told("clock", "show")["now"]
    done("clock", "advance", "59999ms")
    assert len(told("token", "list")) == 1
    assert told("clock", "advance", "1ms") == {"now": before + 60, "calls": 1}
    assert told("token", "list") == []


def test_statistics_by_queue_and_by_operation(guest: ScsiGuest) -> None:
    """Shown, begun, ended, begun anew."""
    done("stats", "--reset")
    assert "there were no requests" in done("stats", "--by-operation", "on")
    for _ in range(3):
        assert guest.initiator.write(0, 0, 1, bytes(512)).good
    text = done("stats", "--by-operation", "off")
    assert "WRITE(16)" in text
    assert "alone" in text
    (export,) = told("stats")["exports"]
    assert export["operations"][0]["bytes"] == 3 * 512
    assert copies_none() == "no copy runs\n"


def copies_none() -> str:
    """The list of copies, of which there are none."""
    assert told("copy", "list") == []
    return done("copy", "list")


def test_top_looks_once_in_a_pipe(guest: ScsiGuest) -> None:
    """With the rates of one interval."""
    guest.initiator.token(0, [Range(0, 8)])
    text = done("top", "--interval", "0.2")
    assert "1 of 1 exports connected, 0 copies, 1 tokens, virtual clock" in text
    assert "copy-before-write" in text or "reflink" in text
    frame = told("top", "--interval", "0.1")
    assert frame["exports"][0]["connected"] is True
    assert frame["exports"][0]["mean-microseconds"] is None, "nothing happened meanwhile"
    assert frame["exports"][0]["requests"] > 0
    lines = done("top", "--interval", "0.1", "--count", "2", "--json").splitlines()
    assert ["exports" in json.loads(line) for line in lines] == [True, True]


def test_top_lives_on_a_terminal() -> None:
    """On the other screen, again and again, until it is interrupted; then all is as before."""
    master, slave = pty.openpty()
    command = [sys.executable, "-m", "qemu_odx", "top", "--interval", "0.1"]
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "120", "LINES": "40"}
    with subprocess.Popen(command, stdout=slave, stderr=slave, stdin=slave, env=environment) as process:
        os.close(slave)
        seen = b""
        deadline = time.monotonic() + 60
        while seen.count(b"exports connected") < 3 and time.monotonic() < deadline:
            if select.select([master], [], [], 1)[0]:
                seen += os.read(master, 65536)
        process.send_signal(2)
        with contextlib.suppress(OSError):  # there is nobody at the other end any more
            while select.select([master], [], [], 60)[0]:  # who is not read cannot end
                seen += os.read(master, 65536)
        process.wait(60)
    os.close(master)
    assert process.returncode == 0
    assert seen.count(b"exports connected") >= 3
    assert b"\x1b[?1049h" in seen
    assert b"\x1b[?1049l" in seen
    assert b"Traceback" not in seen


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["token", "revoke", "0" * 16], 1, "no live token is named"),
        (["token", "list", "--disk", "nothing"], 1, "no disk is named 'nothing': there are d0, d1"),
        (["stats", "--export", "nothing"], 1, "no export is named 'nothing': there are scsi"),
        (["copy", "abort", "12345"], 1, "no running copy"),
        (["disk", "add", "id=d0,path=y.img,size=1M"], 1, "choose another id"),
        (["disk", "add", "id=y,size=1X,path=y"], 2, "is no size"),
        (["disk", "add", "nonsense"], 2, "not of the form key=value"),
        (["disk", "remove", "d0"], 1, "is shown by scsi: remove these first"),
        (["disk", "resize", "d0", "huge"], 2, "is no size"),
        (["export", "add", "type=vhost-user-blk,socket=y.sock,disk=y"], 1, "no disk is named 'y'"),
        (["export", "remove", "nothing"], 1, "no export is named"),
        (["clock", "advance", "soon"], 2, "is no duration"),
        (["top", "--interval", "0"], 2, "interval"),
        (["token", "list", "--monitor", "/no/m.sock"], 3, "no server listens at /no/m.sock: start one with"),
    ],
)
def test_what_cannot_be_done_is_one_sentence(words: list[str], code: int, said: str) -> None:
    """And an exit code: 1 refused, 2 wrong usage, 3 no server."""
    result = run(*words)
    flat = " ".join(result.stderr.replace("│", " ").split())
    assert (result.exit_code, said in flat) == (code, True), result.stderr
    assert result.stdout == ""
    result = run(*words, "--json")
    failure = json.loads(result.stdout)
    assert (result.exit_code, failure["ok"], said in failure["error"]) == (code, False, True)
    assert bool(failure.get("class")) == (code == 1)


def test_without_a_monitor_the_cure_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """The option and the variable."""
    monkeypatch.delenv("QEMU_ODX_MONITOR")
    result = run("token", "list")
    assert result.exit_code == 2
    assert "QEMU_ODX_MONITOR" in result.stderr


def test_who_listens_may_be_no_monitor(monkeypatch: pytest.MonkeyPatch) -> None:
    """A vhost-user socket waits for its front end to speak first."""
    monkeypatch.setattr("qemu_odx.cli.monitor_client._CONNECT_SECONDS", 0.3)
    result = run("disk", "list", "--monitor", "s.sock")
    assert (result.exit_code, "is it a monitor?" in result.stderr) == (3, True), result.stderr
