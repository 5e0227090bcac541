"""The monitor beside that of qemu-storage-daemon: the same client, the same forms."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest

from qemu_odx.cli.monitor_client import MonitorClient, MonitorFailure
from qemu_odx.server.monitor.general import schema
from qemu_odx.testing.qapi import Schema, SchemaError
from qemu_odx.testing.serve import ServeProcess

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def qemu(tmp_path: Path) -> Iterator[MonitorClient]:
    """A client of a real qemu-storage-daemon."""
    path, pid = tmp_path / "q.sock", tmp_path / "q.pid"
    chardev = f"socket,id=m,path={path},server=on,wait=off"
    command = ["qemu-storage-daemon", "--daemonize", "--pidfile", pid, "--chardev", chardev]
    subprocess.run([*command, "--monitor", "chardev=m"], check=True, timeout=60)
    with MonitorClient(str(path)) as client:
        yield client
        client.execute("quit")


@pytest.fixture
def ours(tmp_path: Path) -> Iterator[MonitorClient]:
    """A client of our server."""
    with (
        ServeProcess(["--monitor", "m.sock"], cwd=tmp_path),
        MonitorClient(str(tmp_path / "m.sock")) as client,
    ):
        yield client


def test_our_schema_has_the_form_that_qemu_describes(qemu: MonitorClient) -> None:
    """QEMU's schema describes what query-qmp-schema returns: ours is that too, and what is not is noticed."""
    theirs = Schema(qemu.execute("query-qmp-schema"))
    theirs.check_return("query-qmp-schema", list(schema()))
    with pytest.raises(SchemaError):
        theirs.check_return("query-qmp-schema", [*schema(), {"name": "x", "meta-type": "command"}])


def test_answers_that_both_give_have_one_form(qemu: MonitorClient, ours: MonitorClient) -> None:
    """By QEMU's schema: version, names of commands."""
    theirs = Schema(qemu.execute("query-qmp-schema"))
    for command in ("query-version", "query-commands"):
        theirs.check_return(command, ours.execute(command))
        Schema(list(schema())).check_return(command, qemu.execute(command))


@pytest.mark.parametrize(
    ("command", "arguments"),
    [
        ("no-such-command", {}),
        ("qmp_capabilities", {}),
        ("query-version", {"more": 1}),
        ("quit", {"more": 1}),
    ],
)
def test_both_refuse_with_the_same_class(
    qemu: MonitorClient, ours: MonitorClient, command: str, arguments: dict[str, object]
) -> None:
    """Clients look at the class."""
    classes = set()
    for client in (qemu, ours):
        with pytest.raises(MonitorFailure) as refused:
            client.execute(command, arguments)
        classes.add(refused.value.error_class)
    assert len(classes) == 1
