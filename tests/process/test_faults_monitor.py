"""Fault rules over the monitor and the command line, and delays on a clock that stands still."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from fault_rig import fault_arguments, scsi_end, stays_open
from guests import eventually

from qemu_odx.cli.monitor_client import MonitorClient, MonitorFailure
from qemu_odx.testing.monitor_faults import MonitorFaults
from qemu_odx.testing.scsi_guest import ScsiGuest
from qemu_odx.testing.serve import ServeProcess
from qemu_odx.wire.virtio.scsi import Response, TaskManagement

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

READ_ONE = bytes.fromhex("88000000000000000000000000010000")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A server with a monitor and a virtual clock for the module."""
    where = tmp_path_factory.mktemp("faults")
    with ServeProcess(fault_arguments(where, "--monitor", f"{where}/m.qmp", "--clock", "virtual"), cwd=where):
        yield where


@pytest.fixture
def client(folder: Path) -> Iterator[MonitorClient]:
    """Connected; no rule is left behind."""
    with MonitorClient(f"{folder}/m.qmp") as made:
        yield made
        MonitorFaults(made.execute).clear()


@pytest.fixture
def faults(client: MonitorClient) -> MonitorFaults:
    """The rules."""
    return MonitorFaults(client.execute)


@pytest.fixture
def guest(folder: Path) -> Iterator[ScsiGuest]:
    """On units 0 and 1."""
    with ScsiGuest(folder / "s.sock") as made:
        yield made


def command(folder: Path, *words: str, code: int = 0) -> str:
    """`qemu-odx fault ...`: its stdout, or its stderr if it has to fail."""
    done = subprocess.run(
        [sys.executable, "-m", "qemu_odx", "fault", *words, "--monitor", f"{folder}/m.qmp"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == code, done.stderr
    return done.stderr if code else done.stdout


def test_a_rules_life(faults: MonitorFaults, guest: ScsiGuest) -> None:
    """Added, fired, spent, armed again, released, removed."""
    with faults.rule("name=one,op=READ(16),nth=2,sense=3/11/00") as name:
        assert guest.initiator.read(0, 0, 1).good
        assert guest.initiator.read(0, 0, 1).fault == (3, 0x11, 0)
        found = faults.find(name)
        assert (found["state"], found["seen"], found["fired"], found["last-event"]) == (
            "spent",
            2,
            1,
            "READ(16) on d0",
        )
        faults.arm(name)
        assert (faults.find(name)["state"], faults.find(name)["seen"]) == ("armed", 0)
        faults.release(name)
        assert faults.find(name)["state"] == "off"
    assert faults.list() == []


@pytest.mark.parametrize(
    ("name", "arguments", "error", "told"),
    [
        ("odx-fault-arm", {"rule": "action=x"}, "GenericError", "'x' is no action"),
        ("odx-fault-arm", {"name": "x"}, "DeviceNotFound", "there is no fault rule 'x'; there are: none"),
        ("odx-fault-arm", {}, "GenericError", "give either 'rule'"),
        ("odx-fault-arm", {"name": "x", "rule": "action=stall"}, "GenericError", "give either 'rule'"),
        ("odx-fault-release", {"name": "x"}, "DeviceNotFound", "no fault rule 'x'"),
        ("odx-fault-remove", {"name": "x"}, "DeviceNotFound", "no fault rule 'x'"),
    ],
)
def test_refusals(
    client: MonitorClient, name: str, arguments: dict[str, object], error: str, told: str
) -> None:
    """By class and in one sentence."""
    with pytest.raises(MonitorFailure) as caught:
        client.execute(name, arguments)
    assert (caught.value.error_class, told in caught.value.message) == (error, True), caught.value.message


def test_an_event_for_each_hit(client: MonitorClient, faults: MonitorFaults, guest: ScsiGuest) -> None:
    """Who listens need not ask."""
    faults.add("name=one,op=READ(16),count=2,sense=3/11/00")
    for _ in range(3):
        guest.initiator.read(1, 0, 1)
    seen = []
    while len(seen) < 2:
        event = client.next_event(60)
        assert event is not None
        if event["event"] == "ODX_FAULT_FIRED":
            seen.append(event["data"])
    assert seen == [
        {"fault": "one", "request": "READ(16) on d1", "fired": number, "state": state}
        for number, state in ((1, "armed"), (2, "spent"))
    ]


def test_a_delay_on_the_virtual_clock(client: MonitorClient, faults: MonitorFaults, guest: ScsiGuest) -> None:
    """An hour passes when the test says so, and not before."""
    faults.add("op=READ(16),action=delay,seconds=3600")
    request = guest.submit(0, READ_ONE, room=512)
    eventually(lambda: faults.list()[0]["fired"] == 1, "not seen")
    client.execute("odx-clock-advance", {"seconds": 3599})
    stays_open(guest.queue, request)
    client.execute("odx-clock-advance", {"seconds": 1})
    while request.written is None:
        guest.queue.completions()
    assert scsi_end(request) == (Response.OK, 0, b"")
    assert faults.list()[0]["last"] == client.execute("query-odx-clock")["now"] - 3600


@pytest.mark.parametrize(
    ("rule", "told"),
    [
        ("action=stall,disk=d9", "there is no disk 'd9', only d0, d1"),
        ("action=stall,export=t.sock", "there is no export 't.sock', only export0, export1, export2"),
    ],
)
def test_a_rule_that_could_never_fire(client: MonitorClient, rule: str, told: str) -> None:
    """A slip of the pen is refused, as on the command line; what comes later is added before its rules."""
    with pytest.raises(MonitorFailure, match=told):
        client.execute("odx-fault-arm", {"rule": rule})
    assert client.execute("query-odx-faults") == []


def test_a_disk_that_comes_later_can_break_too(
    folder: Path, client: MonitorClient, faults: MonitorFaults
) -> None:
    """It gets the layer for that if a rule asks for it, as a disk of the command line does."""
    faults.add("action=disk-error,op=disk-read,disk=d0")
    for name, layers in (("x", []), ("y", ["faults"])):
        client.execute("odx-disk-add", {"id": name, "path": f"{folder}/{name}.img", "size": 1 << 20})
        assert {item["id"]: item["layers"] for item in client.execute("query-odx-disks")}[name] == layers
        faults.add("action=disk-error,op=disk-read")
    export = {"type": "vhost-user-scsi", "id": "e", "socket": f"{folder}/y.sock"}
    client.execute("odx-export-add", {**export, "units": [{"lun": 0, "disk": "y"}]})
    with ScsiGuest(folder / "y.sock") as late:
        assert late.initiator.command(0, READ_ONE.hex()).fault == (3, 0x11, 0)
        client.execute("odx-export-remove", {"id": "e"})
    for name in ("x", "y"):
        client.execute("odx-disk-remove", {"id": name})


def test_an_aborted_delay_leaves_nothing_behind(
    client: MonitorClient, faults: MonitorFaults, guest: ScsiGuest
) -> None:
    """The guest resets while a read waits, and what would have come after the delay does not come."""
    faults.add("op=READ(16),action=delay,seconds=10")
    after = faults.add("op=READ(16),action=stall")
    request = guest.submit(0, READ_ONE, room=512)
    eventually(lambda: faults.list()[0]["fired"] == 1, "not seen")
    guest.task_management(5, 0)
    while request.written is None:
        guest.queue.completions()
    assert scsi_end(request)[0] == Response.RESET
    client.execute("odx-clock-advance", {"seconds": 20})
    assert faults.find(after)["held"] == 0


def test_a_rule_for_the_reset_of_a_unit_that_comes_later(tmp_path: Path) -> None:
    """It meets the resets of that unit alone, and none once the number is another disk's."""
    arguments = fault_arguments(tmp_path, "--monitor", f"{tmp_path}/m.qmp")
    with (
        ServeProcess(arguments, cwd=tmp_path),
        MonitorClient(f"{tmp_path}/m.qmp") as client,
        ScsiGuest(tmp_path / "s.sock") as guest,
    ):
        client.execute("odx-disk-add", {"id": "x", "path": f"{tmp_path}/x.img", "size": 1 << 20})
        client.execute("odx-unit-add", {"export": "export0", "lun": 5, "disk": "x"})
        faults = MonitorFaults(client.execute)
        rule = faults.add("op=LOGICAL UNIT RESET,disk=x,action=delay,seconds=0.01")

        def fired_by_reset(lun: int) -> int:
            before: int = faults.find(rule)["fired"]
            assert guest.task_management(TaskManagement.LOGICAL_UNIT_RESET, lun) == Response.OK
            return int(faults.find(rule)["fired"]) - before

        assert [fired_by_reset(0), fired_by_reset(5)] == [0, 1]
        client.execute("odx-unit-remove", {"export": "export0", "lun": 5})
        client.execute("odx-unit-add", {"export": "export0", "lun": 5, "disk": "d0"})
        assert fired_by_reset(5) == 0


def test_the_command(folder: Path, client: MonitorClient, guest: ScsiGuest) -> None:
    """arm, list, release, remove, as people and as scripts see them."""
    assert command(folder, "arm", "name=slow,op=read,action=stall,armed=off") == "slow: off\n"
    assert json.loads(command(folder, "arm", "slow", "--json"))["state"] == "armed"
    request = guest.submit(0, READ_ONE, room=512)
    eventually(lambda: json.loads(command(folder, "list", "--json"))[0]["held"] == 1, "not held")
    shown = command(folder, "list")
    assert "slow" in shown
    assert "armed" in shown
    assert command(folder, "release", "slow") == "slow: off\n"
    while request.written is None:
        guest.queue.completions()
    assert command(folder, "remove", "slow") == "slow: off\n"
    assert client.execute("query-odx-faults") == []
    assert "no fault rule 'slow'" in command(folder, "arm", "slow", code=1)


def test_the_catalogue() -> None:
    """Every action and every cause of 23h, without a server."""
    done = subprocess.run(
        [sys.executable, "-m", "qemu_odx", "fault", "catalogue", "--json"],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    words = json.loads(done.stdout)
    assert {"sense", "partial", "torn-write"} <= set(words["actions"])
    assert sum(code.startswith("5/23/") for code in words["senses"].values()) == 11
    plain = subprocess.run(
        [sys.executable, "-m", "qemu_odx", "fault", "catalogue"], capture_output=True, text=True, check=True
    )
    assert "answer-after-reset" in plain.stdout


def test_no_server(tmp_path: Path) -> None:
    """Exit status 3, and the cure."""
    assert "start one with qemu-odx serve --monitor" in command(tmp_path, "list", code=3)
