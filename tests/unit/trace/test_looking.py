"""`qemu-odx trace`: show, filter, stats, timeline, merge, on a trace made here; and files that are none."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner
from trace_bench import read, recorder

from qemu_odx.cli.trace import trace
from qemu_odx.tap.decision import Answer, Decision, Delay
from qemu_odx.testing.tap_bench import Rule, TapBench
from qemu_odx.tokens.token import Fault
from qemu_odx.trace.stats import percentile
from qemu_odx.wire.dsm.codes import ControlCode, DsmAction
from qemu_odx.wire.dsm.structures import (
    DataSetRange,
    DsmInput,
    OffloadReadOutput,
    OffloadReadParameters,
    OffloadWriteOutput,
    OffloadWriteParameters,
)
from qemu_odx.wire.scsi.sense import Status
from qemu_odx.wire.scsi.token_lists import Range
from qemu_odx.wire.vhost_user import Request
from qemu_odx.wire.virtio.blk import RequestType

if TYPE_CHECKING:
    from pathlib import Path

    from click.testing import Result

NEW = b"\xee" * 8 * 512


@pytest.fixture
def file(bench: TapBench, tmp_path: Path) -> Path:
    """A token made, used and revoked; reads and writes, one delayed, one refused, one answered by a rule."""
    path = tmp_path / "t.jsonl"
    made = recorder(path, bench.clock, data=True)
    bench.scsi.add(made)
    bench.blk.add(made)
    made.message("s.sock", "scsi", Request.SET_OWNER, b"", 0, reply=False)
    token = bench.initiator.token(0, [Range(0, 8)])
    live = next(iter(bench.target.manager.tokens))
    made.minted(live)
    bench.advance(1.0)
    bench.initiator.write_token(0, token, [Range(100, 8)])
    bench.advance(1.0)
    slow = Rule("OUT", Decision(before=Delay(0.25)))
    bench.blk.add(slow)
    bench.post(RequestType.OUT, 16, NEW)
    bench.advance(0.25)
    bench.blk.remove(slow)
    busy = Rule("READ(16)", Decision(execute=False, answer=Answer(Status.BUSY), note="busy"))
    bench.scsi.add(busy)
    bench.initiator.read(0, 0, 8)
    made.fault("busy", "answers BUSY", busy.took[-1])
    bench.scsi.remove(busy)
    bench.initiator.read(0, 1 << 40, 1)
    bench.advance(1.0)
    made.token_ended(live, Fault.REVOKED)
    made.close()
    return path


def run(*arguments: object, code: int = 0) -> Result:
    """Call the command."""
    result = CliRunner().invoke(trace, [str(argument) for argument in arguments])
    assert result.exit_code == code, result.output
    return result


def names(file: Path, *arguments: object) -> list[str]:
    """The operations that `show` finds."""
    lines = run("show", file, "--json", *arguments).stdout.splitlines()
    found = [json.loads(line) for line in lines]
    return [
        record.get("name", record["event"]) for record in found if record["event"] not in {"trace", "end"}
    ]


def test_show_for_people(file: Path) -> None:
    """One line a record, names and words."""
    lines = run("show", file).stdout.splitlines()
    assert len(lines) == len(read(file))
    text = "\n".join(lines)
    for expected in (
        "s.sock -> SET_OWNER",
        "s.sock q2 lun0 POPULATE TOKEN 0+8 list_identifier=0",
        "told: copy done, count 8, token ",
        "minted from d0: 4096 bytes, POINT IN TIME DEFAULT",
        "WRITE USING TOKEN 100+8 ",
        "b.sock q0 OUT 16+8 -> OK",
        "(250000 µs queued, 0 µs served)",
        "READ(16) 0+8 -> BUSY, not executed [decided: {note=busy",
        "*** fault busy: answers BUSY on s.sock #",
        "ILLEGAL REQUEST 21/00 LOGICAL BLOCK ADDRESS OUT OF RANGE, CDB byte 2",
        "of d0 revoked",
    ):
        assert expected in text, text
    assert lines[-1].strip().startswith("3.250000  end: ")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("--event", "message"), ["SET_OWNER"]),
        (("--export", "b.sock"), ["OUT"]),
        (("--op", "write*"), ["WRITE USING TOKEN"]),
        (("--op", "READ(16)"), ["READ(16)", "READ(16)", "READ(16)"]),  # the fault names it too
        (("--lba", "107", "--event", "request"), ["WRITE USING TOKEN"]),
        (("--lba", "20-30"), ["OUT"]),
        (("--lba", "8+92"), ["OUT"]),
        (("--errors",), ["READ(16)", "READ(16)", "READ(16)", "token"]),
        (("--since", "2.9"), ["token"]),
        (("--since", "1", "--until", "2.1"), ["WRITE USING TOKEN"]),
        (("--disk", "d1"), []),
    ],
)
def test_what_is_wanted(file: Path, arguments: tuple[str, ...], expected: list[str]) -> None:
    """Each way to choose."""
    assert names(file, *arguments) == expected


def test_all_about_a_token(file: Path) -> None:
    """Made, told, used, ended; by the first digits of its identifier."""
    token = next(record["token"] for record in read(file) if record["event"] == "token")
    found = names(file, "--token", token[:12])
    assert found == ["RECEIVE ROD TOKEN INFORMATION", "token", "WRITE USING TOKEN", "token"]
    other = "4567" if token.startswith("0123") else "0123"
    assert names(file, "--token", other) == []


def test_filter_makes_a_trace(file: Path, tmp_path: Path) -> None:
    """Head and tail stay; what came out can be looked at again."""
    out = tmp_path / "out.jsonl"
    run("filter", file, "--op", "OUT", "-o", out)
    assert [record["event"] for record in read(out)] == ["trace", "request", "end"]
    assert names(out) == ["OUT"]
    assert run("filter", file, "--op", "OUT").stdout == out.read_text()


def test_stats(file: Path) -> None:
    """Counts, percentiles, errors by their sense, the lives of tokens."""
    found = json.loads(run("stats", file, "--json").stdout)
    rows = {(row["export"], row["name"]): row for row in found["operations"]}
    assert rows["b.sock", "OUT"]["queued_us"] == {
        "p50": 250000.0,
        "p90": 250000.0,
        "p99": 250000.0,
        "p100": 250000.0,
    }
    assert rows["b.sock", "OUT"]["bytes"] == 4096
    assert (rows["s.sock", "READ(16)"]["count"], rows["s.sock", "READ(16)"]["errors"]) == (2, 2)
    assert found["sense"] == {"ILLEGAL REQUEST 21/00 LOGICAL BLOCK ADDRESS OUT OF RANGE": 1}
    assert found["faults"] == {"busy": 1}
    life = found["tokens"][0]
    assert (life["minted"], life["uses"], life["ended"], life["cause"]) == (0.0, [1.0], 3.25, "revoked")
    assert found["missing"] == 0
    text = run("stats", file).stdout
    assert "OUT" in text
    assert "revoked at 3.250 s" in text


@pytest.mark.parametrize(("percent", "expected"), [(50, 2), (51, 3), (75, 3), (76, 4), (100, 4), (0, 1)])
def test_percentiles(percent: int, expected: int) -> None:
    """The smallest that so many do not exceed."""
    assert percentile([1, 2, 3, 4], percent) == expected
    assert percentile([7], percent) == 7


def test_timeline(file: Path) -> None:
    """Lanes of units, messages, tokens; bars from taken to ended."""
    found = json.loads(run("timeline", file).stdout)
    assert found["seconds"] == 3.25
    lanes = {
        lane["name"].split()[0]: lane for lane in found["lanes"] if "lun" in lane["name"] or lane["bars"]
    }
    out = lanes["b.sock"]["bars"][0]
    assert (out["start"], out["end"], out["class"], out["error"]) == (2.0, 2.25, "write", False)
    assert [bar["error"] for bar in lanes["s.sock"]["bars"]][-2:] == [True, True]
    token = lanes["token"]
    assert (token["bars"][0]["start"], token["bars"][0]["end"]) == (0.0, 3.25)
    assert token["marks"] == [{"at": 1.0, "text": "WRITE USING TOKEN", "class": "use"}]
    marks = [mark for lane in found["lanes"] for mark in lane["marks"]]
    assert {mark["class"] for mark in marks} == {"use", "message", "fault"}


def test_a_timeline_is_bounded(file: Path) -> None:
    """The longest bars and the errors stay, and it says how many do not."""
    lines = file.read_text().splitlines()
    out = next(line for line in lines if '"name":"OUT"' in line)
    file.write_text(
        "\n".join([lines[0], out, *lines[1:], *[out.replace('"taken":2.0', '"taken":2.2')] * 600]) + "\n"
    )
    lane = next(
        item for item in json.loads(run("timeline", file).stdout)["lanes"] if item["name"] == "b.sock"
    )
    assert len(lane["bars"]) == 500
    assert lane["left_out"] == 102
    assert sum(bar["start"] == 2.0 for bar in lane["bars"]) == 2


# -- Windows -----------------------------------------------------------------------------------------


def odx_line(
    unix_us: int | None, action: DsmAction, parameters: bytes, output: bytes, ntstatus: int = 0
) -> str:
    """A line as odx.exe prints it."""
    ranges = DataSetRange(offset=4096, length=8192).packed()
    head = DsmInput(
        size=DsmInput.SIZE,
        action=action,
        parameter_offset=DsmInput.SIZE,
        parameter_length=len(parameters),
        ranges_offset=DsmInput.SIZE + len(parameters),
        ranges_length=len(ranges),
    )
    call: dict[str, Any] = {
        "action": action.name,
        "code": f"0x{ControlCode.IOCTL_STORAGE_MANAGE_DATA_SET_ATTRIBUTES:08X}",
        "in_hex": (head.packed() + parameters + ranges).hex(),
        "out_length": len(output),
        "out_hex": output.hex(),
        "win32": 5 if ntstatus else 0,
        "ntstatus": f"0x{ntstatus:08X}",
    }
    if unix_us is not None:
        call["unix_us"] = unix_us
    return json.dumps({"command": "ioctl", "calls": [call], "ok": not ntstatus, "exit": 0})


def test_merge_with_what_windows_saw(bench: TapBench, file: Path, tmp_path: Path) -> None:
    """Among the records of the server by the time of day, with names and fields."""
    token = bench.initiator.token(0, [Range(0, 8)])
    start = read(file)[0]["wall"]
    odx, out = tmp_path / "odx.txt", tmp_path / "merged"
    read_call = odx_line(
        int((start + 10.5) * 1e6),
        DsmAction.OFFLOAD_READ,
        OffloadReadParameters(time_to_live=77).packed(),
        OffloadReadOutput(length_protected=8192, token_length=512, token=token).packed(),
    )
    write_call = odx_line(
        int((start + 11.5) * 1e6),
        DsmAction.OFFLOAD_WRITE,
        OffloadWriteParameters(token_offset=512, token=token).packed(),
        OffloadWriteOutput(length_copied=0).packed(),
        0xC0000465,
    )
    odx.write_text(f"\ufeff{write_call}\n\n{read_call}\n", encoding="utf-8")
    run("merge", file, "--windows", odx, "--clock-offset", 10, "-o", out)
    found = read(out)
    assert [record["event"] for record in (found[0], found[-1])] == ["trace", "end"]
    assert len(found) == len(read(file)) + 2
    assert [record["wall"] for record in found[:-1]] == sorted(record["wall"] for record in found[:-1])
    first, second = [record for record in found if record["event"] == "ioctl"]
    assert (first["name"], first["status"]) == ("IOCTL_STORAGE_MANAGE_DATA_SET_ATTRIBUTES", "STATUS_SUCCESS")
    assert first["mono"] == pytest.approx(0.5, abs=1e-3)
    assert first["fields"]["ranges"] == [[4096, 8192]]
    assert (first["fields"]["time_to_live"], first["fields"]["length_protected"]) == (77, 8192)
    assert second["status"] == "STATUS_INVALID_TOKEN"
    assert (
        first["fields"]["token"] == second["fields"]["token"] == f"{int.from_bytes(token[8:16], 'big'):016x}"
    )
    assert "windows IOCTL_STORAGE_MANAGE_DATA_SET_ATTRIBUTES action=OFFLOAD_READ" in run("show", out).stdout
    assert names(out, "--event", "ioctl", "--errors") == ["IOCTL_STORAGE_MANAGE_DATA_SET_ATTRIBUTES"]


def test_an_odx_exe_that_tells_no_time(file: Path, tmp_path: Path) -> None:
    """The cure is named."""
    odx = tmp_path / "odx.txt"
    odx.write_text(odx_line(None, DsmAction.OFFLOAD_READ, b"", b""))
    assert "build odx.exe anew" in run("merge", file, "--windows", odx, code=1).stderr
    odx.write_text("usage: odx")
    assert "no line of odx.exe" in run("merge", file, "--windows", odx, code=1).stderr


# -- files that are no traces ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "No such file"),
        (b"", "empty, or no trace"),
        (b"hello\n", "line 1 is no JSON"),
        (b"[1]\n", "line 1 is no record"),
        (b'{"event":"request"}\n', "begins with 'request'"),
        (b'{"event":"trace","version":2}\n', "a trace of version 2"),
        (b'{"event":"trace","version":1}\n{"no":1}\n', "line 2 is no record"),
        (b'{"event":"trace","version":1}\n{"event":"end"', "the last line is not whole"),
        (b'{"event":"trace","version":1}\n{"event":"request"}\n', "lacks something"),
        (
            b'{"event":"trace","version":1}\n{"event":"request","export":1,"name":2,"status":[],"in":5,"spans":[1]}\n',
            "lacks",
        ),
    ],
)
def test_files_that_are_none(tmp_path: Path, content: bytes | None, message: str) -> None:
    """One sentence, exit code 1; what can be read is shown."""
    path = tmp_path / "t"
    if content is not None:
        path.write_bytes(content)
    assert message in run("show", path, code=1).stderr


def test_wrong_blocks_are_wrong_usage(file: Path) -> None:
    """Exit code 2."""
    assert "is neither LBA nor" in run("show", file, "--lba", "x", code=2).output


def test_a_cut_trace_as_json(tmp_path: Path) -> None:
    """The object of the failure is the last line, or tells what was counted too: stdout stays whole."""
    path = tmp_path / "t"
    path.write_bytes(b'{"event":"trace","version":1}\n{"event":"end"')
    head, failure = map(json.loads, run("show", path, "--json", code=1).stdout.splitlines())
    counted = json.loads(run("stats", path, "--json", code=1).stdout)
    assert head["event"] == "trace"
    assert failure["ok"] is counted["ok"] is False
    assert "the last line is not whole" in failure["error"]
    assert counted["operations"] == []


@pytest.mark.parametrize("command", ["filter", "merge"])
def test_a_trace_is_not_written_onto_itself(file: Path, command: str) -> None:
    """It would be empty before it was read."""
    before = file.read_bytes()
    assert "write to another file" in run(command, file, "--output", file, code=1).stderr
    assert file.read_bytes() == before
