"""What is recorded: requests by name and field, sense in words, data or hash, tokens, messages, what is open."""

from __future__ import annotations

import hashlib
import random
import stat
from typing import TYPE_CHECKING

import pytest
from trace_bench import read, recorder, requests

from qemu_odx.tap.decision import NEVER, Answer, Decision
from qemu_odx.testing.tap_bench import OLD, Rule, TapBench
from qemu_odx.trace import payload
from qemu_odx.trace.payload import PayloadError
from qemu_odx.trace.sink import Sink
from qemu_odx.wire import vhost_user
from qemu_odx.wire.scsi.sense import Status
from qemu_odx.wire.scsi.token_lists import Range
from qemu_odx.wire.vhost_user import Request, VringAddress
from qemu_odx.wire.virtio.blk import RequestType
from qemu_odx.wire.virtio.scsi import TaskManagement

if TYPE_CHECKING:
    from pathlib import Path

    from qemu_odx.trace.schema import Record

NEW = b"\xee" * 8 * 512
WRITE_8 = bytes.fromhex("8a00 0000000000000010 00000008 0000")
READ_8 = bytes.fromhex("8800 0000000000000000 00000008 0000")


def record(bench: TapBench, path: Path, **options: object) -> Path:
    """A session with a bit of everything."""
    made = recorder(path, bench.clock, **options)
    bench.scsi.add(made)
    bench.blk.add(made)
    near = bench.initiator
    token = near.token(0, [Range(0, 8)], timeout=60)
    near.write_token(0, token, [Range(100, 4), Range(200, 4)], identifier=9)
    near.information(0, 9)
    near.write(0, 16, 8, NEW)
    near.read(0, 0, 8)
    near.read(0, 1 << 40, 1)
    bench.post(RequestType.IN, 16, room=4096)
    bench.post(RequestType.OUT, 32, NEW)
    bench.manage(TaskManagement.LOGICAL_UNIT_RESET)
    bench.commands.submit(b"too short", 200)
    made.close()
    return path


def named(records: list[Record], name: str) -> Record:
    """The first of an operation."""
    return next(item for item in records if item["name"] == name)


def test_requests_by_name_and_field(bench: TapBench, tmp_path: Path) -> None:
    """Everything that a command or request says, in words."""
    found = requests(record(bench, tmp_path / "t"))
    populate, write = named(found, "POPULATE TOKEN"), named(found, "WRITE USING TOKEN")
    assert populate["fields"] == {"list_identifier": 0, "immediate": False, "inactivity_timeout": 60}
    assert populate["spans"] == [[0, 8]]
    assert write["spans"] == [[100, 4], [200, 4]]
    token = named(found, "RECEIVE ROD TOKEN INFORMATION")["told"]["token"]
    assert write["fields"]["token"] == token
    assert write["fields"]["bytes"] == 4096
    assert write["fields"]["rod_type"] == "POINT IN TIME DEFAULT"
    told = [item["told"] for item in found if "told" in item]
    assert [(item["status"], item["count"]) for item in told] == [("done", 8), ("done", 8)]
    command = named(found, "WRITE(16)")
    assert command["kind"] == "scsi"
    assert (command["export"], command["queue"], command["lun"], command["disk"]) == ("s.sock", 2, 0, "d0")
    assert (command["out"], command["in"]) == ([51 + 4096], [108])
    assert command["cdb"] == WRITE_8.hex()
    assert command["fields"] == {"lba": 16, "blocks": 8}
    assert (command["status"], command["bytes_out"]) == ("GOOD", 4096)
    request = named(found, "IN")
    assert (request["kind"], request["export"], request["spans"]) == ("blk", "b.sock", [[16, 8]])
    assert (request["status"], request["bytes_in"]) == ("OK", 4096)
    assert named(found, "LOGICAL UNIT RESET")["status"] == "OK"
    assert (found[-1]["kind"], found[-1]["name"]) == ("refused", "no whole command")


def test_sense_in_words(bench: TapBench, tmp_path: Path) -> None:
    """Key, code, text and the field in error."""
    failed = next(item for item in requests(record(bench, tmp_path / "t")) if item.get("sense"))
    assert failed["status"] == "CHECK CONDITION"
    assert failed["sense"] == {
        "key": "ILLEGAL REQUEST",
        "code": "21/00",
        "text": "LOGICAL BLOCK ADDRESS OUT OF RANGE",
        "field": "CDB byte 2",
        "hex": failed["sense"]["hex"],
    }
    assert failed["bytes_in"] == 0


def test_without_data_no_secret_is_written(bench: TapBench, tmp_path: Path) -> None:
    """Nothing of a token's secret, of data, nor of their hashes."""
    text = record(bench, tmp_path / "t").read_text()
    assert "data_in" not in text
    assert "data_out" not in text
    assert NEW[:16].hex() not in text


@pytest.mark.parametrize("full", [False, True])
def test_with_data(bench: TapBench, tmp_path: Path, *, full: bool) -> None:
    """What went out, and what came in: of blocks only the hash, unless all is asked for."""
    path = record(bench, tmp_path / "t", data=True, full=full)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    found = requests(path)
    assert payload.unpack(named(found, "WRITE(16)")["data_out"]) == NEW
    assert payload.unpack(named(found, "OUT")["data_out"]) == NEW
    read_blocks = named(found, "READ(16)")["data_in"]
    assert read_blocks["sha256"] == hashlib.sha256(OLD[: 8 * 512]).hexdigest()
    assert payload.has_content(read_blocks) is full
    assert payload.has_content(named(found, "IN")["data_in"]) is full
    assert payload.has_content(named(found, "RECEIVE ROD TOKEN INFORMATION")["data_in"])


def test_head_and_tail(bench: TapBench, tmp_path: Path) -> None:
    """The version, what was asked for, how many there are."""
    found = read(record(bench, tmp_path / "t", events=["request"]))
    assert (found[0]["event"], found[0]["version"], found[0]["events"]) == ("trace", 1, ["request"])
    assert found[-1] == {
        "event": "end",
        "records": len(found) - 1,
        "dropped": 0,
        "mono": found[-1]["mono"],
        "wall": found[-1]["wall"],
    }


def test_times(bench: TapBench, tmp_path: Path) -> None:
    """Taken, started and ended by the server's clock; the order of execution is counted."""
    bench.advance(5.0)
    found = requests(record(bench, tmp_path / "t"))
    assert {(item["taken"], item["started"], item["mono"]) for item in found[:-1]} == {(5.0, 5.0, 5.0)}
    assert found[0]["wall"] == pytest.approx(1.7e9 + 5.0)
    turns = [item["turn"] for item in found if item["kind"] != "refused"]
    assert turns == list(range(turns[0], turns[0] + len(turns)))


def test_what_was_decided_and_what_is_open(bench: TapBench, tmp_path: Path) -> None:
    """The decision of another tap is in the record; a request without an end is written when the recording ends."""
    made = recorder(tmp_path / "t", bench.clock)
    bench.scsi.add(made)
    rule = Rule("WRITE(16)", Decision(before=NEVER, note="hang"))
    bench.scsi.add(rule)
    bench.scsi.add(Rule("READ(16)", Decision(execute=False, answer=Answer(Status.BUSY))))
    bench.send(WRITE_8, NEW)
    bench.send(READ_8, room=4096)
    made.fault("hang", "never answered", rule.took[0], occurrence=1)
    made.close()
    by_event = {item["event"]: item for item in read(tmp_path / "t")}
    assert (by_event["fault"]["rule"], by_event["fault"]["n"], by_event["fault"]["name"]) == (
        "hang",
        1,
        "WRITE(16)",
    )
    answered, still_open = requests(tmp_path / "t")
    assert answered["decision"] == {"execute": False, "answer": {"status": 8, "sense": ""}}
    assert (answered["status"], answered["executed"]) == ("BUSY", False)
    assert (still_open["name"], still_open["status"]) == ("WRITE(16)", "open")
    assert still_open["decision"] == {"note": "hang", "before": "never"}


@pytest.mark.parametrize(
    ("request_", "data", "reply", "expected"),
    [
        (Request.GET_FEATURES, vhost_user.U64.pack(1 << 9 | 1 << 32), True, ["FLUSH", "VERSION_1"]),
        (Request.SET_PROTOCOL_FEATURES, vhost_user.U64.pack(0b1001), False, ["MQ", "REPLY_ACK"]),
    ],
)
def test_messages_by_name(
    tmp_path: Path, request_: Request, data: bytes, expected: list[str], *, reply: bool
) -> None:
    """Feature bits by name, in requests and in answers."""
    made = recorder(tmp_path / "t")
    made.message("e", "blk", request_, data, 2, reply=reply)
    made.close()
    found = read(tmp_path / "t")[1]
    assert (found["name"], found["features"], found["fds"]) == (request_.name, expected, 2)
    assert found["direction"] == ("out" if reply else "in")


def test_messages_by_field(tmp_path: Path) -> None:
    """Every form of payload; one that contradicts itself is shown as bytes."""
    made = recorder(tmp_path / "t")
    address = VringAddress(1, 0, 0x1000, 0x3000, 0x2000, 0)
    region = vhost_user.MemoryRegion(0x100, 4096, 0x7F00, 0)
    for request, data in (
        (Request.SET_VRING_ADDR, address.pack()),
        (Request.SET_VRING_BASE, vhost_user.VringState(2, 77).pack()),
        (Request.SET_VRING_KICK, vhost_user.U64.pack(0x103)),
        (Request.SET_MEM_TABLE, vhost_user.pack_memory_table((region,))),
        (Request.GET_CONFIG, vhost_user.ConfigSpace(0, 2, 0, b"ab").pack()),
        (Request.SET_VRING_ADDR, b"short"),
        (Request.RESET_DEVICE, b""),
        (999, b"xyz"),
    ):
        made.message("e", "scsi", request, data, 0, reply=False)
    made.close()
    found = read(tmp_path / "t")[1:-1]
    assert (found[0]["descriptor"], found[0]["used"], found[0]["queue"]) == ("0x1000", "0x3000", 1)
    assert (found[1]["queue"], found[1]["num"]) == (2, 77)
    assert (found[2]["queue"], found[2]["with_fd"]) == (3, False)
    assert found[3]["regions"][0]["guest_address"] == "0x100"
    assert found[4]["hex"] == "6162"
    assert found[5]["hex"] == b"short".hex()
    assert found[6]["name"] == "RESET_DEVICE"
    assert (found[7]["name"], found[7]["hex"]) == ("request 999", b"xyz".hex())


@pytest.mark.parametrize("data", [b"", b"\0" * 70000, b"abc", bytes(range(256)) * 40, OLD[:100]])
def test_bytes_come_back(data: bytes) -> None:
    """Whatever form they are written in; and a run takes no room."""
    packed = payload.pack(data, content=True)
    assert payload.unpack(packed) == data
    assert len(str(packed)) < 400 or len(str(packed)) < 2 * len(data)


@pytest.mark.parametrize("content", [False, True])
@pytest.mark.parametrize(
    "data", [b"", b"\0" * 3_000_000, random.Random(1).randbytes(2_400_001), b"ab" * 999_999]
)
def test_long_data_are_packed_by_the_writer(tmp_path: Path, data: bytes, *, content: bool) -> None:
    """In the same form, at the end of the record; short ones are packed at once."""
    sink = Sink(tmp_path / "t")
    sink.write({"event": "x", "data_out": payload.member(data, content=content), "n": 5})
    sink.write({"event": "y"})
    sink.close()
    first, second = read(tmp_path / "t")
    assert first == {"event": "x", "n": 5, "data_out": payload.pack(data, content=content)}
    assert second == {"event": "y"}
    assert sink.waiting == 0


def test_bytes_that_are_wrong_are_found() -> None:
    """Another content, another length, a bomb."""
    packed = payload.pack(bytes(range(256)) * 40, content=True)
    with pytest.raises(PayloadError, match="hash"):
        payload.unpack(packed | {"length": 100})
    with pytest.raises(PayloadError, match="data=on"):
        payload.unpack({"length": 3, "sha256": ""})
    with pytest.raises(PayloadError, match="at most"):
        payload.unpack(packed | {"length": 1 << 40})
    with pytest.raises(PayloadError, match="inflated"):
        payload.unpack(packed | {"deflate": "AAAA"})
