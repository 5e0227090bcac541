"""A replay on disk nodes: the SG_IO ioctl answered by another target of ours, instead of a kernel and an array."""

from __future__ import annotations

import ctypes
import json
import random
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner

from qemu_odx.cli.replay import replay
from qemu_odx.disk.memory import memory_disk
from qemu_odx.target.manager import CopyManager
from qemu_odx.target.port import Task
from qemu_odx.target.target import Target
from qemu_odx.testing.conformance import sg
from qemu_odx.testing.runner import InlineRunner
from qemu_odx.testing.tap_bench import TapBench
from qemu_odx.trace import payload
from qemu_odx.trace.recorder import Recorder
from qemu_odx.trace.sink import Sink
from qemu_odx.wire.scsi.token_lists import Range
from qemu_odx.wire.virtio.blk import RequestType
from qemu_odx.wire.virtio.scsi import TaskManagement

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from qemu_odx.target.port import Reply

SIZE = 4096 * 512
DATA = random.Random(9).randbytes(8 * 512)


class Kernel:
    """Stands in for the sg driver: the node is logical unit 0 of a target."""

    def __init__(self) -> None:
        self.disk = memory_disk("array", SIZE, 512)
        runner = InlineRunner()
        self.target = Target.on({0: self.disk}, CopyManager(runner), runner)
        self.resets = 0
        self.wrong: int | None = None

    def ioctl(self, _fd: int, code: int, request: Any) -> int:
        """SG_IO and SG_SCSI_RESET."""
        if code == sg.SG_SCSI_RESET:
            self.resets += 1
            self.target.reset_lun(0, lambda _found: None)
            return 0
        replies: list[Reply] = []
        cdb = ctypes.string_at(request.cmdp, request.cmd_len).ljust(16, b"\0")
        sent = request.dxfer_direction == sg._TO_DEVICE
        out = [memoryview(ctypes.string_at(request.dxferp, request.dxfer_len))] if sent else []
        room = bytearray(0 if sent else request.dxfer_len)
        self.target.submit(Task("it", 0, cdb, out, [memoryview(room)] if room else [], replies.append))
        reply = replies[0]
        if cdb[0] == self.wrong and reply.data_in_length:
            room[0] ^= 0xFF
        if room:
            ctypes.memmove(request.dxferp, bytes(room), reply.data_in_length)
        request.resid = request.dxfer_len - reply.data_in_length
        request.status, request.sb_len_wr = reply.status, len(reply.sense)
        ctypes.memmove(request.sbp, reply.sense, len(reply.sense))
        return 0


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Iterator[Kernel]:
    """The ioctl is this one's."""
    made = Kernel()
    # The name in that module only: the disks of the target call the real ioctl.
    monkeypatch.setattr(sg, "fcntl", SimpleNamespace(ioctl=made.ioctl))
    yield made
    for token in made.target.manager.tokens:
        token.payload.release()
    made.disk.close()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A recorded session, on a disk of which the first 64 blocks are known."""
    bench, path = TapBench(), tmp_path / "t.jsonl"
    head = {
        "fresh": True,
        "exports": [
            {"id": "s.sock", "type": "vhost-user-scsi", "luns": {"0": "d0"}},
            {"id": "b.sock", "type": "vhost-user-blk", "disk": "d0"},
        ],
        "disks": [{"id": "d0", "size": SIZE, "block_size": 512}],
    }
    made = Recorder(Sink(path), bench.clock, data=True, head=head)
    first = payload.pack(bench.content(0, 64), content=True)
    made.note("disk", disk="d0", what="initial", offset=0, data=first, complete=False)
    bench.scsi.add(made)
    bench.blk.add(made)
    near = bench.initiator
    token = near.token(0, [Range(0, 8)])
    near.write(0, 0, 8, DATA)
    near.write_token(0, token, [Range(100, 8)], identifier=9)
    near.information(0, 9)
    near.read(0, 100, 8)
    near.read(0, 2000, 8)
    near.command(0, "12000000ff00")
    near.read(0, 1 << 40, 1)
    bench.post(RequestType.OUT, 200, DATA)
    bench.post(RequestType.IN, 200, room=4096)
    bench.post(RequestType.FLUSH, 0)
    bench.post(RequestType.GET_ID, 0, room=20)
    bench.manage(TaskManagement.LOGICAL_UNIT_RESET)
    near.read(0, 100, 8)  # meets a unit attention
    near.read(0, 100, 8)
    made.close()
    bench.close()
    return path


def run(file: Path, node: Path, *options: str) -> tuple[int, dict[str, Any]]:
    """Replay on the node."""
    node.touch()
    arguments = [str(file), "--target", f"sg:{node}", "--json", *options]
    result = CliRunner().invoke(replay, arguments)
    assert result.exit_code in {0, 1}, result.output
    return result.exit_code, json.loads(result.stdout)


def test_the_same_on_another_device(kernel: Kernel, file: Path, tmp_path: Path) -> None:
    """Commands and virtio-blk requests; what it says of itself, and what nobody knows, is not compared."""
    code, verdict = run(file, tmp_path / "sg1", "--destroy-data")
    assert (code, verdict["differences"]) == (0, [])
    assert verdict["uncompared"] == {
        "data that were there before the recording, or raced": 1,
        "what another device says of itself": 1,
        "news of a reset or of other initiators": 1,
    }
    assert verdict["skipped"] == {"cannot be done on this device, or is in the window of a mailbox": 1}
    assert verdict["compared"] >= 11
    assert kernel.resets == 1


def test_a_difference_is_found(kernel: Kernel, file: Path, tmp_path: Path) -> None:
    """One wrong byte of a READ(16)."""
    kernel.wrong = 0x88
    code, verdict = run(file, tmp_path / "sg1", "--destroy-data")
    assert code == 1
    assert {item["name"] for item in verdict["differences"]} == {"READ(16)", "IN"}
    assert {item["what"] for item in verdict["differences"]} == {"data"}


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--target", "sg:/nowhere"], 2, "--destroy-data"),
        (["--target", "sg:/nowhere", "--destroy-data"], 3, "No such file"),
        (["--target", "/dev/sda", "--destroy-data"], 2, "write sg:/dev/sgN"),
        (["--target", "d7=sg:/dev/sg1", "--destroy-data"], 2, "with a disk of the trace: d0"),
        (["--image", "d0"], 2, "write DISK="),
        (["--image", "d0=x", "--target", "sg:/dev/sg1"], 2, "keeps what is on it"),
    ],
)
def test_wrong_usage(file: Path, arguments: list[str], code: int, message: str) -> None:
    """Each with its cure."""
    result = CliRunner().invoke(replay, [str(file), *arguments])
    assert (result.exit_code, message in result.stderr) == (code, True), result.stderr
