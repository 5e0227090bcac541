"""The plug-in's parts that need no guest: server, disks, tokens, options, artefacts, skips."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    Inner = Callable[..., pytest.RunResult]

TOKENS = """
import pytest
from qemu_odx.pytest_plugin.tokens import TokenRefusedError

@pytest.mark.odx_disk("source", size="1M")
@pytest.mark.odx_disk("target", size="2M")
class TestTokens:
    def test_old_data_arrives(self, odx_disks, odx_tokens):
        source, target = odx_disks
        assert [disk.name for disk in odx_disks] == ["source", "target"]
        source.write(4096, b"a" * 8192)
        token = odx_tokens.make(source, 4096, 8192)
        source.write(4096, b"b" * 8192)
        odx_tokens.write(token, target, 512)
        odx_tokens.write(token.data, target, 1 << 20, 512, token_offset=7680)
        assert target.read(0, 1024) == bytes(512) + b"a" * 512
        assert target.path.read_bytes()[512:8704] == b"a" * 8192
        assert target.read(1 << 20, 1024) == b"a" * 512 + bytes(512)
        assert source.read(4096, 8192) == b"b" * 8192

    def test_live_tokens(self, odx_disks, odx_tokens):
        source, target = odx_disks
        one, two = odx_tokens.make(source), odx_tokens.make(target, 512, 1024)
        assert [token["token"] for token in odx_tokens.list()] == [one.identifier, two.identifier]
        assert odx_tokens.list()[1]["extents"] == [{"offset": 512, "length": 1024}]
        odx_tokens.revoke(one)
        with pytest.raises(TokenRefusedError, match="5h/23h/06h"):
            odx_tokens.write(one, target)
        assert [token["token"] for token in odx_tokens.list()] == [two.identifier]

    def test_disks_are_clean(self, odx_disks):
        assert [disk.read() == bytes(disk.size) for disk in odx_disks] == [True, True]

    def test_a_refusal_says_its_sense(self, odx_disks, odx_tokens):
        source, target = odx_disks
        with pytest.raises(TokenRefusedError, match="5h/23h/0Ah") as caught:
            odx_tokens.write(bytes(512), target, 0, 512)
        assert caught.value.fault == (5, 0x23, 0x0A)
        token = odx_tokens.make(source, 0, 512)
        odx_tokens.write(token, target, delete=True)
        with pytest.raises(TokenRefusedError, match="5h/23h/09h"):
            odx_tokens.write(token, target)

    def test_what_is_no_block_or_outside(self, odx_disk, odx_tokens):
        with pytest.raises(ValueError, match="blocks of 512 bytes"):
            odx_disk.read(1, 512)
        with pytest.raises(ValueError, match="is outside"):
            odx_disk.write(odx_disk.size, bytes(512))
        with pytest.raises(ValueError, match="is outside"):
            odx_tokens.make(odx_disk, 512, odx_disk.size)

@pytest.mark.odx_disk("large", size=1 << 20, block_size=4096, serial_is_no_option=None)
def test_an_option_the_server_does_not_know(odx_disk):
    raise AssertionError("never reached")

@pytest.mark.odx_disk("large", size="1M", block_size=4096)
def test_options_reach_the_server(odx_disk):
    assert odx_disk.block_size == 4096
    assert odx_disk.read(4096, 4096) == bytes(4096)
    assert odx_disk.initiator().command(0, "25").data[4:8] == (4096).to_bytes(4, "big")
"""
FAILING = """
import os, signal, pytest

def test_good(odx_disk):
    pass

def test_bad(odx_disk):
    raise AssertionError("on purpose")

def test_killed(odx_server):
    os.kill(odx_server.pid, signal.SIGKILL)
"""


FAULTS = """
import pytest
from qemu_odx.lab.errors import LabError
from qemu_odx.pytest_plugin.tokens import TokenRefusedError

def test_once(odx_disk, odx_tokens, odx_fault):
    token = odx_tokens.make(odx_disk, 0, 4096)
    name = odx_fault("op=WRITE USING TOKEN,count=1,sense=token-expired")
    with pytest.raises(TokenRefusedError, match="5h/23h/07h"):
        odx_tokens.write(token, odx_disk, 8192)
    assert odx_fault.fired(name) == 1
    odx_tokens.write(token, odx_disk, 8192)
    assert odx_fault.fired(name) == 1

def test_none_is_left_of_the_test_before(odx_fault):
    assert odx_fault.list() == []

def test_for_a_block(odx_disk, odx_tokens, odx_fault):
    with odx_fault.rule("op=POPULATE TOKEN,sense=token-expired"):
        with pytest.raises(TokenRefusedError):
            odx_tokens.make(odx_disk)
    odx_tokens.make(odx_disk)

def test_what_is_no_rule(odx_fault):
    with pytest.raises(LabError, match="the disk server refused a command: 'action=' is missing"):
        odx_fault("when=tomorrow")

@pytest.mark.odx_server("--clock", "virtual")
def test_arguments_of_the_server(odx_server, odx_disk, odx_tokens):
    token = odx_tokens.make(odx_disk, timeout=60)
    odx_server.execute("odx-clock-advance", {"seconds": 61})
    with pytest.raises(TokenRefusedError, match="5h/23h/07h"):
        odx_tokens.write(token, odx_disk)
"""


def test_faults_and_the_monitor(inner: Inner) -> None:
    """A rule hits the test's own server, and is gone behind the test; commands of the monitor reach it."""
    inner(FAULTS).assert_outcomes(passed=5)


def test_tokens_and_disks(inner: Inner) -> None:
    """The host's side of tokens; disks as ordered, clean for every test."""
    result = inner(TOKENS)
    result.assert_outcomes(passed=6, errors=1)
    result.stdout.fnmatch_lines(["*serial-is-no-option*"])


@pytest.mark.parametrize(
    ("policy", "kept"), [("failed", {"bad", "killed"}), ("all", {"good", "bad", "killed"}), ("none", set())]
)
def test_artifacts_by_policy(inner: Inner, pytester: pytest.Pytester, policy: str, kept: set[str]) -> None:
    """Logs of those tests that the policy names; a server that dies is an error of its test."""
    result = inner(FAILING, f"--odx-keep={policy}", "--odx-artifacts=kept")
    result.assert_outcomes(passed=2, failed=1, errors=1)
    result.stdout.fnmatch_lines(["*the disk server did not end well (exit code -9)*"])
    folders = {path.name: path for path in pytester.path.glob("kept/*")}
    assert set(folders) == {f"test_inner.py_test_{name}" for name in kept}
    assert all((path / "serve.log").is_file() for path in folders.values())
    said = re.findall(r"^artefacts: (.*)$", result.stdout.str(), re.MULTILINE)
    assert set(said) >= {str(folders[f"test_inner.py_test_{name}"]) for name in kept - {"good"}}


def test_the_ini_file_and_the_command_line(inner: Inner, pytester: pytest.Pytester) -> None:
    """The ini file sets, the command line wins, nonsense is refused before anything runs."""
    text = "def test(odx_options): print(odx_options); raise AssertionError"
    pytester.makeini("[pytest]\nodx_keep = all\nodx_fresh = true\nodx_guest = wine\n")
    shown = inner(text, "--odx-guest=linux-fio").stdout.str()
    assert "keep='all'" in shown
    assert "fresh=True" in shown
    assert "guest='linux-fio'" in shown
    pytester.makeini("[pytest]\nodx_keep = some\n")
    result = inner(text)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*odx_keep = some*choose one of failed, all, none*"])
    for wrong in ("--odx-machine=vmware", "--odx-ssh=root", "--odx-image=nowhere.qcow2", "--odx-key=none"):
        assert inner(text, wrong).ret == pytest.ExitCode.USAGE_ERROR


def test_markers_that_are_wrong(inner: Inner) -> None:
    """One line that says what is wrong."""
    text = """
import pytest
@pytest.mark.odx_disk("a")
@pytest.mark.odx_disk("a")
def test_twice(odx_disk): pass
@pytest.mark.odx_disk("a", size="much")
def test_size(odx_disk): pass
@pytest.mark.odx_disk
def test_nameless(odx_disk): pass
"""
    result = inner(text, "--strict-markers", "-rE")
    result.assert_outcomes(errors=3)
    result.stdout.fnmatch_lines(
        ["*two odx_disk markers have one name*", "*'much' is no size*", "*missing*'name'*"]
    )


@pytest.mark.parametrize("arguments", [(), ("--odx-require",)])
def test_what_is_missing(inner: Inner, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...]) -> None:
    """Without QEMU a guest's test is skipped with the reason and the cure, or failed if tests have to run."""
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}")
    link_needed_programs(monkeypatch)
    result = inner("def test(odx_guest): pass", "-rsE", *arguments)
    result.assert_outcomes(**({"errors": 1} if arguments else {"skipped": 1}))
    result.stdout.fnmatch_lines(["*qemu-odx: QEMU is not installed * run ./odx setup*"])


def link_needed_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    """A PATH with what starts the disk server, and no QEMU."""
    folder = Path.cwd() / "programs"
    folder.mkdir()
    for name in ("setpriv", "sh", "test"):
        (folder / name).symlink_to(Path("/usr/bin") / name)
    monkeypatch.setenv("PATH", str(folder))


def test_pytest_starts_as_fast_as_without(tmp_path: Path) -> None:
    """The plug-in is loaded by every pytest of its users; the lab and its libraries are not."""
    look = (
        "import sys, pytest\n"
        "class Look:\n"
        "    def pytest_configure(self, config):\n"
        "        assert config.pluginmanager.hasplugin('qemu_odx')\n"
        "        print(sorted(name for name in sys.modules if name.startswith(('qemu_odx', 'paramiko', 'jinja2'))))\n"
        "pytest.main(['--co', '-p', 'no:cov', '-p', 'no:cacheprovider'], plugins=[Look()])\n"
    )
    command = [sys.executable, "-c", look]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path)
    assert done.stdout.splitlines()[0] == str(
        [
            "qemu_odx",
            "qemu_odx.pytest_plugin",
            "qemu_odx.pytest_plugin.options",
            "qemu_odx.pytest_plugin.plugin",
        ]
    )
