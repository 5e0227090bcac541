"""The disk server as a program: its command line, and what the lab makes of one that does not start."""

from __future__ import annotations

from pathlib import Path

import pytest

from qemu_odx.lab.backend import Backend, BlkExport, DiskSpec, ScsiExport, serve_command
from qemu_odx.lab.errors import LabError

READY = """printf '{"ready": true, "exports": []}\\n'; """


def shell(script: str) -> list[str]:
    """A program that does what a shell script says."""
    return ["sh", "-c", script]


def test_command_line_names_disks_and_exports() -> None:
    """The server is started just as a user would start it."""
    command = serve_command(
        [
            DiskSpec("d0", Path("/r/a.img"), 4096, "one"),
            DiskSpec("d1", Path("/r/b.img"), 8192, "two", {"block-size": "4096"}),
        ],
        [ScsiExport(Path("/r/s.sock"), ("d0", "d1")), BlkExport(Path("/r/b.sock"), "d1")],
    )
    assert command[-10:] == [
        "serve",
        "--json",
        "--disk",
        "id=d0,path=/r/a.img,size=4096,serial=one",
        "--disk",
        "id=d1,path=/r/b.img,size=8192,serial=two,block-size=4096",
        "--export",
        "type=vhost-user-scsi,socket=/r/s.sock,lun0=d0,lun1=d1",
        "--export",
        "type=vhost-user-blk,socket=/r/b.sock,disk=d1",
    ]


def test_ready_server_is_stopped_by_sigterm(tmp_path: Path) -> None:
    """It gets the chance to flush and to end with 0."""
    script = f"trap 'exit 0' TERM; {READY} while :; do sleep 0.05; done"
    backend = Backend(shell(script), tmp_path / "log")
    backend.check()
    assert backend.stop() == 0


def test_server_that_fails_at_once_is_quoted(tmp_path: Path) -> None:
    """The last line it wrote is the reason."""
    with pytest.raises(LabError, match="did not start: image locked") as caught:
        Backend(shell("echo before >&2; echo qemu-odx serve: image locked >&2; exit 1"), tmp_path / "log")
    assert caught.value.details == "before"


def test_server_that_tells_its_error_is_quoted_before_it_has_logged_it(tmp_path: Path) -> None:
    """The object says why."""
    script = """echo '{"ok": false, "error": "image locked"}'; exec sleep 600"""
    with pytest.raises(LabError, match="did not start: image locked"):
        Backend(shell(script), tmp_path / "log")


def test_server_that_says_something_else_is_not_ready(tmp_path: Path) -> None:
    """Only the agreed object means ready."""
    with pytest.raises(LabError, match="did not start"):
        Backend(shell("echo '[1]'; exec sleep 600"), tmp_path / "log")


def test_silent_server_is_given_up(tmp_path: Path) -> None:
    """A server that says nothing is stopped after the patience is over."""
    with pytest.raises(LabError, match="not ready in time"):
        Backend(shell("exec sleep 600"), tmp_path / "log", patience=0.2)


def test_server_that_ended_is_noticed(tmp_path: Path) -> None:
    """A server that dies during a run is named as the cause."""
    backend = Backend(shell(f"{READY} echo broken >&2; exit 3"), tmp_path / "log")
    assert backend.stop() in {3, -15}
    with pytest.raises(LabError, match="ended by itself"):
        backend.check()
