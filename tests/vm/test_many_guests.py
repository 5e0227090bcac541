"""Many guests on one server: mixed load with every byte compared, and tokens that go from each guest to the next.

`ODX_SOAK_GUESTS` (3) and `ODX_SOAK_SECONDS` (15) make it larger and longer.
"""

from __future__ import annotations

import json
import os
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from qemu_odx.lab.accelerator import choose_accelerator
from qemu_odx.lab.backend import Backend, BlkExport, DiskSpec, ScsiExport, serve_command
from qemu_odx.lab.guest import Guest
from qemu_odx.lab.paths import data_folder
from qemu_odx.lab.qemu import GuestSpec
from qemu_odx.lab.run_folder import RunFolder

if TYPE_CHECKING:
    from collections.abc import Iterator

    from qemu_odx.lab.image import Image

GUESTS = int(os.environ.get("ODX_SOAK_GUESTS", "3"))
SECONDS = float(os.environ.get("ODX_SOAK_SECONDS", "15"))
MIB = 1 << 20
SIZE = 128 * MIB
PATIENCE = 240.0
GROWTH = 8 * MIB
"""Bytes that the server's own memory may differ between the second quarter and the last one."""
SCRIPTS, SOAK = "/tmp/odx", "/tmp/soak"  # noqa: S108 - in the guests


class Member:
    """One guest and the agent in it."""

    def __init__(self, name: str, image: Image, folder: Path) -> None:
        self.name = name
        exports = (folder / f"{name}-scsi.sock",), (folder / f"{name}-blk.sock",)
        own = folder / name
        own.mkdir()
        spec = GuestSpec(image, choose_accelerator(), *exports, memory_mib=256, cpus=1)
        self.guest = Guest(spec, own, patience=PATIENCE)
        self.guest.shell.upload(data_folder("guest_scripts") / "linux", SCRIPTS)
        self.guest.shell.upload(Path(__file__).parent / "soak", SOAK)
        self._channel = self.guest.shell._transport.open_session(timeout=PATIENCE)
        self._channel.settimeout(PATIENCE)
        self._channel.exec_command(f"python3 {SOAK}/soak_agent.py {SCRIPTS} {name}")
        self._answers = self._channel.makefile("r")
        assert self._answer() == {"ready": True}

    def ask(self, do: str, **arguments: object) -> dict[str, Any]:
        """A request to the agent, and its answer, which has no errors."""
        self._channel.sendall(json.dumps({"do": do, **arguments}).encode() + b"\n")
        answer = self._answer()
        assert not answer.get("errors"), f"guest {self.name}: {answer['errors']}"
        return answer

    def _answer(self) -> dict[str, Any]:
        line = self._answers.readline()
        assert line, self._channel.makefile_stderr("r").read()
        found: dict[str, Any] = json.loads(line)
        return found


class Meter:
    """The server's own memory and its descriptors, as time goes by."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self.samples: list[tuple[int, int]] = []

    def sample(self) -> None:
        """One look."""
        status = Path(f"/proc/{self._pid}/status").read_text()
        memory = 1024 * int(status.partition("RssAnon:")[2].split()[0])
        self.samples.append((memory, sum(1 for _ in Path(f"/proc/{self._pid}/fd").iterdir())))

    def quarter(self, number: int) -> tuple[int, int]:
        """The largest values of a quarter of the time."""
        part = self.samples[number * len(self.samples) // 4 : (number + 1) * len(self.samples) // 4]
        return max(memory for memory, _ in part), max(descriptors for _, descriptors in part)


def command(folder: Path) -> list[str]:
    """A server with two disks of its own for each guest."""
    exports: list[ScsiExport | BlkExport] = []
    kinds = [f"{name}-{kind}" for name in names() for kind in ("scsi", "blk")]
    disks = [DiskSpec(kind, folder / f"{kind}.img", SIZE, kind) for kind in kinds]
    for name in names():
        exports.append(ScsiExport(folder / f"{name}-scsi.sock", (f"{name}-scsi",)))
        exports.append(BlkExport(folder / f"{name}-blk.sock", f"{name}-blk", mailbox=True))
    return serve_command(disks, exports)


def names() -> list[str]:
    """Of the guests."""
    return [f"g{number}" for number in range(GUESTS)]


def pass_tokens_on(members: list[Member], rounds: int) -> Iterator[None]:
    """Each guest makes a token, and the one after it uses it: by SCSI and by mailbox in all four ways."""
    made, used = bool(rounds & 1), bool(rounds & 2)
    for giver, taker in zip(members, members[1:] + members[:1], strict=True):
        given = giver.ask("populate", at=(4 + 2 * (rounds % 4)) * MIB, by_mailbox=made)
        taken = taker.ask("write", token=given["token"], by_mailbox=used)
        assert taken["sha256"] == given["sha256"], f"{giver.name} to {taker.name} in round {rounds}"
        yield


@pytest.mark.timeout(600 + SECONDS + 120 * GUESTS)
def test_many_guests(image: Image, capsys: pytest.CaptureFixture[str]) -> None:
    """No error, no wrong byte, flat memory and descriptors."""
    with RunFolder() as run, ExitStack() as stack:
        backend = Backend(command(run.path), run.path / "serve.log")
        stack.callback(backend.stop)
        members = []
        for name in names():
            members.append(Member(name, image, run.path))
            stack.callback(members[-1].guest.kill)
        meter, passed, rounds = Meter(backend.pid), 0, 0
        deadline = time.monotonic() + SECONDS
        while time.monotonic() < deadline or rounds < 4:
            for _ in pass_tokens_on(members, rounds):
                passed += 1
                meter.sample()
                backend.check()
            rounds += 1
        counts = [member.ask("finish") for member in members]
        early, late = meter.quarter(1), meter.quarter(3)
        with capsys.disabled():
            report = {"guests": GUESTS, "tokens": passed, "memory and descriptors": (early, late)}
            sys.stdout.write(f"\n{json.dumps(report | {'counts': counts})}\n")
        assert all(count["read"] and count["write"] and count["discard"] for count in counts)
        assert abs(late[0] - early[0]) < GROWTH, meter.samples
        assert late[1] == early[1], meter.samples
        for member in members:
            member.guest.power_off()
        assert (run.path / "serve.log").read_text() == ""
        assert backend.stop() == 0
