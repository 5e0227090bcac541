"""What each kind of guest is told, word for word, and a Windows guest's ssh server that is played by a script."""

from __future__ import annotations

import re
import shlex
import subprocess
from typing import TYPE_CHECKING

import pytest
from scripted_windows import powershell_errors, script_of, ssh_server, write_key

from qemu_odx.lab.adapters.linux import LinuxAdapter, lab_linux
from qemu_odx.lab.adapters.powershell import encoded, literal, run_program
from qemu_odx.lab.adapters.windows import WindowsAdapter
from qemu_odx.lab.adapters.wine import WineAdapter
from qemu_odx.lab.errors import LabError
from qemu_odx.lab.image import Image
from qemu_odx.lab.ssh import GuestShell, Login

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

NASTY = ['a"b', "it's", "two words", "", "back\\slash\\", 'c:\\dir\\"x"\\', "$env:PATH;`n", "%PATH%", "ü"]
WINDOWS = WindowsAdapter(Login("Administrator"))


def value_of(script: str, name: str) -> str:
    """The literal that a script assigns."""
    match = re.search(rf"{re.escape(name)}=('(?:[^']|'')*')", script)
    assert match is not None, script
    return match[1][1:-1].replace("''", "'")


def windows_arguments(line: str) -> list[str]:
    """A command line taken apart by the rules of "Parsing C command-line arguments" (Microsoft Learn)."""
    arguments: list[str] = []
    at = 0
    while at < len(line):
        if line[at] in " \t":
            at += 1
            continue
        word, quoted = "", False
        while at < len(line) and (quoted or line[at] not in " \t"):
            slashes = re.match(r"\\*", line[at:])[0]
            at += len(slashes)
            if line[at : at + 1] == '"':
                word += "\\" * (len(slashes) // 2)
                if len(slashes) % 2:
                    word += '"'
                elif quoted and line[at : at + 2] == '""':
                    word += '"'
                    at += 1
                else:
                    quoted = not quoted
                at += 1
            elif slashes:
                word += slashes
            else:
                word += line[at]
                at += 1
        arguments.append(word)
    return arguments


def test_windows_program_gets_exactly_its_arguments() -> None:
    """Through cmd.exe, PowerShell and the C run-time, whatever is in them."""
    script = script_of(WINDOWS.command(["C:/it's/odx.exe", *NASTY], "C:/Windows/Temp/o'dx"))
    assert value_of(script, "$i.FileName") == "C:/it's/odx.exe"
    assert windows_arguments(value_of(script, "$i.Arguments")) == NASTY
    assert value_of(script, "[Environment]::CurrentDirectory") == "C:/Windows/Temp/o'dx"
    assert powershell_errors(script) == []
    assert script.endswith("exit $p.ExitCode")


def test_command_line_is_safe_for_any_shell() -> None:
    """Nothing in it means anything to cmd.exe, PowerShell or sh."""
    line = WINDOWS.command(["x.exe", *NASTY])
    assert re.fullmatch(r"[A-Za-z0-9+/=. -]+", line)


def test_powershell_script_is_run_by_powershell() -> None:
    """By -File, which passes arguments as they are."""
    script = script_of(WINDOWS.command(["C:/t/odx-status.ps1", "-Drive", "E"]))
    assert value_of(script, "$i.FileName") == "powershell.exe"
    assert windows_arguments(value_of(script, "$i.Arguments"))[-4:] == [
        *("-File", "C:/t/odx-status.ps1"),
        *("-Drive", "E"),
    ]


@pytest.mark.parametrize(
    "line",
    [
        WINDOWS.boot_identity(),
        WINDOWS.reboot(),
        WINDOWS.power_off(),
        WINDOWS.disk_node("odx-'one'"),
        *WINDOWS.collected_commands().values(),
    ],
)
def test_every_windows_command_parses(line: str) -> None:
    """By a parser of PowerShell that is not ours."""
    assert powershell_errors(script_of(line)) == []


def test_windows_disk_is_found_by_serial_and_put_online() -> None:
    """The serial number is a literal; the answer is a device path."""
    script = script_of(WINDOWS.disk_node("odx-'one'"))
    assert literal("odx-'one'") in script
    assert "-IsOffline $false" in script
    assert r"'\\.\PhysicalDrive'+$d.Number" in script


def test_too_long_a_command_names_the_cure() -> None:
    """cmd.exe would cut it silently."""
    with pytest.raises(LabError, match="put it into a file"):
        encoded("#" * 4000)


def test_linux_command_runs_as_written(tmp_path: Path) -> None:
    """By a real shell, in the folder."""
    line = LinuxAdapter(Login()).command(["printf", "%s\\n", *NASTY], str(tmp_path))
    done = subprocess.run(["sh", "-c", f"{line}; pwd"], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [*NASTY, str(tmp_path)]


def test_linux_disk_is_found_by_serial(tmp_path: Path) -> None:
    """By the file that virtio-blk has, or by SCSI's page 80h."""
    for name, file, content in (
        ("vda", "serial", b"other"),
        ("vdb", "serial", b"odx-one"),
        ("sda", "device/vpd_pg80", b"\0\x80\0\x07odx-two"),
    ):
        (tmp_path / name / file).parent.mkdir(parents=True)
        (tmp_path / name / file).write_bytes(content)
    for serial, node in (("odx-one", "/dev/vdb"), ("odx-two", "/dev/sda"), ("odx-three", "")):
        line = LinuxAdapter(Login()).disk_node(serial).replace("/sys/block", str(tmp_path))
        done = subprocess.run(["sh", "-c", line], capture_output=True, text=True, check=False)
        assert done.stdout.strip() == node


def test_own_linux_is_asked_politely(tmp_path: Path) -> None:
    """The lab's image has no services; a distribution is shut down by its own program, as root."""
    (tmp_path / "host_key.pub").write_text("ssh-ed25519 AAAA\n")
    assert lab_linux(Image("lab", tmp_path)).power_off() == "sync; poweroff -f"
    assert LinuxAdapter(Login("root")).power_off() == "poweroff"
    assert LinuxAdapter(Login("me")).reboot() == "sudo -n reboot"


def test_wine_runs_windows_programs_by_its_wrapper() -> None:
    """All else is Linux."""
    wine = WineAdapter(Login())
    assert shlex.split(wine.command(["/tmp/x/odx.exe", "list"], "/tmp/x")) == [  # noqa: S108 - in the guest
        *("cd", "/tmp/x", "&&", "odx-wine", "1", "/dev/vdb", "/dev/vdc", "--", "list"),  # noqa: S108
    ]
    assert wine.command(["uname", "-a"]) == "uname -a"
    assert wine.name == "wine"


@pytest.fixture
def private_key(tmp_path: Path) -> Path:
    """Where the key is."""
    return tmp_path / "id_ed25519"


@pytest.fixture
def windows(private_key: Path) -> Iterator[tuple[int, list[str]]]:
    """A scripted Windows: its port, and the PowerShell it was sent."""
    scripts: list[str] = []

    def answer(command: str) -> tuple[int, str]:
        scripts.append(script_of(command))
        return 7, "638000000\r\n"

    with ssh_server(write_key(private_key), answer) as port:
        yield port, scripts


def test_windows_over_ssh(windows: tuple[int, list[str]], private_key: Path) -> None:
    """Log in by key, run, get exit code and output back."""
    port, scripts = windows
    shell = GuestShell(port, Login("Administrator", private_key))
    done = shell.run(WINDOWS.command(["odx.exe", *NASTY]), seconds=30)
    shell.close()
    assert (done.status, done.stdout) == (7, "638000000\r\n")
    assert done.stderr == "played\r\n"
    assert scripts == [script_of(encoded(run_program(["odx.exe", *NASTY])))]


def test_another_user_is_refused(windows: tuple[int, list[str]], private_key: Path) -> None:
    """The key opens no other account."""
    with pytest.raises(LabError, match="does not answer"):
        GuestShell(windows[0], Login("Guest", private_key))


def test_another_host_key_is_refused(windows: tuple[int, list[str]], private_key: Path) -> None:
    """Whoever is there, it is not our guest."""
    with pytest.raises(LabError, match="another host key"):
        GuestShell(windows[0], Login("Administrator", private_key, "ssh-ed25519 AAAA"))
