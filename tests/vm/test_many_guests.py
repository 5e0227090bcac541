"""Many guests on one server: mixed load with every byte compared, and tokens that go from each guest to the next.

`ODX_SOAK_GUESTS` (3) and `ODX_SOAK_SECONDS` (0) make it larger and longer; some rounds are always made.
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
from qemu_odx.lab.adapters.linux import lab_linux
from qemu_odx.lab.backend import Backend, BlkExport, DiskSpec, ScsiExport, serve_command
from qemu_odx.lab.live import LiveGuest
from qemu_odx.lab.machines.qemu import QemuMachine
from qemu_odx.lab.paths import data_folder
from qemu_odx.lab.qemu import GuestSpec
from qemu_odx.lab.run_folder import RunFolder

if TYPE_CHECKING:
    from qemu_odx.lab.image import Image

GUESTS = int(os.environ.get("ODX_SOAK_GUESTS", "3"))
SECONDS = float(os.environ.get("ODX_SOAK_SECONDS", "0"))
ALL_WAYS = 4
"""Rounds in which tokens go all four ways."""
LEAST = 2 * ALL_WAYS
"""Rounds that are made in any case: the first four are compared with the last four; of more, four a quarter on."""
MIB = 1 << 20
SIZE = 128 * MIB
PATIENCE = 240.0
GROWTH = 8 * MIB
"""Bytes by which the server's own memory may grow between these rounds."""
SIDE_FILES = 2 * GUESTS
"""Descriptors that come and go: of the side file of each disk, while there are tokens for it."""
SCRIPTS, SOAK = "/tmp/odx", "/tmp/soak"  # noqa: S108 - in the guests


class Member:
    """One guest and the agent in it."""

    def __init__(self, name: str, image: Image, machine: QemuMachine) -> None:
        self.name = name
        self.guest = LiveGuest(machine, lab_linux(image), patience=PATIENCE)
        self.guest.shell.upload(data_folder("guest_scripts") / "linux", SCRIPTS)
        self.guest.shell.upload(Path(__file__).parent / "soak", SOAK)

    def begin(self) -> None:
        """Start the agent and its load, which makes everything else in the guest slow."""
        self._channel = self.guest.shell.session()
        self._channel.settimeout(PATIENCE)
        self._channel.exec_command(f"python3 {SOAK}/soak_agent.py {SCRIPTS} {self.name}")
        self._answers = self._channel.makefile("r")

    def await_ready(self) -> None:
        """Until the agent answers."""
        assert self._answer() == {"ready": True}

    def tell(self, do: str, **arguments: object) -> None:
        """A request to the agent."""
        self._channel.sendall(json.dumps({"do": do, **arguments}).encode() + b"\n")

    def ask(self, do: str, **arguments: object) -> dict[str, Any]:
        """A request to the agent, and its answer."""
        self.tell(do, **arguments)
        return self.answer()

    def answer(self) -> dict[str, Any]:
        """The agent's next answer, which has no errors."""
        answer = self._answer()
        assert not answer.get("errors"), f"guest {self.name}: {answer['errors']}"
        return answer

    @property
    def busy(self) -> bool:
        """Its load has done something of everything, all right so far."""
        counts = self.ask("counts")
        return bool(counts["read"] and counts["write"] and counts["discard"])

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

    def largest(self, first: int) -> tuple[int, int]:
        """The largest values in the rounds in which tokens go all ways, from a round on."""
        part = self.samples[first:][:ALL_WAYS]
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


def started(name: str, image: Image, folder: Path, stack: ExitStack) -> QemuMachine:
    """The machine of a guest, which begins to boot."""
    exports = (folder / f"{name}-scsi.sock",), (folder / f"{name}-blk.sock",)
    own = folder / name
    own.mkdir()
    spec = GuestSpec(image, choose_accelerator(), *exports, memory_mib=256, cpus=1)
    machine = QemuMachine(spec, own)
    stack.callback(machine.kill)
    machine.start()
    return machine


def pass_tokens_on(members: list[Member], rounds: int) -> None:
    """Each guest makes a token, and the one after it uses it: by SCSI and by mailbox in all four ways."""
    made, used = bool(rounds & 1), bool(rounds & 2)
    for giver, taker in zip(members, members[1:] + members[:1], strict=True):
        given = giver.ask("populate", at=(4 + 2 * (rounds % 4)) * MIB, by_mailbox=made)
        taken = taker.ask("write", token=given["token"], by_mailbox=used)
        assert taken["sha256"] == given["sha256"], f"{giver.name} to {taker.name} in round {rounds}"


@pytest.mark.timeout(600 + SECONDS + 120 * GUESTS)
def test_many_guests(image: Image, capsys: pytest.CaptureFixture[str]) -> None:
    """No error, no wrong byte, flat memory and descriptors."""
    with RunFolder() as run, ExitStack() as stack:
        backend = Backend(command(run.path), run.path / "serve.log")
        stack.callback(backend.stop)
        machines = {name: started(name, image, run.path, stack) for name in names()}
        members = [Member(name, image, machine) for name, machine in machines.items()]
        for member in members:
            member.begin()
        for member in members:
            member.await_ready()
        meter, rounds = Meter(backend.pid), 0
        deadline = time.monotonic() + SECONDS
        while rounds < LEAST or time.monotonic() < deadline or not all(member.busy for member in members):
            pass_tokens_on(members, rounds)
            meter.sample()
            backend.check()
            rounds += 1
        for member in members:
            member.tell("finish")
        counts = [member.answer() for member in members]
        early, late = meter.largest((rounds - LEAST) // 4), meter.largest(rounds - ALL_WAYS)
        with capsys.disabled():
            report = {"guests": GUESTS, "rounds": rounds, "memory and descriptors": (early, late)}
            sys.stdout.write(f"\n{json.dumps(report | {'counts': counts})}\n")
        assert late[0] < early[0] + GROWTH, meter.samples
        assert late[1] <= early[1] + SIDE_FILES < early[1] + (rounds - ALL_WAYS) * GUESTS, meter.samples
        for member in members:
            member.guest.power_off()
        assert (run.path / "serve.log").read_text() == ""
        assert backend.stop() == 0
