"""Silent corruption under a running server: found, and told with the names of requests; power cut by the monitor."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from guests import Blk, eventually

from qemu_odx.cli.monitor_client import MonitorClient, MonitorFailure, NoServerError
from qemu_odx.testing.scsi_guest import ScsiGuest
from qemu_odx.testing.serve import ServeProcess
from qemu_odx.wire.scsi.token_lists import Range
from qemu_odx.wire.virtio import blk

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

BLOCKS = 4096


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ServeProcess]:
    """A verified disk whose power can be cut, by SCSI and by virtio-blk; a plain one beside it."""
    layers = "layers=verify+power-cut,verify-record=record"
    arguments = [
        *("--disk", f"id=d0,path=d0.img,size={BLOCKS * 512},{layers}"),
        *("--disk", f"id=d1,path=d1.img,size={BLOCKS * 512}"),
        *("--export", "type=vhost-user-scsi,socket=s.sock,lun0=d0,lun1=d1"),
        *("--export", "type=vhost-user-blk,socket=b.sock,disk=d0"),
        *("--monitor", "m.sock"),
    ]
    with ServeProcess(arguments, cwd=tmp_path) as process:
        yield process


def corrupt(folder: Path, block: int) -> None:
    """Behind everybody's back."""
    with (folder / "d0.img").open("r+b") as image:
        image.seek(block * 512)
        image.write(b"?" * 512)


def test_the_request_that_wrote_a_wrong_block_is_named(server: ServeProcess) -> None:
    """Written by SCSI, found by virtio-blk: in the log, as an event, by a query, and in the end."""
    folder = server.cwd
    with MonitorClient(str(folder / "m.sock")) as monitor, ScsiGuest(folder / "s.sock") as guest:
        assert guest.initiator.write(0, 100, 8, os.urandom(4096)).good
        corrupt(folder, 103)
        reader = Blk(str(folder / "b.sock")).go()
        reader.read(0, 512 * 512)
        reader.front.close()
        event = monitor.next_event(60)
        while event is not None and event["event"] != "ODX_CORRUPTION_FOUND":
            event = monitor.next_event(60)
        assert event is not None
        assert event["data"]["block"] == 103
        (found,) = monitor.execute("query-odx-corruption")
        assert (found["disk"], found["wrong"]) == ("d0", 1)
        first = found["first"]
        assert found["blocks"] == [first]
        assert (first["block"], first["overlapping"]) == (103, [])
        assert first["written-by"]["request"].startswith("WRITE(16) #")
        assert first["written-by"]["request"].endswith("of export0")
        assert (first["written-by"]["offset"], first["written-by"]["length"]) == (51200, 4096)
        assert first["found-by"].startswith("IN #")
        assert first["found-by"].endswith("queue 0 head 0 of export1")
        assert "WRITE(16) #" in server.errors()
        with pytest.raises(MonitorFailure, match="disk 'd1' is not verified: add layers=verify"):
            monitor.execute("odx-corruption-scan", {"disk": "d1"})
    assert server.terminate() == 0
    assert "disk d0: 1 blocks were wrong" in server.errors()


def test_what_tokens_write_and_show_is_verified(server: ServeProcess) -> None:
    """A copy onto the disk is known by its command; old data that goes wrong is found when the token is used."""
    folder = server.cwd
    with MonitorClient(str(folder / "m.sock")) as monitor, ScsiGuest(folder / "s.sock") as guest:
        initiator = guest.initiator
        assert initiator.write(1, 0, 8, os.urandom(4096)).good
        assert initiator.write_token(0, initiator.token(1, [Range(0, 8)]), [Range(200, 8)]).good
        token = initiator.token(0, [Range(200, 8)])
        assert initiator.write_token(1, token, [Range(64, 8)]).good
        assert monitor.execute("odx-corruption-scan", {"disk": "d0"})["wrong"] == 0
        corrupt(folder, 205)
        assert initiator.write_token(1, token, [Range(64, 8)]).good
        (found,) = monitor.execute("query-odx-corruption", {"disk": "d0"})
        assert found["first"]["block"] == 205
        assert found["first"]["found-by"] == "a token's copy from disk d0"
        assert found["first"]["written-by"]["request"].startswith("WRITE USING TOKEN #")


def test_corruption_between_two_runs_is_found(server: ServeProcess) -> None:
    """The record tells the second server what the first one's guest wrote."""
    folder = server.cwd
    with ScsiGuest(folder / "s.sock") as guest:
        assert guest.initiator.write(0, 7, 1, b"w" * 512).good
    assert server.terminate() == 0
    corrupt(folder, 7)
    arguments = [
        *("--disk", "id=d0,path=d0.img,layers=verify,verify-record=record,verify-scan=on"),
        *("--export", "type=vhost-user-scsi,socket=s.sock,lun0=d0"),
    ]
    with ServeProcess(arguments, cwd=folder) as second:
        assert "block 7 (byte 3584) is wrong: a scan found" in second.errors()
        assert "written last by write 0 (WRITE(16) #" in second.errors()


def test_nothing_is_wrong_when_nothing_is(server: ServeProcess) -> None:
    """Both devices at once, without and with flushes, discards, zeroes."""
    folder = server.cwd
    with MonitorClient(str(folder / "m.sock")) as monitor, ScsiGuest(folder / "s.sock") as guest:
        other = Blk(str(folder / "b.sock")).go()
        for number in range(60):
            assert guest.initiator.write(0, number * 5, 8, os.urandom(4096)).good
            other.write(number * 7 + 3, os.urandom(2048))
            segment = blk.SEGMENT.pack(number * 3, 4, 0)
            assert other.request(blk.RequestType.DISCARD, data=segment) == (blk.Status.OK, b"")
            assert other.request(blk.RequestType.FLUSH) == (blk.Status.OK, b"")
            assert guest.initiator.read(0, number * 4, 16).good
        other.front.close()
        found = monitor.execute("odx-corruption-scan", {"disk": "d0"})
        assert (found["wrong"], found["blocks"], "first" in found) == (0, [], False)
        assert found["checked"] > BLOCKS


def test_a_look_at_what_a_crash_would_leave(server: ServeProcess) -> None:
    """A file of its own; flushed data are in it whatever the seed; then the power does go."""
    folder = server.cwd
    with MonitorClient(str(folder / "m.sock")) as monitor:
        guest = Blk(str(folder / "b.sock")).go()
        guest.write(0, b"f" * 4096)
        assert guest.request(blk.RequestType.FLUSH) == (blk.Status.OK, b"")
        guest.write(8, b"v" * 4096)
        pictures = set()
        for seed in range(8):
            path = folder / f"{seed}.img"
            cut = monitor.execute("odx-power-cut", {"disk": "d0", "image": str(path), "seed": seed})
            assert (cut["volatile"], cut["seed"]) == (8, seed)
            picture = path.read_bytes()
            assert len(picture) == BLOCKS * 512
            assert picture.startswith(b"f" * 4096)
            pictures.add(picture)
        assert len(pictures) > 1
        assert guest.read(8, 4096) == b"v" * 4096
        with pytest.raises(MonitorFailure, match="cannot be written"):
            monitor.execute("odx-power-cut", {"disk": "d0", "image": str(path)})
        with pytest.raises(MonitorFailure, match="'d1' has no power to cut: add layers=power-cut"):
            monitor.execute("odx-power-cut", {"disk": "d1", "image": str(folder / "x.img")})
        with pytest.raises(MonitorFailure, match="give 'image'"):
            monitor.execute("odx-power-cut", {"seed": 1})
        with pytest.raises((NoServerError, MonitorFailure)):  # the connection breaks
            monitor.execute("odx-power-cut")
        guest.front.close()
    eventually(lambda: not server.alive, "it did not end")
    assert server.terminate() == 3
    assert (folder / "d0.img").read_bytes().startswith(b"f" * 4096)


def test_a_disk_that_is_plugged_in_later(server: ServeProcess) -> None:
    """As a logical unit of an export that showed no such disk before, and by an export that is new."""
    folder = server.cwd
    with MonitorClient(str(folder / "m.sock")) as monitor:
        later = {"id": "d2", "path": str(folder / "d2.img"), "size": 1 << 20, "layers": "verify"}
        monitor.execute("odx-disk-add", later)
        plain = {"type": "vhost-user-scsi", "id": "late", "socket": str(folder / "late.sock")}
        monitor.execute("odx-export-add", plain | {"units": [{"lun": 0, "disk": "d1"}]})
        monitor.execute("odx-unit-add", {"export": "late", "lun": 1, "disk": "d2"})
        with ScsiGuest(folder / "late.sock") as guest:
            assert guest.initiator.write(1, 3, 1, b"w" * 512).good
            with (folder / "d2.img").open("r+b") as image:
                image.seek(3 * 512)
                image.write(b"?")
            assert guest.initiator.read(1, 3, 1).good
        (found,) = monitor.execute("query-odx-corruption", {"disk": "d2"})
        assert found["first"]["written-by"]["request"].startswith("WRITE(16) #")


@pytest.mark.parametrize(
    ("rule", "wrong"),
    [
        ("action=bit-flip,way=out,byte=513,bit=0,count=1", [101]),
        ("action=torn-write,bytes=1536,report=ok,count=1", [103, 104, 105, 106, 107]),
    ],
    ids=["a bit", "a lost part"],
)
def test_it_finds_what_fault_rules_do(tmp_path: Path, rule: str, wrong: list[int]) -> None:
    """A disk below it that writes a wrong bit, or says that all was written."""
    arguments = [
        *("--disk", f"id=d0,path=d0.img,size={BLOCKS * 512},layers=verify+faults"),
        *("--export", "type=vhost-user-scsi,socket=s.sock,lun0=d0"),
        *("--monitor", "m.sock", "--fault", f"disk=d0,{rule}"),
    ]
    with (
        ServeProcess(arguments, cwd=tmp_path) as server,
        ScsiGuest(tmp_path / "s.sock") as guest,
        MonitorClient(str(tmp_path / "m.sock")) as monitor,
    ):
        assert guest.initiator.write(0, 100, 8, os.urandom(4096)).good
        assert guest.initiator.write(0, 200, 8, os.urandom(4096)).good
        assert guest.initiator.read(0, 96, 128).good
        (found,) = monitor.execute("query-odx-corruption")
        assert [block["block"] for block in found["blocks"]] == wrong
        assert all(block["written-by"]["request"].startswith("WRITE(16) #") for block in found["blocks"])
        assert found["first"]["text"] in server.errors()


def test_after_a_cut_the_record_begins_anew(server: ServeProcess) -> None:
    """What was lost was lost with the power: no false alarm in the next run."""
    folder = server.cwd
    with ScsiGuest(folder / "s.sock") as guest:
        for lba in range(0, 2048, 8):
            assert guest.initiator.write(0, lba, 8, os.urandom(4096)).good
        with MonitorClient(str(folder / "m.sock")) as monitor, pytest.raises((NoServerError, MonitorFailure)):
            monitor.execute("odx-power-cut")
    assert server._process.wait(60) == 3
    assert " 0 of them are lost" not in server.errors()
    arguments = [
        *("--disk", "id=d0,path=d0.img,layers=verify,verify-record=record,verify-scan=on"),
        *("--export", "type=vhost-user-scsi,socket=s.sock,lun0=d0"),
    ]
    with ServeProcess(arguments, cwd=folder) as second:
        assert second.errors() == ""


def qemu_odx(server: ServeProcess, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The command line, on the server's monitor."""
    environment = {**os.environ, "QEMU_ODX_MONITOR": str(server.cwd / "m.sock")}
    command = [sys.executable, "-m", "qemu_odx", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60, check=False)


def test_the_command_line(server: ServeProcess) -> None:
    """Findings with an exit code of their own; a picture; a cut."""
    folder = server.cwd
    with ScsiGuest(folder / "s.sock") as guest:
        assert guest.initiator.write(0, 9, 1, b"w" * 512).good
    done = qemu_odx(server, "corruption", "scan", "--disk", "d0")
    assert (done.returncode, done.stdout) == (0, "disk d0: 0 wrong of 4096 blocks compared\n")
    corrupt(folder, 9)
    done = qemu_odx(server, "corruption", "scan", "--disk", "d0", "--json")
    assert done.returncode == 4
    assert json.loads(done.stdout)[0]["first"]["block"] == 9
    done = qemu_odx(server, "corruption", "show")
    assert done.returncode == 4
    assert "block 9 (byte 4608) is wrong: a scan found" in done.stdout
    done = qemu_odx(server, "corruption", "scan", "--disk", "d1")
    assert (done.returncode, "add layers=verify" in done.stderr) == (1, True)
    done = qemu_odx(
        server, "power", "picture", "--disk", "d0", "--image", str(folder / "p.img"), "--seed", "3"
    )
    assert done.returncode == 0, done.stderr
    assert "blocks that were not flushed are lost (seed 3)" in done.stdout
    assert (folder / "p.img").stat().st_size == BLOCKS * 512
    done = qemu_odx(server, "power", "picture", "--disk", "d0", "--image", str(folder / "p.img"))
    assert (done.returncode, "(File exists): choose another file" in done.stderr) == (1, True), done.stderr
    done = qemu_odx(server, "power", "cut", "--json")
    assert (done.returncode, json.loads(done.stdout)) == (0, {"cut": True})
    assert server._process.wait(60) == 3
    assert qemu_odx(server, "power", "cut").returncode == 3
