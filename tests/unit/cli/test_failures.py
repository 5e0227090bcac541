"""How commands fail: an object under --json, a sentence for people; and what standard streams may be."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from qemu_odx.cli.main import main
from qemu_odx.lab.session.outcome import ExitCode

ROOT = Path(__file__).parents[3]
ABSENT = "/nonexistent/file"
FAILING: dict[str, tuple[list[str], int]] = {
    "serve": (["--monitor", ABSENT], 1),
    "demo": ([], 121),
    "image build": (["beos"], 1),
    "image verify": (["beos"], 1),
    "image remove": (["beos"], 1),
    "run": (["none.py"], 2),
    "up": (["--lab", ABSENT], 2),
    "down": (["none"], 1),
    "exec": (["none", "true"], 125),
    "cp": (["a", "none:b"], 1),
    "conform": (["--only", "nothing"], 2),
    "windows check": (["--vectors", ABSENT], 2),
    "windows explain": (["--disk", ABSENT], 2),
    "token list": ([], 3),
    "token revoke": (["0" * 16], 3),
    "copy list": ([], 3),
    "copy abort": (["1"], 3),
    "disk list": ([], 3),
    "disk add": (["id=a,path=b"], 3),
    "disk remove": (["a"], 3),
    "disk resize": (["a"], 3),
    "export list": ([], 3),
    "export add": (["type=vhost-user-blk,socket=s,disk=d"], 3),
    "export remove": (["a"], 3),
    "export add-unit": (["a", "1", "d"], 3),
    "export remove-unit": (["a", "1"], 3),
    "clock show": ([], 3),
    "clock advance": (["1s"], 3),
    "stats": ([], 3),
    "top": ([], 3),
    "trace show": ([ABSENT], 1),
    "trace stats": ([ABSENT], 1),
    "trace start": (["t"], 3),
    "trace stop": ([], 3),
    "replay": ([ABSENT], 3),
    "fault list": ([], 3),
    "fault arm": (["a"], 3),
    "fault release": (["a"], 3),
    "fault remove": (["a"], 3),
    "corruption show": ([], 3),
    "corruption scan": (["--disk", "a"], 3),
    "power cut": ([], 3),
    "power picture": (["--disk", "a", "--image", "i"], 3),
    "doctor": (["--ssh", "nobody"], 2),
    "config check": ([ABSENT], 2),
    "config show": ([ABSENT], 2),
}
"""Every command with --json that can fail here, what it fails on, and its exit code."""
NEVER = {"help exit-codes", "fault catalogue", "image list", "ps"}
"""Commands with --json that have nothing to fail on."""


def with_json(group: click.Group, above: str = "") -> set[str]:
    """Every command that takes --json, by its words."""
    context, found = click.Context(group), set()
    for word in group.list_commands(context):
        command = group.get_command(context, word)
        if isinstance(command, click.Group):
            found |= with_json(command, f"{above}{word} ")
        elif command is not None and any("--json" in parameter.opts for parameter in command.params):
            found.add(f"{above}{word}")
    return found


@pytest.fixture(autouse=True)
def nothing_of_the_user(monkeypatch: pytest.MonkeyPatch) -> None:
    """No server, and folders for images and labs that cannot be made."""
    monkeypatch.setenv("QEMU_ODX_MONITOR", ABSENT)
    monkeypatch.setenv("XDG_CACHE_HOME", "/dev/null/cache")
    monkeypatch.setenv("XDG_STATE_HOME", "/dev/null/state")


def run(*words: str) -> Result:
    """`qemu-odx WORDS`, in this process; it ends as a command does, by no exception of its own."""
    done = CliRunner().invoke(main, words)
    assert isinstance(done.exception, SystemExit | None), done.exception
    return done


def test_every_command_with_json_is_looked_at() -> None:
    """A new command has its failure here."""
    assert with_json(main) == {*FAILING, *NEVER}


@pytest.mark.parametrize("name", FAILING)
def test_a_failure_is_one_object(name: str) -> None:
    """And one sentence, behind the command's words or at least the program's."""
    words, code = FAILING[name]
    done = run(*name.split(), "--json", *words)
    told = json.loads(done.stdout)
    assert (done.exit_code, told["ok"]) == (code, False), done.stderr
    assert done.stderr.splitlines()[-1] in {f"qemu-odx: {told['error']}", f"qemu-odx {name}: {told['error']}"}
    assert run(*name.split(), *words).stdout == ""


@pytest.mark.parametrize("name", [*FAILING, *sorted(NEVER)])
def test_wrong_usage_is_one_object(name: str) -> None:
    """Also what click finds wrong."""
    done = run(*name.split(), "--json", "--no-such-option")
    told = json.loads(done.stdout)
    assert (done.exit_code, told["ok"]) == (2, False)
    assert told["error"]
    assert run(*name.split(), "--no-such-option").stdout == ""


@pytest.mark.parametrize(
    "words", [["image", "build", "linux"], ["up"], ["run", "odx_copy.py"]], ids=lambda words: words[0]
)
def test_a_folder_that_cannot_be_made(words: list[str]) -> None:
    """The machine lacks it; the sentence names it."""
    done = run(*words)
    assert done.exit_code == ExitCode.ENVIRONMENT
    assert done.stderr.startswith("qemu-odx: /dev/null/"), done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("seconds", ["nan", "inf", "1e300"])
@pytest.mark.parametrize(
    "words",
    [
        ["top", "--interval"],
        ["conform", "--patience"],
        ["run", "--time-out"],
        ["exec", "--time-out"],
        ["image", "build", "windows", "--hours"],
    ],
    ids=lambda words: words[0],
)
def test_seconds_that_never_pass(words: list[str], seconds: str) -> None:
    """Are refused: no wait of the system has them."""
    done = run(*words, seconds)
    assert done.exit_code == 2
    assert f"Invalid value for '{words[-1]}'" in done.stderr


def test_an_advance_beyond_all_numbers() -> None:
    """The server could not read it."""
    assert run("clock", "advance", "9" * 400).exit_code == 2


@pytest.mark.parametrize("option", ["--junit", "--write-kit"])
def test_a_file_that_cannot_be_written_is_said_at_once(option: str, tmp_path: Path) -> None:
    """Not when all checks are done."""
    for place, said in ((tmp_path, "is a directory"), (tmp_path / "no/file", "there is no folder")):
        done = run("conform", "--json", option, str(place))
        assert done.exit_code == 2
        assert said in json.loads(done.stdout)["error"]


# -- standard streams ------------------------------------------------------------------------------

PRINTING = {
    "help": ["--help"],
    "echo": ["man"],
    "print": ["conform", "--list"],
    "table": ["help", "exit-codes"],
}


def shell(line: str, *words: str, unbuffered: str = "") -> subprocess.CompletedProcess[str]:
    """Run a line of sh in which "$@" is `qemu-odx WORDS`."""
    command = [sys.executable, "-m", "qemu_odx", *words]
    return subprocess.run(
        ["sh", "-c", line, "sh", *command],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": unbuffered},
    )


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("words", PRINTING.values(), ids=PRINTING)
def test_no_room_for_the_output(words: list[str], unbuffered: str) -> None:
    """A sentence; the kernel has a file for it."""
    done = shell('"$@" > /dev/full', *words, unbuffered=unbuffered)
    assert done.returncode == ExitCode.ENVIRONMENT
    assert done.stderr.startswith("qemu-odx: standard output: No space left on device; ")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("words", PRINTING.values(), ids=PRINTING)
def test_output_that_is_closed(words: list[str]) -> None:
    """Nobody wants it, which is no failure."""
    done = shell('"$@" >&-', *words)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("words", PRINTING.values(), ids=PRINTING)
def test_a_reader_that_left(words: list[str], unbuffered: str) -> None:
    """No word, exit code 1, whoever notices first."""
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "qemu_odx", *words]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": unbuffered}
    done = subprocess.run(
        command, stdout=write, stderr=subprocess.PIPE, text=True, check=False, env=environment
    )
    os.close(write)
    assert (done.returncode, done.stderr) == (1, "")


OPENED = "import os, sys; from qemu_odx.cli.streams import open_streams; open_streams(); "


def test_no_image_gets_the_number_of_standard_output() -> None:
    """What is closed is open before a disk is."""
    look = f"{OPENED} sys.stderr.write(os.readlink('/proc/self/fd/1'))"
    assert shell(f'"$1" -c "{look}" >&-').stderr == "/dev/null"


def test_a_character_that_the_encoding_has_not() -> None:
    """Is shown by its number."""
    assert shell(f'PYTHONIOENCODING=ascii:strict "$1" -c "{OPENED} print(chr(0xb5))"').stdout == "\\xb5\n"
