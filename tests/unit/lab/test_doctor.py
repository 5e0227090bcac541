"""The doctor on machines that lack something: a folder for the root, scripted programs; and on this one."""

from __future__ import annotations

import fcntl
import json
import resource
import socket
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner

from qemu_odx.cli import doctor as command
from qemu_odx.lab.abilities import Abilities
from qemu_odx.lab.doctor import memory, storage
from qemu_odx.lab.doctor.checkup import FEATURES, check_up
from qemu_odx.lab.doctor.finding import Finding, Level
from qemu_odx.lab.doctor.host import Answer, Host, run_program
from qemu_odx.lab.doctor.leftovers import build_lock, dead_labs, old_folders
from qemu_odx.lab.doctor.libvirt import check_libvirt
from qemu_odx.lab.doctor.memory import check_memory, open_files
from qemu_odx.lab.doctor.qemu import LEAVES_WITH, check_qemu, run_tiny_guest
from qemu_odx.lab.doctor.security import check_security
from qemu_odx.lab.doctor.storage import check_storage, reflink, sockets
from qemu_odx.lab.doctor.tools import TOOLS, check_tools
from qemu_odx.lab.errors import LabError
from qemu_odx.lab.run_folder import PREFIX, RunFolder
from qemu_odx.lab.session.record import LabRecord, Process, claimed, write_record
from qemu_odx.lab.windows_programs import COMPILER

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

ABLE = Abilities("10.0.2", blk=True, scsi=True, scsi_reconnects=True, png=True, reconnect_ms=True)
VERSION = "QEMU emulator version 7.2.22 (Debian)"
DEVICES = 'name "vhost-user-scsi-pci", bus PCI\nname "vhost-user-blk-pci", bus PCI\n'


class Script:
    """Programs that answer what the test says; without a word on one, it fails as QEMU does."""

    def __init__(self, *, version: str = VERSION, devices: str = DEVICES, guests: str = "tcg kvm") -> None:
        self.version, self.devices, self.guests = version, devices, guests

    def __call__(self, words: Sequence[str], _: float) -> Answer:
        """Run a program."""
        if "--version" in words:
            return Answer(0, self.version, "")
        if "-device" in words and "help" in words:
            return Answer(0, self.devices, "")
        if "-object" in words:
            return Answer(0, "  memory-backend-memfd\n", "")
        if "-machine" not in words:
            return Answer(3, "", "No module named 'libvirt'")
        accelerator = words[words.index("-machine") + 1].rsplit("=", 1)[1]
        if accelerator in self.guests.split():
            return Answer(LEAVES_WITH, "", "")
        return Answer(1, "", f"starting\nfailed to initialize {accelerator}")


@pytest.fixture
def host(tmp_path: Path) -> Host:
    """A machine with everything."""
    put(tmp_path, "dev/kvm")
    put(tmp_path, "proc/cpuinfo", "flags : fpu vmx sse\n")
    put(tmp_path, "proc/meminfo", "MemAvailable: 4194304 kB\nHugePages_Total: 8\nHugePages_Free: 8\n")
    put(tmp_path, "usr/share/OVMF/OVMF_CODE_4M.fd")
    (tmp_path / "dev/shm").mkdir()
    return Host(
        root=tmp_path, which=lambda name: f"/usr/bin/{name}", run=Script(), abilities=lambda: ABLE, user=0
    )


def put(root: Path, name: str, text: str = "") -> None:
    """Make a file of the machine."""
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_text(text)


def named(findings: Iterable[Finding], name: str) -> Finding:
    """The finding of that name."""
    return {finding.name: finding for finding in findings}[name]


def test_machine_with_everything_has_no_complaint(host: Host) -> None:
    """QEMU, memory and tools are all well."""
    findings = [*check_qemu(host), *check_memory(host), *check_tools(host)]
    assert [finding for finding in findings if finding.level is not Level.OK] == []


def test_missing_qemu_is_one_error_with_its_cure(host: Host) -> None:
    """Nothing else can be said then."""
    (finding,) = check_qemu(replace(host, which=lambda _: None))
    assert finding.level is Level.ERROR
    assert "./odx setup" in finding.cure


@pytest.mark.parametrize(
    ("script", "name", "level"),
    [
        (Script(version="QEMU emulator version 6.1.0"), "version", Level.WARNING),
        (Script(version="what?"), "version", Level.ERROR),
        (Script(devices='name "vhost-user-blk-pci"'), "vhost-user-scsi-pci", Level.ERROR),
        (Script(guests="tcg"), "kvm", Level.WARNING),
        (Script(guests="kvm"), "tcg", Level.WARNING),
        (Script(guests=""), "tcg", Level.ERROR),
    ],
)
def test_what_qemu_lacks_is_named(host: Host, script: Script, name: str, level: Level) -> None:
    """Each with the level it deserves, and a cure."""
    finding = named(check_qemu(replace(host, run=script)), name)
    assert finding.level is level
    assert finding.cure


def test_abilities_are_told(host: Host) -> None:
    """QEMU 7.2 gives SCSI disks up for good; one that cannot be asked is a warning."""
    old = replace(host, abilities=lambda: replace(ABLE, scsi_reconnects=False))
    assert named(check_qemu(old), "vhost-user-scsi reconnect").level is Level.NOTE

    def silent() -> Abilities:
        raise LabError("QEMU does not start", "install QEMU again")

    mute = named(check_qemu(replace(host, abilities=silent)), "vhost-user-scsi reconnect")
    assert (mute.level, mute.found, mute.cure) == (Level.WARNING, "QEMU does not start", "install QEMU again")


def test_kvm_that_is_only_present_is_seen_through(host: Host) -> None:
    """The device opens, the processor cannot: as inside many virtual machines."""
    put(host.root, "proc/cpuinfo", "flags : fpu sse\n")
    finding = named(check_qemu(host), "kvm")
    assert finding.level is Level.WARNING
    assert "neither vmx nor svm" in finding.found


def test_kvm_that_runs_no_guest_is_quoted(host: Host) -> None:
    """QEMU's own last words."""
    assert (
        "failed to initialize kvm" in named(check_qemu(replace(host, run=Script(guests="tcg"))), "kvm").found
    )


def test_tiny_guest_really_runs() -> None:
    """Five bytes of firmware, by TCG of the real QEMU; an accelerator that does not exist is reported."""
    assert run_tiny_guest(Host(), "tcg") == ""
    assert "nonsense" in run_tiny_guest(Host(), "nonsense")


@pytest.mark.parametrize(("limit", "level"), [(20000, "ok"), (512, "warning"), (100, "error"), (-1, "ok")])
def test_open_files(limit: int, level: str) -> None:
    """RLIM_INFINITY is -1."""
    assert resource.RLIM_INFINITY == -1
    assert open_files(limit).level.value == level


@pytest.mark.parametrize(("kib", "level"), [(4 << 20, "ok"), (600 << 10, "warning"), (100 << 10, "error")])
def test_memory_that_is_short(host: Host, kib: int, level: str) -> None:
    """Below two guests it warns, below one it fails."""
    put(host.root, "proc/meminfo", f"MemAvailable: {kib} kB\n")
    assert named(check_memory(host), "ram").level.value == level


def test_forbidden_memfd_is_an_error(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """A container may forbid the system call."""

    def forbidden(*_: object) -> int:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(memory.os, "memfd_create", forbidden)
    assert named(check_memory(host), "memfd").level is Level.ERROR


@pytest.mark.parametrize("tool", TOOLS, ids=lambda tool: tool.program)
def test_missing_tool_names_its_package(host: Host, tool: object) -> None:
    """Needed ones are errors, those of a feature only if it is asked for."""
    assert isinstance(tool, type(TOOLS[0]))
    poor = replace(host, which=lambda name: None if name == tool.program else "/usr/bin/it")
    finding = named(check_tools(poor), tool.program)
    assert finding.level is (Level.NOTE if tool.feature else Level.ERROR)
    assert tool.package in finding.cure
    if tool.feature:
        assert all(finding.needed_by({one}).level is Level.ERROR for one in tool.feature.split())
        assert finding.needed_by({"another"}).level is Level.NOTE


@pytest.mark.parametrize(
    ("files", "name", "level"),
    [
        ({"sys/module/apparmor/parameters/enabled": "Y\n"}, "AppArmor", "note"),
        ({"sys/fs/selinux/enforce": "1"}, "SELinux", "note"),
        ({"proc/sys/kernel/unprivileged_userns_clone": "0"}, "user namespaces", "error"),
        ({"etc/subuid": "somebody:100000:65536"}, "user namespaces", "error"),
        ({"etc/subuid": "1000:100000:65536"}, "user namespaces", "ok"),
        ({"proc/sys/kernel/io_uring_disabled": "2"}, "io_uring", "note"),
    ],
)
def test_policies_of_the_kernel(
    host: Host, files: dict[str, str], name: str, level: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each says what to do."""
    monkeypatch.setenv("LOGNAME", "tester")
    for path, text in files.items():
        put(host.root, path, text)
    finding = named(check_security(replace(host, user=1000)), name)
    assert finding.level.value == level
    assert bool(finding.cure) is (level != "ok")


def test_missing_newuidmap_is_an_error_for_users_only(host: Host) -> None:
    """Root needs none."""
    poor = replace(host, which=lambda _: None)
    assert named(check_security(poor), "user namespaces").level is Level.OK
    assert "uidmap" in named(check_security(replace(poor, user=1000)), "user namespaces").cure


@pytest.mark.parametrize(
    ("answers", "levels"),
    [
        ([Answer(3, "", "No module named 'libvirt'")] * 2, ["note"]),
        ([Answer(0, "9.0.0\n", ""), Answer(1, "", "Failed to connect")], ["ok", "ok", "note"]),
        ([Answer(1, "", "no daemon"), Answer(None, "", "not done within 60 s")], ["ok", "note", "note"]),
    ],
)
def test_libvirt(host: Host, answers: list[Answer], levels: list[str]) -> None:
    """No binding, one daemon of two, none."""
    left = iter(answers)
    findings = list(check_libvirt(replace(host, run=lambda *_: next(left))))
    assert [finding.level.value for finding in findings] == levels
    fails = any(finding.needed_by({"libvirt"}).level is Level.ERROR for finding in findings)
    assert fails is all(answer.code != 0 for answer in answers)


def test_reflinks_are_tried(xfs: Path, tiny: Path) -> None:
    """XFS shares blocks, tmpfs cannot."""
    assert reflink(xfs).level is Level.OK
    assert reflink(tiny).level is Level.NOTE


def test_full_file_system_is_an_error(host: Host, tiny: Path) -> None:
    """2 MiB are not enough for any image."""
    finding = named(check_storage(host, (tiny,)), str(tiny))
    assert finding.level is Level.ERROR
    assert "make room" in finding.cure


def test_folder_that_may_not_be_written_is_an_error(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """The cache of another user, for one."""
    monkeypatch.setattr(storage.os, "access", lambda *_: False)
    assert {finding.found for finding in check_storage(host) if finding.level is Level.ERROR} == {
        "may not be written"
    }


def test_sockets_are_tried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A path that is too long for a socket is found before QEMU finds it."""
    deep = tmp_path / ("long" * 25)
    deep.mkdir()
    assert sockets(deep).level is Level.ERROR
    assert sockets(Path("/tmp")).level is Level.OK  # noqa: S108 - it makes a folder of its own there

    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    assert "Permission denied" in sockets(Path("/tmp")).found  # noqa: S108 - same


def test_leftovers_are_named(tmp_path: Path) -> None:
    """A killed run's folder is, one in use is not; so with the lock of a build."""
    dead = tmp_path / f"{PREFIX}dead"
    dead.mkdir()
    (dead / "lock").touch()
    assert str(dead) in old_folders(tmp_path).found
    with RunFolder(Path("/tmp")) as run:  # noqa: S108 - it makes a folder of its own there
        assert str(run.path) not in old_folders(run.path.parent).found
    assert build_lock(tmp_path / "lock").level is Level.OK
    with (tmp_path / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert build_lock(tmp_path / "lock").level is Level.NOTE


def test_killed_labs_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the command that cleans up after them."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert dead_labs().level is Level.OK
    with claimed("gone") as folder:
        write_record(folder, LabRecord("gone", Process(2**22, 1), "now", "/run", (), {}, {}))
        assert dead_labs().cure == "qemu-odx down gone"


def test_check_that_breaks_is_a_finding(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """The others go on."""

    def broken(_: str) -> str:
        raise OSError(5, "Input/output error")

    report = check_up(replace(host, which=broken))
    assert not report.ok
    assert {finding.area for finding in report.findings} >= {"tools", "qemu", "memory", "leftovers"}


def test_programs_that_cannot_be_run() -> None:
    """Missing, too slow: answers, not exceptions."""
    assert run_program(["/nonexistent"], 5).code == 127
    assert run_program(["sleep", "60"], 0.1).code is None


def test_this_machine_as_json() -> None:
    """One object; the machine that runs the tests can run a demonstration."""
    done = CliRunner().invoke(command.doctor, ["--json"])
    assert done.exit_code == 0, done.stdout
    found = json.loads(done.stdout)
    assert found["ok"] is True
    assert done.stderr == ""
    keys = {"area", "name", "level", "found", "cure", "feature"}
    assert all(set(finding) == keys for finding in found["findings"])
    assert all(finding["cure"] for finding in found["findings"] if finding["level"] != "ok")
    places = [(finding["area"], finding["name"]) for finding in found["findings"]]
    assert len(places) == len(set(places))
    assert sum(found["counts"].values()) == len(found["findings"])


def test_table_shows_what_is_wrong_and_the_cure(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without colours in a pipe; an error makes exit code 1; what is well is shown on demand."""
    bad = Finding("tools", "thing [x]", Level.ERROR, "missing [y]", "install package thing", "windows")
    good = Finding("tools", "other", Level.OK, "there")
    monkeypatch.setattr(command, "check_up", lambda **_: command.Report((bad, good)))
    done = CliRunner().invoke(command.doctor, [])
    assert done.exit_code == 1
    for text in ("thing [x]", "missing [y]", "install package thing", "Something will fail: 1 ok, 1 error."):
        assert text in done.stdout
    assert "\x1b" not in done.stdout
    assert "other" not in done.stdout
    assert "other" in CliRunner().invoke(command.doctor, ["-v"]).stdout


def test_features_are_those_of_the_findings(host: Host) -> None:
    """What can be asked for is what some finding is for."""
    findings = (*check_tools(host), *check_libvirt(Host()))
    assert set(FEATURES) <= {word for finding in findings for word in finding.feature.split()}


def test_tools_are_those_that_the_lab_calls() -> None:
    """What nothing calls cannot be missed; what a Windows guest is started and filled with can."""
    package = Path(command.__file__).parents[1]
    sources = "".join(path.read_text() for path in package.rglob("*.py") if path.name != "tools.py")
    bootstrap = (package.parent / "odx").read_text().split()
    unused = {tool.program for tool in TOOLS if f'"{tool.program}"' not in sources} - {*bootstrap}
    assert unused == set()
    needed = {tool.program for tool in TOOLS if "windows" in tool.feature.split()}
    assert {"qemu-img", COMPILER, "make"} <= needed
