"""A session recorded by the real server over real sockets; looked at, and replayed without any guest."""

from __future__ import annotations

import json
import os
import random
import stat
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner
from guests import Blk

from qemu_odx.cli.monitor_client import MonitorClient
from qemu_odx.cli.replay import replay
from qemu_odx.cli.trace import trace
from qemu_odx.target import copying
from qemu_odx.testing.mailbox import MailboxClient
from qemu_odx.testing.scsi_guest import ScsiGuest
from qemu_odx.testing.serve import ServeProcess
from qemu_odx.wire.scsi import sense
from qemu_odx.wire.scsi.token_lists import Range
from qemu_odx.wire.virtio import blk
from qemu_odx.wire.virtio.scsi import TaskManagement

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from qemu_odx.testing.initiator import Initiator

MIB = 1 << 20
OLD = os.urandom(MIB)


def scsi_session(near: Initiator) -> None:
    """Tokens made, used, damaged, unknown, deleted; reads, writes, refusals."""
    assert near.command(0, "12018f000400").good
    assert near.command(0, "9e1000000000000000000000002000").good
    assert near.read(0, 0, 2048).data == OLD
    token = near.token(0, [Range(0, 2048)])
    assert near.write(0, 0, 128, bytes(65536)).good
    assert near.unmap(0, [Range(128, 128)]).good
    assert near.write_token(1, token, [Range(1000, 1000), Range(4000, 1048)], identifier=500).good
    assert near.information(1, 500).good
    assert near.read(1, 1000, 1000).data == OLD[: 1000 * 512]
    assert near.write_token(1, token, [Range(9000, 8)], immediate=True, identifier=501).good
    while near.information(1, 501).data[5] != 0x01:
        pass
    damaged = bytearray(token)
    damaged[300] ^= 0xFF
    assert near.write_token(1, bytes(damaged), [Range(0, 1)]).fault == (5, 0x23, 0x04)
    damaged = bytearray(token)
    damaged[100] ^= 1
    assert near.write_token(1, bytes(damaged), [Range(0, 1)]).fault == (5, 0x23, 0x05)
    stranger = token[:8] + os.urandom(8) + token[16:256] + os.urandom(256)
    assert near.write_token(1, stranger, [Range(0, 1)]).fault == (5, 0x23, 0x04)
    assert near.write_token(1, token, [Range(0, 8)], delete=True).good
    assert near.write_token(1, token, [Range(0, 8)]).fault == (5, 0x23, 0x09)
    assert near.read(0, 1 << 40, 1).fault == (5, 0x21, 0x00)
    assert near.command(0, "840800000000000000000000040000").good  # REPORT ALL ROD TOKENS


def session(folder: Path) -> None:
    """SCSI in two lives of a driver, with a reset; virtio-blk; the mailbox."""
    with ScsiGuest(folder / "s.sock") as guest:
        scsi_session(guest.initiator)
        assert guest.task_management(TaskManagement.LOGICAL_UNIT_RESET, 0) == 0
        assert guest.initiator.command(0, "00").fault == (6, 0x29, 0x00)
    with ScsiGuest(folder / "s.sock") as guest:
        assert guest.initiator.read(1, 4000, 8).good
    plain = Blk(str(folder / "b.sock")).go()
    with plain.front:
        plain.write(20000, OLD[:65536])
        assert plain.read(20000, 65536) == OLD[:65536]
        assert plain.request(blk.RequestType.FLUSH)[0] == blk.Status.OK
        segment = blk.SEGMENT.pack(20008, 8, 0)
        assert plain.request(blk.RequestType.DISCARD, 0, segment)[0] == blk.Status.OK
        assert plain.read(20000, 16384)[4096:8192] == bytes(4096)
        assert plain.request(blk.RequestType.GET_ID, room=20)[1].startswith(b"d1")
        assert plain.request(blk.RequestType.IN, 1 << 40, room=512)[0] == blk.Status.IOERR
    boxed = Blk(str(folder / "m.sock")).go()
    with boxed.front:
        client = MailboxClient(boxed.write, boxed.read).initiator()
        token = client.token(0, [Range(40000, 64)])
        assert client.write_token(0, token, [Range(50000, 64)]).good
        boxed.read(50000, 32768)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The trace of that session."""
    folder = tmp_path_factory.mktemp("traced")
    (folder / "a.img").write_bytes(OLD + bytes(15 * MIB))
    arguments = [
        *("--disk", "id=d0,path=a.img,serial=d0"),
        *("--disk", "id=d1,path=b.img,size=64M,serial=d1"),
        *("--export", "id=scsi,type=vhost-user-scsi,socket=s.sock,lun0=d0,lun1=d1"),
        *("--export", "id=blk,type=vhost-user-blk,socket=b.sock,disk=d1"),
        *("--export", "id=boxed,type=vhost-user-blk,socket=m.sock,disk=d1,mailbox=on"),
        *("--trace", "t.jsonl,data=on"),
    ]
    with ServeProcess(arguments, cwd=folder) as server:
        session(folder)
        assert server.terminate() == 0
    return folder / "t.jsonl"


def run(*arguments: object, code: int = 0, command: Any = replay) -> str:
    """Call `qemu-odx replay` or `trace`."""
    result = CliRunner().invoke(command, [str(argument) for argument in arguments])
    assert result.exit_code == code, result.output
    return result.stdout


def records(file: Path, *arguments: str) -> list[dict[str, Any]]:
    """What `trace show` finds."""
    lines = run("show", file, "--json", *arguments, command=trace).splitlines()
    return [json.loads(line) for line in lines]


def test_everything_is_in_the_trace(file: Path) -> None:
    """Messages, requests of every export, tokens, copies, comings and goings; nothing open, nothing dropped."""
    found = records(file)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert found[-1]["event"] == "end"
    assert found[-1]["dropped"] == 0
    assert found[-1]["records"] == len(found) - 1
    assert [item["id"] for item in found[0]["exports"]] == ["scsi", "blk", "boxed"]
    events = Counter(item["event"] for item in found)
    assert {"message", "request", "token", "copy", "export", "disk"} <= events.keys()
    messages = Counter(item["name"] for item in found if item["event"] == "message")
    assert messages["SET_VRING_ADDR"] >= 8
    features = next(item for item in found if item.get("name") == "SET_FEATURES")
    assert "VERSION_1" in features["features"]
    comings = [(item["export"], item["what"]) for item in found if item["event"] == "export"]
    assert comings.count(("scsi", "connected")) == comings.count(("scsi", "left")) == 2
    causes = [item.get("cause") for item in found if item["event"] == "token"]
    assert causes == [None, "deleted", None]
    assert not [item for item in found if item.get("status") == "open"]
    kinds = Counter((item["export"], item["kind"]) for item in found if item["event"] == "request")
    assert kinds["boxed", "scsi"] >= 4
    assert kinds["boxed", "blk"] > kinds["boxed", "scsi"]
    assert kinds["scsi", "control"] == 1


def test_one_token_from_birth_to_death(file: Path) -> None:
    """By its name: made, told, used, refused after its end."""
    token = next(item["token"] for item in records(file) if item["event"] == "token")
    names = [item.get("name", item.get("what")) for item in records(file, "--token", token)[1:-1]]
    assert names[0] == "minted"
    assert names.count("WRITE USING TOKEN") >= 5
    assert "ended" in names
    assert "deleted at" in run("stats", file, command=trace)


def test_the_replay_is_the_same(file: Path) -> None:
    """Every request that can be compared; the mailbox as the commands that it carried; the same each time."""
    found = json.loads(run(file, "--json"))
    assert found["differences"] == []
    assert found["same"] is True
    requests = [item for item in records(file) if item["event"] == "request"]
    assert found["replayed"] + sum(found["skipped"].values()) == len(requests)
    assert found["compared"] >= 35
    assert set(found["skipped"]) == {"cannot be done on this device, or is in the window of a mailbox"}
    assert set(found["uncompared"]) <= {"depends on time"}
    assert json.loads(run(file, "--json")) == found
    assert run(file).splitlines()[-1].startswith("SAME: ")


def test_a_wrong_byte_of_a_copy_is_found(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At the first read of what was copied, and the exit code says so."""
    real: Callable[..., Any] = copying.copy_rod

    def wrong(*given: Any, **more: Any) -> Any:
        result = real(*given, **more)
        destination, extents = given[2:4]
        destination.write(extents[0].offset, [b"\xff" * destination.block_size])
        return result

    monkeypatch.setattr("qemu_odx.target.commands.write_token.copy_rod", wrong)
    output = run(file, "--stop", code=1)
    first = output.splitlines()[0]
    assert first.startswith("scsi #")
    assert "READ(16): data: recorded sha256" in first
    assert "1 ended otherwise" in output


def test_another_answer_is_found(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Parameter data of which one byte differs; a sense that differs."""
    monkeypatch.setattr("qemu_odx.target.lun.LogicalUnit.physical_exponent", 5)
    found = json.loads(run(file, "--json", code=1))
    assert {item["what"] for item in found["differences"]} >= {"data"}
    monkeypatch.undo()
    monkeypatch.setattr("qemu_odx.wire.scsi.sense.LBA_OUT_OF_RANGE", sense.INVALID_FIELD_IN_CDB)
    found = json.loads(run(file, "--json", code=1))
    assert [(item["name"], item["what"]) for item in found["differences"]] == [("READ(16)", "sense")]
    assert "21/00" in found["differences"][0]["recorded"]


def test_what_a_recording_cannot_tell(file: Path, tmp_path: Path) -> None:
    """Without the initial content: given as an image, or its reads are not compared and its copies neither."""
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    without = tmp_path / "without.jsonl"
    kept = [item for item in lines if not (item["event"] == "disk" and item["disk"] == "d0")]
    without.write_text("".join(json.dumps(item) + "\n" for item in kept))
    found = json.loads(run(without, "--json"))
    assert found["uncompared"]["data that were there before the recording, or raced"] >= 2
    image = tmp_path / "a.img"
    image.write_bytes(OLD + bytes(15 * MIB))
    complete = json.loads(run(without, "--image", f"d0={image}", "--json"))
    assert complete == json.loads(run(file, "--json")) | {"file": str(without)}
    image.write_bytes(bytes([OLD[0] ^ 1]) + OLD[1:] + bytes(15 * MIB))
    wrong = json.loads(run(without, "--image", f"d0={image}", "--json", code=1))
    assert wrong["differences"][0]["name"] == "READ(16)"
    image.write_bytes(b"short")
    assert (
        "give the image as it was"
        in CliRunner().invoke(replay, [str(without), "--image", f"d0={image}"]).stderr
    )


def test_a_trace_without_data_cannot_be_replayed(tmp_path: Path) -> None:
    """Exit code 3, and the cure."""
    arguments = [
        "--disk",
        "id=d0,path=a.img,size=1M",
        "--export",
        "type=vhost-user-blk,socket=b.sock,disk=d0",
    ]
    with ServeProcess([*arguments, "--trace", "t.jsonl,events=request"], cwd=tmp_path) as server:
        guest = Blk(str(tmp_path / "b.sock")).go()
        with guest.front:
            guest.write(0, bytes(512))
        assert server.terminate() == 0
    assert {item["event"] for item in records(tmp_path / "t.jsonl")} == {"trace", "request", "end"}
    result = CliRunner().invoke(replay, [str(tmp_path / "t.jsonl")])
    assert result.exit_code == 3
    assert "data=on" in result.stderr


def test_a_recording_begun_and_ended_by_the_monitor(tmp_path: Path) -> None:
    """In the middle of a session: what was before is not in it, and the rest can be replayed."""
    arguments = [
        *("--disk", "id=d0,path=a.img,size=16M"),
        *("--export", "id=scsi,type=vhost-user-scsi,socket=s.sock,lun0=d0"),
        *("--monitor", "m.sock"),
    ]
    path, monitor = tmp_path / "t.jsonl", tmp_path / "m.sock"
    with ServeProcess(arguments, cwd=tmp_path) as server, ScsiGuest(tmp_path / "s.sock") as guest:
        near = guest.initiator
        near.write(0, 0, 8, OLD[:4096])
        before = near.token(0, [Range(0, 8)])
        assert "recording to" in run("start", path, "--data", "on", "--monitor", monitor, command=trace)
        assert CliRunner().invoke(trace, ["start", str(path), "--monitor", str(monitor)]).exit_code == 1
        near.write(0, 8, 8, OLD[:4096])
        near.read(0, 8, 8)
        near.read(0, 0, 8)
        near.write_token(0, before, [Range(100, 8)])
        after = near.token(0, [Range(8, 8)])
        near.write_token(0, after, [Range(200, 8)])
        near.read(0, 200, 8)
        assert "recorded: " in run("stop", "--monitor", monitor, command=trace)
        near.read(0, 8, 8)
        assert CliRunner().invoke(trace, ["stop", "--monitor", str(monitor)]).exit_code == 1
        assert server.alive
    found = records(path)
    assert found[0]["fresh"] is False
    assert [item["name"] for item in found if item["event"] == "request"] == [
        *("WRITE(16)", "READ(16)", "READ(16)", "WRITE USING TOKEN"),
        *("POPULATE TOKEN", "RECEIVE ROD TOKEN INFORMATION", "WRITE USING TOKEN", "READ(16)"),
    ]
    verdict = json.loads(run(path, "--json"))
    assert verdict["skipped"] == {"uses a token that was made before the recording": 1}
    assert verdict["uncompared"] == {"data that were there before the recording, or raced": 1}
    assert verdict["compared"] == 6


def test_faults_are_recorded_and_replayed(tmp_path: Path) -> None:
    """Which rule hit what; a command that was cut is cut again, one that a fault answered is not compared."""
    arguments = [
        *("--disk", "id=d0,path=a.img,size=16M"),
        *("--export", "id=scsi,type=vhost-user-scsi,socket=s.sock,lun0=d0"),
        *("--fault", "name=deny,op=READ(16),nth=2,action=sense,sense=token-expired"),
        *("--fault", "name=part,op=WRITE USING TOKEN,action=partial,blocks=3"),
        *("--trace", "t.jsonl,data=on"),
    ]
    path = tmp_path / "t.jsonl"
    with ServeProcess(arguments, cwd=tmp_path) as server, ScsiGuest(tmp_path / "s.sock") as guest:
        near = guest.initiator
        assert near.write(0, 0, 8, OLD[:4096]).good
        token = near.token(0, [Range(0, 8)])
        cut = near.write_token(0, token, [Range(100, 8)])
        assert not cut.good
        assert near.read(0, 100, 8).data == OLD[:1536] + bytes(4096 - 1536)
        assert near.read(0, 0, 8).fault == (5, 0x23, 0x07)
        assert near.read(0, 0, 8).good
        assert server.terminate() == 0
    fired = [item for item in records(path) if item["event"] == "fault"]
    assert [(item["rule"], item["name"], item["export"], item["disk"]) for item in fired] == [
        ("part", "WRITE USING TOKEN", "scsi", "d0"),
        ("deny", "READ(16)", "scsi", "d0"),
    ]
    assert "*** fault deny: sense on scsi d0 READ(16)" in run("show", path, command=trace)
    decided = [item for item in records(path) if "decision" in item]
    assert [item["name"] for item in decided] == ["WRITE USING TOKEN", "READ(16)"]
    verdict = json.loads(run(path, "--json"))
    assert verdict["differences"] == []
    assert verdict["skipped"] == {"answered by a fault, or never begun": 1}


def test_what_comes_and_goes_while_it_is_recorded(tmp_path: Path) -> None:
    """A disk and an export that were added are recorded and replayed; one that was removed is recorded no more."""
    arguments = ["--disk", "id=d0,path=a.img,size=16M", "--monitor", "m.sock", "--trace", "t.jsonl,data=on"]
    path = tmp_path / "t.jsonl"
    with ServeProcess(arguments, cwd=tmp_path) as server, MonitorClient(str(tmp_path / "m.sock")) as monitor:
        monitor.execute("odx-disk-add", {"id": "d1", "path": "b.img", "size": 16 * MIB})
        monitor.execute(
            "odx-export-add", {"id": "late", "type": "vhost-user-blk", "socket": "late.sock", "disk": "d1"}
        )
        guest = Blk(str(tmp_path / "late.sock")).go()
        with guest.front:
            guest.write(8, OLD[:4096])
            assert guest.read(8, 4096) == OLD[:4096]
        monitor.execute("odx-export-remove", {"id": "late"})
        assert server.terminate() == 0
    told = [(item["export"], item["what"]) for item in records(path) if item["event"] == "export"]
    assert told == [("late", "served"), ("late", "connected"), ("late", "left"), ("late", "removed")]
    verdict = json.loads(run(path, "--json"))
    assert (verdict["compared"], verdict["uncompared"], verdict["skipped"]) == (2, {}, {})


def test_time_and_the_host_are_replayed(tmp_path: Path) -> None:
    """A token that expired on the virtual clock, one that the monitor revoked, a fault of the disk itself."""
    arguments = [
        *("--disk", "id=d0,path=a.img,size=16M"),
        *("--export", "id=scsi,type=vhost-user-scsi,socket=s.sock,lun0=d0"),
        *("--monitor", "m.sock", "--clock", "virtual", "--trace", "t.jsonl,data=on"),
        *("--fault", "name=bad,disk=d0,op=WRITE,lba=5000-5007,action=disk-error"),
    ]
    path = tmp_path / "t.jsonl"
    with (
        ServeProcess(arguments, cwd=tmp_path) as server,
        MonitorClient(str(tmp_path / "m.sock")) as monitor,
        ScsiGuest(tmp_path / "s.sock") as guest,
    ):
        near = guest.initiator
        near.write(0, 0, 8, OLD[:4096])
        short, other = near.token(0, [Range(0, 8)], timeout=5), near.token(0, [Range(0, 8)], timeout=500)
        monitor.execute("odx-clock-advance", {"seconds": 4})
        assert near.write_token(0, short, [Range(100, 8)]).good
        monitor.execute("odx-clock-advance", {"seconds": 6})
        assert near.write_token(0, short, [Range(100, 8)]).fault == (5, 0x23, 0x07)
        assert near.write_token(0, other, [Range(200, 8)]).good
        (alive,) = monitor.execute("query-odx-tokens")
        monitor.execute("odx-token-revoke", {"token": alive["token"]})
        assert near.write_token(0, other, [Range(200, 8)]).fault == (5, 0x23, 0x06)
        assert near.write(0, 5000, 8, OLD[:4096]).fault == (3, 0x0C, 0x00)
        assert near.read(0, 100, 8).data == OLD[:4096]
        assert server.terminate() == 0
    found = records(path)
    assert [item.get("cause") for item in found if item["event"] == "token" and item["what"] == "ended"] == [
        "expired",
        "revoked",
    ]
    fired = [item for item in found if item["event"] == "fault"]
    assert [(item["rule"], item["level"], item["disk"]) for item in fired] == [("bad", "disk", "d0")]
    verdict = json.loads(run(path, "--json", code=1))
    assert [(item["name"], item["what"]) for item in verdict["differences"]] == [("WRITE(16)", "status")]
    assert "WRITE ERROR" in verdict["differences"][0]["recorded"]


def test_many_in_flight_over_one_another(tmp_path: Path) -> None:
    """Requests that race make no difference that is none: by two exports at once, short and long, and tokens too."""
    arguments = [
        *("--disk", "id=d0,path=a.img,size=16M"),
        *("--export", "id=scsi,type=vhost-user-scsi,socket=s.sock,lun0=d0"),
        *("--export", "id=blk,type=vhost-user-blk,socket=b.sock,disk=d0"),
        *("--trace", "t.jsonl,data=on"),
    ]
    chance = random.Random(11)
    path = tmp_path / "t.jsonl"
    with ServeProcess(arguments, cwd=tmp_path) as server, ScsiGuest(tmp_path / "s.sock") as guest:
        plain = Blk(str(tmp_path / "b.sock")).go()
        with plain.front:
            for _ in range(20):
                posted = [_post(chance, plain, guest) for _ in range(12)]
                token = guest.initiator.token(0, [Range(chance.randrange(64), 2048)])
                guest.initiator.write_token(0, token, [Range(chance.randrange(4096), 2048)])
                for request in posted:
                    while request.written is None:
                        plain.queue.completions()
                        guest.queue.completions()
            assert server.terminate() == 0
    verdict = json.loads(run(path, "--json"))
    assert verdict["differences"] == []
    assert verdict["compared"] > 100


def _post(chance: random.Random, plain: Blk, guest: ScsiGuest) -> Any:
    """A read or write somewhere in the first 3 MiB, not waited for."""
    blocks, lba, writes = chance.choice([8, 64, 2560]), chance.randrange(4096), chance.random() < 0.5
    data = chance.randbytes(blocks * 512) if writes else b""
    if chance.random() < 0.5:
        head = blk.HEADER.pack(blk.RequestType.OUT if writes else blk.RequestType.IN, 0, lba)
        return plain.queue.submit(head + data, 1 if writes else blocks * 512 + 1)
    cdb = bytes((0x8A if writes else 0x88, 0)) + lba.to_bytes(8, "big") + blocks.to_bytes(4, "big") + bytes(2)
    return guest.submit(0, cdb.ljust(32, b"\0"), data, 0 if writes else blocks * 512)
