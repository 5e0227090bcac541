"""Faults that end something: the connection, the process; and the rules of the command line."""

from __future__ import annotations

import signal
import time
from typing import TYPE_CHECKING

import pytest
from fault_rig import BLOCK, fault_arguments
from guests import Blk, eventually

from qemu_odx.testing.faults import FaultError, GuestFaults
from qemu_odx.testing.scsi_guest import ScsiGuest
from qemu_odx.testing.serve import ServeProcess, run_serve
from qemu_odx.wire.virtio import blk as wire
from qemu_odx.wire.virtio.blk import RequestType

if TYPE_CHECKING:
    from pathlib import Path


def image(folder: Path, sector: int) -> bytes:
    """One sector of d0 as the host finds it."""
    with (folder / "d0.img").open("rb") as file:
        file.seek(sector * BLOCK)
        return file.read(BLOCK)


def until_dead(server: ServeProcess) -> int:
    """Wait for the end of the process; what ended it."""
    deadline = time.monotonic() + 60
    while server.alive:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return server.terminate()


@pytest.mark.parametrize(("when", "written"), [("before", False), ("after", True)])
def test_kill_backend(tmp_path: Path, when: str, written: bool) -> None:
    """SIGKILL at the second write, before or after it is on the disk; its successor runs it again."""
    rule = f"export=b.sock,op=OUT,nth=2,action=kill-backend,when={when}"
    with ServeProcess(fault_arguments(tmp_path, "--fault", rule), cwd=tmp_path) as server:
        guest = Blk(str(tmp_path / "b.sock")).go()
        with guest.front:
            guest.write(7, b"a" * BLOCK)
            request = guest.queue.submit(wire.HEADER.pack(RequestType.OUT, 0, 8) + b"b" * BLOCK, 1)
            assert until_dead(server) == -signal.SIGKILL
            assert request.written is None
            assert image(tmp_path, 7) == b"a" * BLOCK
            assert image(tmp_path, 8) == (b"b" if written else b"\0") * BLOCK
            with ServeProcess(fault_arguments(tmp_path), cwd=tmp_path):
                guest.front.resume()
                while request.written is None:
                    guest.queue.completions()
                assert request.data_in == b"\0"
                assert guest.read(8, BLOCK) == b"b" * BLOCK


@pytest.mark.parametrize("when", ["before", "after"])
def test_drop_connection(tmp_path: Path, when: str) -> None:
    """The socket closes; what was at hand is done, and the guest finds it when it is back."""
    rule = f"export=b.sock,op=OUT,count=1,action=drop-connection,when={when}"
    with ServeProcess(fault_arguments(tmp_path, "--fault", rule), cwd=tmp_path) as server:
        guest = Blk(str(tmp_path / "b.sock")).go()
        with guest.front:
            request = guest.queue.submit(wire.HEADER.pack(RequestType.OUT, 0, 8) + b"b" * BLOCK, 1)
            eventually(
                lambda: "the front end was dropped: a fault rule says so" in server.errors(), "not dropped"
            )
            guest.front.resume()
            eventually(lambda: bool(guest.queue.completions()) or request.written is not None, "lost")
            assert request.data_in == b"\0"
            assert guest.read(8, BLOCK) == b"b" * BLOCK
        assert server.alive


@pytest.mark.parametrize(
    ("action", "status", "written"),
    [("stall", 0, True), ("never-answer", 1, False), ("delay,seconds=3600", 0, True)],
)
def test_the_server_ends_with_what_is_held(tmp_path: Path, action: str, status: int, written: bool) -> None:
    """SIGTERM waits for nobody: what stalls or is delayed is done, what is never to be answered is given up."""
    rule = f"export=b.sock,op=OUT,action={action}"
    with ServeProcess(fault_arguments(tmp_path, "--fault", rule), cwd=tmp_path) as server:
        guest = Blk(str(tmp_path / "b.sock")).go()
        with guest.front:
            request = guest.queue.submit(wire.HEADER.pack(RequestType.OUT, 0, 8) + b"b" * BLOCK, 1)
            guest.request(RequestType.GET_ID, room=20)
            guest.queue.completions()
            assert request.written is None
            assert server.terminate() == 0
            guest.queue.completions()
            assert request.data_in == bytes([status])
    assert image(tmp_path, 8) == (b"b" if written else b"\0") * BLOCK


def test_the_command_line_arms_rules_and_layers(tmp_path: Path) -> None:
    """Rules are in force with the first request; a disk that one can break gets its layer, others do not."""
    arguments = fault_arguments(
        tmp_path,
        *("--fault", "name=bad,op=READ(16),disk=d0,sense=unrecovered-read-error"),
        *("--fault", "disk=d1,action=disk-error,op=disk-read"),
        *("--fault", "name=later,action=stall,armed=off"),
        "--guest-control",
        layers="",
    )
    with ServeProcess(arguments, cwd=tmp_path), ScsiGuest(tmp_path / "s.sock") as guest:
        assert guest.initiator.read(0, 0, 1).fault == (3, 0x11, 0)
        assert guest.initiator.read(1, 0, 1).fault == (3, 0x11, 0)
        faults = GuestFaults(guest.initiator)
        assert [(item["name"], item["state"]) for item in faults.list()] == [
            ("bad", "armed"),
            ("disk-error-1", "armed"),
            ("later", "off"),
        ]
        with pytest.raises(FaultError, match=r"disk d0 has no layer for that: serve it with .*layers=faults"):
            faults.add("action=disk-error,disk=d0")
        faults.remove("bad")
        assert guest.initiator.read(0, 0, 1).good


def test_without_guest_control_the_commands_do_not_exist(tmp_path: Path) -> None:
    """20/00, and absent from the list of supported commands."""
    with ServeProcess(fault_arguments(tmp_path), cwd=tmp_path), ScsiGuest(tmp_path / "s.sock") as guest:
        assert guest.initiator.command(0, "3b010000000000000400", b"arm ").fault == (5, 0x20, 0)
        assert guest.initiator.command(0, "3c010000000000001000").fault == (5, 0x20, 0)
        listed = guest.initiator.command(0, "a30c0000000000001000").data[4:]
        assert not {0x3B, 0x3C} & set(listed[::8])


@pytest.mark.parametrize(
    ("rule", "told"),
    [
        ("action=nothing", "--fault action=nothing: 'nothing' is no action; actions are"),
        ("action=stall,disk=d9", "there is no disk 'd9', only d0, d1"),
        ("action=stall,export=m2.sock", "there is no export 'm2.sock', only export0, export1, export2"),
        ("stall", "--fault stall: 'stall' is not of the form key=value"),
    ],
)
def test_wrong_rules_on_the_command_line(tmp_path: Path, rule: str, told: str) -> None:
    """Exit status 2, and why."""
    done = run_serve(fault_arguments(tmp_path, "--fault", rule), cwd=tmp_path)
    assert (done.returncode, told in done.stderr) == (2, True), done.stderr
    assert not (tmp_path / "d0.img").exists()
