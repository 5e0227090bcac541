"""Labs that run: names, records, scripts, addresses, exit codes, and whose end a broken connection was."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import click
import pytest
from click.testing import CliRunner

from qemu_odx.cli import help as help_command
from qemu_odx.cli.lab_options import LabChoice, lab_options
from qemu_odx.cli.main import main
from qemu_odx.cli.run import run as run_command
from qemu_odx.lab.config.options import LabOptionError
from qemu_odx.lab.disk_image import find_firmware
from qemu_odx.lab.errors import EndedError, LabError, LateError, MissingError, UsageError
from qemu_odx.lab.image import Image
from qemu_odx.lab.machines.libvirt import LibvirtMachine
from qemu_odx.lab.paths import labs_folder
from qemu_odx.lab.qemu import GuestSpec
from qemu_odx.lab.session import access, run, up
from qemu_odx.lab.session.access import Place, find_guest, ssh_command
from qemu_odx.lab.session.machines import own_image
from qemu_odx.lab.session.outcome import ExitCode, table
from qemu_odx.lab.session.record import (
    GuestRecord,
    LabRecord,
    Process,
    claimed,
    is_claimed,
    read_record,
    records,
    the_record,
    write_record,
)
from qemu_odx.lab.session.run import RunResult, crash_words
from qemu_odx.lab.session.script import find_script, scripts
from qemu_odx.lab.session.up import bring_up, take_down

ROOT = Path(__file__).parents[3]
NOBODY = Process(2**22, 1)  # no process has so large a number: proc_sys_kernel(5), pid_max
GUEST = GuestRecord("g", "linux", "a guest", "root", 2222, "/key", "ssh-ed25519 AAAA it", "/run/serial.log")


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A state folder of the test's own."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return tmp_path


def record(name: str, process: Process | None = None, *guests: GuestRecord) -> LabRecord:
    """A lab's record."""
    supervisor = process or Process.of(os.getpid())
    return LabRecord(name, supervisor, "now", "/run", guests or (GUEST,), {"d0": "/d0"}, {"scsi": "/s"})


def test_name_is_taken_once() -> None:
    """While a lab has it; afterwards nothing of it is left."""
    with claimed("one") as folder:
        assert is_claimed("one")
        with pytest.raises(LabError, match="a lab called one is up"), claimed("one"):
            pass
        assert folder.exists()
    assert not is_claimed("one")
    assert list(labs_folder().iterdir()) == []


@pytest.mark.parametrize("name", ["", "../x", "a b", ".a", "x" * 33])
def test_names_that_are_none(name: str) -> None:
    """A name is part of a path."""
    with pytest.raises(UsageError, match="is no name"), claimed(name):
        pass


def test_record_is_read_as_it_was_written() -> None:
    """By name, as the only one, in a list."""
    mine = record("one", None, replace(GUEST, process=Process(1, 2)), replace(GUEST, name="h"))
    with claimed("one") as folder:
        write_record(folder, mine)
        assert read_record("one") == the_record(None) == mine
        assert records() == [mine]
        with claimed("two") as other:
            write_record(other, record("two"))
            with pytest.raises(LabError, match="several labs are up; name one of one, two"):
                the_record(None)
    with pytest.raises(LabError, match="no lab called one is up; bring one up"):
        read_record("one")
    with pytest.raises(LabError, match="no lab is up"):
        the_record(None)


def test_half_written_record_is_no_record() -> None:
    """A lab that goes just now does not break the list."""
    with claimed("one") as folder:
        (folder / "lab.json").write_text('{"name": "one"')
        assert records() == []


def test_process_is_not_taken_for_another_with_its_number() -> None:
    """Number and start must fit; nobody else gets the signal."""
    with subprocess.Popen(["sleep", "600"]) as sleeper:
        process = Process.of(sleeper.pid)
        assert process.alive
        stranger = Process(process.pid, process.started + 1)
        assert not stranger.alive
        assert not stranger.send(signal.SIGKILL)
        assert sleeper.poll() is None
        assert process.send(signal.SIGTERM)
    assert not process.alive
    assert not process.send(signal.SIGTERM)
    assert not Process.of(NOBODY.pid).alive


def test_supervisor_that_does_not_go_is_killed() -> None:
    """Its lab is gone in any case, and the caller is told."""
    command = ["sh", "-c", "trap '' TERM HUP; echo; while :; do sleep 0.1; done"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as stubborn:
        assert stubborn.stdout is not None
        stubborn.stdout.readline()
        mine = record("one", Process.of(stubborn.pid))
        (labs_folder() / "one").mkdir(parents=True)
        (labs_folder() / "one/lock").touch()
        with pytest.raises(LateError, match="lab one did not go down"):
            take_down(mine, seconds=0.3)
    assert stubborn.returncode == -signal.SIGKILL
    assert not (labs_folder() / "one").exists()


def test_lab_that_is_up_is_not_brought_up_again() -> None:
    """Nothing is forked."""
    with claimed("one"), pytest.raises(LabError, match="a lab called one is up"):
        bring_up("one", cast("Any", None), cast("Any", None))


def test_addresses() -> None:
    """LAB, LAB/GUEST, nothing; a guest that is off is said to be so."""
    dead = replace(GUEST, name="off", process=NOBODY)
    with claimed("one") as folder:
        write_record(folder, record("one", None, GUEST, dead))
        assert find_guest(None)[1] == find_guest("one")[1] == find_guest("one/g")[1] == GUEST
        with pytest.raises(LabError, match="guest off of lab one is off"):
            find_guest("one/off")
        with pytest.raises(LabError, match="no guest x; take one of g, off"):
            find_guest("one/x")


@pytest.mark.parametrize(
    ("text", "address", "path"),
    [
        ("lab:/var/x", "lab", "/var/x"),
        ("lab/second:C:/x", "lab/second", "C:/x"),
        (":/x", "", "/x"),
        ("./a:b", None, "./a:b"),
        ("/a:b", None, "/a:b"),
        ("file", None, "file"),
    ],
)
def test_places(text: str, address: str | None, path: str) -> None:
    """A colon behind a lab's name makes it a place in a guest."""
    assert Place.parse(text) == Place(address, path)


def test_ssh_command_checks_the_guest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its key is the only known one; a guest without a known key is taken as it is."""
    monkeypatch.setattr(access.shutil, "which", lambda _: "/usr/bin/ssh")
    words = " ".join(ssh_command(GUEST, tmp_path, ["id"]) or [])
    assert "-p 2222" in words
    assert "StrictHostKeyChecking=yes" in words
    assert words.endswith("root@127.0.0.1 id")
    assert (tmp_path / "known_hosts-g").read_text() == "[127.0.0.1]:2222 ssh-ed25519 AAAA it\n"
    unknown = ssh_command(replace(GUEST, host_key=None, private_key=None), tmp_path) or []
    assert "StrictHostKeyChecking=no" in unknown
    assert "-i" not in unknown
    monkeypatch.setattr(access.shutil, "which", lambda _: None)
    assert ssh_command(GUEST, tmp_path) is None


def test_scripts_are_found(tmp_path: Path) -> None:
    """Ours by name, the user's by path; each with its interpreter."""
    ours = find_script("odx_copy.py", ["--mebibytes", "8"], "linux")
    assert ours.ours
    words = ours.words("linux", "/tmp/odx")  # noqa: S108 - in the guest
    assert words[-4:] == ["python3", "/tmp/odx/odx_copy.py", "--mebibytes", "8"]  # noqa: S108 - same
    script = tmp_path / "t.ps1"
    script.touch()
    users = find_script(str(script), ["-A", "b c"], "windows")
    assert users.words("windows", "C:/x") == ["C:/x/t.ps1", "-A", "b c"]
    program = tmp_path / "tool"
    program.touch()
    assert find_script(str(program), [], "linux").words("linux", "/x")[:2] == ["sh", "-c"]
    assert find_script("odx.exe", ["property"], "wine").words("wine", "/x") == ["/x/odx.exe", "property"]
    other = tmp_path / "other.exe"
    other.touch()
    assert find_script(str(other), [], "windows").file == other
    with pytest.raises(LabError, match="one of ours for wine"):
        find_script(str(other), [], "wine")
    with pytest.raises(
        LabError, match=r"no script nothing\.py; give a file, or one of ours for linux: .*odx_copy"
    ):
        find_script("nothing.py", [], "linux")


def test_listed_scripts_can_be_run() -> None:
    """Modules are not scripts."""
    assert {"odx_copy.py", "odx_doctor.py"} <= set(scripts("linux"))
    assert not {"sg.py", "odx.py", "disks.py"} & set(scripts("linux"))
    assert "odx-doctor.ps1" in scripts("windows")
    done = CliRunner().invoke(run_command, ["--list"])
    assert done.stdout.split() == scripts("linux")
    done = CliRunner().invoke(run_command, ["--list", "--json"])
    assert json.loads(done.stdout) == scripts("linux")


class FakeGuest:
    """A guest whose machine is gone, or not."""

    def __init__(self, *, ended: bool) -> None:
        self.machine = self
        self._ended = ended

    def await_end(self, _: float) -> bool:
        """Whether the machine is off."""
        return self._ended

    def console(self) -> str:
        """The serial port."""
        return "booting\n[ 1.0] Kernel panic - not syncing: test\n[ 1.1] more\n"


@pytest.mark.parametrize(
    ("ended", "over", "kind"),
    [(True, False, EndedError), (True, True, LateError), (False, True, LateError), (False, False, LabError)],
)
def test_whose_end_it_was(*, ended: bool, over: bool, kind: type[LabError]) -> None:
    """Time over, machine gone, or the connection alone."""
    deadline = cast("Any", type("D", (), {"over": over, "seconds": 3.0}))
    error = run._whose_end(cast("Any", FakeGuest(ended=ended)), deadline, LabError("broke", "look"))
    assert type(error) is kind
    if kind is EndedError:
        assert error.details.startswith("[ 1.0] Kernel panic")


def test_crash_is_quoted_from_its_verdict_on() -> None:
    """Without a verdict: the end."""
    assert crash_words("a\nKernel panic\nb") == "Kernel panic\nb"
    assert crash_words("\n".join("abcdefghijklmnop")).split("\n") == list("efghijklmnop")
    assert crash_words("") == ""


def test_printed_json_is_found() -> None:
    """All of the output, or its last line."""
    assert RunResult(stdout='{"a": 1}\n').printed == {"a": 1}
    assert RunResult(stdout="hello\n[1]\n").printed == [1]
    assert RunResult(stdout="hello\n").printed is None


def test_error_after_a_failed_script_does_not_hide_its_code() -> None:
    """A guest that will not power off matters only if its script went well."""
    failed, well = RunResult(code=7, finished=True), RunResult(code=0, finished=True)
    for result in (failed, well):
        run._blame(LabError("no power off", "look"), result)
    assert (failed.code, failed.finished) == (7, True)
    assert (well.code, well.finished, well.ok) == (ExitCode.LAB_FAILED, False, False)


def chosen(*options: str) -> LabChoice:
    """What these options say."""
    found: list[LabChoice] = []

    @click.command()
    @lab_options
    def it(choice: LabChoice) -> None:
        found.append(choice)

    done = CliRunner().invoke(it, list(options))
    assert done.exit_code == 0, done.output
    return found[0]


def test_lab_from_options(tmp_path: Path) -> None:
    """Image, login, disks, machine."""
    image = tmp_path / "w.qcow2"
    image.touch()
    options = ["--image", str(image), "--ssh", "Administrator@2022", "--os", "windows", "--memory", "4096"]
    lab = chosen(*options, "--cpus", "4", "--disk", "size=1M", "--accel", "tcg").lab()
    (guest,) = lab.guests
    assert (guest.image, guest.user, guest.port, guest.system) == (
        str(image),
        "Administrator",
        2022,
        "windows",
    )
    assert (guest.memory, guest.cpus, guest.exports) == (4 << 30, 4, ("scsi",))
    assert lab.accelerator == "tcg"


def test_an_own_image_started_by_uefi(tmp_path: Path) -> None:
    """As nearly every Windows is; the other way is the default."""
    image = tmp_path / "w.qcow2"
    image.touch()
    options = ("--image", str(image), "--ssh", "root@22")
    assert own_image(chosen(*options).lab().guests[0]).firmware is None
    (guest,) = chosen(*options, "--firmware", "uefi").lab().guests
    assert own_image(guest).firmware == find_firmware()


def test_lab_from_a_file(tmp_path: Path) -> None:
    """Options change machine and accelerator, nothing else."""
    file = tmp_path / "odx.toml"
    file.write_text('[lab]\naccelerator = "kvm"\n[disk.d0]\nsize = "1M"\n')
    assert chosen("--lab", str(file)).lab().accelerator == "kvm"
    assert chosen("--lab", str(file), "--accel", "tcg").lab().accelerator == "tcg"
    for option in (("--disk", "size=1M"), ("--guest", "wine")):
        with pytest.raises(LabOptionError, match=f"{option[0]} does not go with --lab"):
            chosen("--lab", str(file), *option).lab()


@pytest.mark.parametrize("options", [("--ssh", "root@22"), ("--os", "windows"), ("--firmware", "uefi")])
def test_options_of_an_image_need_one(options: tuple[str, ...]) -> None:
    """They would do nothing, silently."""
    with pytest.raises(LabOptionError, match="belong to --image"):
        chosen(*options).lab()


def test_options_that_would_do_nothing(tmp_path: Path) -> None:
    """Are refused, not ignored."""
    (tmp_path / "i.img").touch()
    with pytest.raises(LabOptionError, match="--guest and --image exclude each other"):
        chosen("--image", str(tmp_path / "i.img"), "--guest", "wine").lab()
    with pytest.raises(LabOptionError, match="--connect belongs to libvirt"):
        chosen("--connect", "qemu:///system").lab()
    for words in (
        ["shell", "one", "--cpus", "4"],
        ["doctor", "--monitor", "/m"],
        ["doctor", "--serial", "x"],
    ):
        done = CliRunner().invoke(main, words)
        assert done.exit_code == ExitCode.USAGE, words
        assert "qemu-odx " in done.stderr


@pytest.mark.parametrize(
    "words",
    [
        ["exec", "--json", "none", "true"],
        ["cp", "--json", "a", "none:/b"],
        ["down", "--json", "none"],
        ["run", "--json", "--guest", "linucks", "odx_copy.py"],
        ["image", "remove", "--json", "beos"],
        ["doctor", "--json", "--guest", "none"],
    ],
)
def test_failure_is_json_too(words: list[str]) -> None:
    """A script that asked for JSON gets JSON; people read stderr."""
    done = CliRunner().invoke(main, words)
    assert done.exit_code != 0
    found = json.loads(done.stdout)
    assert found["ok"] is False
    assert found["error"] in done.stderr
    assert found["logs"] is None


@pytest.mark.parametrize("words", [["run", "--logs"], ["run", "--report"], ["demo", "--report"]])
def test_folder_that_cannot_be_written_is_said_at_once(words: list[str], tmp_path: Path) -> None:
    """Not by a traceback when all is done."""
    (tmp_path / "file").touch()
    done = CliRunner().invoke(main, [*words, str(tmp_path / "file/below"), "odx_copy.py"])
    assert done.exit_code == ExitCode.USAGE
    assert "cannot be made" in done.stderr


@pytest.mark.parametrize("kind", [UsageError, MissingError, EndedError, LateError, LabError])
def test_error_of_a_lab_keeps_its_kind(kind: type[LabError]) -> None:
    """On its way from the lab's own process; the exit code hangs on it."""
    report = {"kind": kind.__name__, "error": "it", "cure": "do", "details": "", "logs": ""}
    assert type(up._as_error(report)) is kind


def test_image_that_is_none_is_wrong_usage() -> None:
    """Nothing is started or kept for a slip of the pen."""
    done = CliRunner().invoke(run_command, ["--guest", "linucks", "odx_copy.py"])
    assert done.exit_code == ExitCode.USAGE
    assert "there is no image called linucks; choose from: linux, " in done.stderr


def test_image_that_is_still_to_be_built(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The machine lacks it; the cure is to build it."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    done = CliRunner().invoke(main, ["run", "--json", "--guest", "windows", "odx-status.ps1"])
    told = json.loads(done.stdout)
    assert done.exit_code == told["exit"] == ExitCode.ENVIRONMENT
    assert "qemu-odx image build windows" in told["cure"]


def test_libvirt_that_cannot_be_reached(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The machine lacks its daemon; the cure is to start it."""

    class Unreachable(Exception):  # noqa: N818 - libvirt's name for it ends otherwise too
        """What libvirt raises."""

    def opened(_: str) -> None:
        raise Unreachable("no such socket")

    libvirt = SimpleNamespace(libvirtError=Unreachable, open=opened, registerErrorHandler=lambda *_: None)
    monkeypatch.setitem(sys.modules, "libvirt", libvirt)
    machine = LibvirtMachine(GuestSpec(Image("test", tmp_path), "tcg"), tmp_path)
    with pytest.raises(MissingError, match="start libvirtd"):
        machine.start()


@pytest.mark.parametrize("login", ["root", "root@", "@22", "root@x", "root@70000"])
def test_logins_that_are_none(login: str, tmp_path: Path) -> None:
    """USER@PORT."""
    (tmp_path / "i.img").touch()
    with pytest.raises(LabOptionError, match="write USER@PORT"):
        chosen("--image", str(tmp_path / "i.img"), "--ssh", login).lab()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["run", "--disk", "size=1X", "odx_copy.py"], "is no size"),
        (["run", "nothing.py"], "there is no script nothing.py"),
        (["run"], "say which SCRIPT"),
        (["run", "--lab", "/nonexistent.toml", "x"], "cannot be read"),
        (["up", "a b"], "is no name"),
    ],
)
def test_wrong_usage(words: list[str], said: str) -> None:
    """One sentence on stderr, nothing started."""
    done = CliRunner().invoke(main, words)
    assert done.exit_code == ExitCode.USAGE
    assert said in done.stderr
    assert done.stdout == ""


def test_exit_codes_are_documented_as_they_are() -> None:
    """On the command line and in docs/cli.md."""
    shown = json.loads(CliRunner().invoke(help_command.help_, ["exit-codes", "--json"]).stdout)
    assert shown == dict(table())
    page = (ROOT / "docs/cli.md").read_text()
    for code, words in table():
        assert f"| {code} | {words} |" in page
    assert {str(int(code)) for code in ExitCode} <= set(shown)


def test_every_command_is_in_the_documentation() -> None:
    """docs/cli.md names them all."""
    page = (ROOT / "docs/cli.md").read_text()
    context = click.Context(main)
    for name in main.list_commands(context):
        assert main.get_command(context, name) is not None
        assert f"`{name}`" in page, name


def test_time_is_not_wasted(monkeypatch: pytest.MonkeyPatch) -> None:
    """The deadline hangs up by itself, and not if the script was in time."""
    closed: list[bool] = []
    guest = cast(
        "Any", type("G", (), {"shell": type("S", (), {"close": staticmethod(lambda: closed.append(True))})})
    )
    late = run.Deadline(guest, 0.01)
    while not late.over or not closed:
        time.sleep(0.01)
    soon = run.Deadline(guest, 600)
    soon.cancel()
    assert not soon.over
    assert closed == [True]
