"""`qemu-odx run` and `up` with a real libvirt daemon: the same doors, and no domain left."""

from __future__ import annotations

import json
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from leftovers import Scratch
from libvirt_daemon import Daemon, require_libvirt, system_daemon

if TYPE_CHECKING:
    from collections.abc import Iterator

    from qemu_odx.lab.image import Image

LAB = """\
[lab]
machine = "libvirt"
uri = "{uri}"
[disk.d0]
size = "64M"
[guest.g]
exports = ["scsi"]
memory = "256M"
"""


@pytest.fixture(scope="module")
def daemon() -> Iterator[Daemon]:
    """A system daemon of the tests' own."""
    require_libvirt()
    with tempfile.TemporaryDirectory(prefix="t") as folder:
        Path(folder).chmod(0o755)
        with system_daemon(Path(folder) / "libvirt") as running:
            yield running


@pytest.fixture
def scratch(image: Image, daemon: Daemon) -> Iterator[Scratch]:
    """A place with a lab's file; neither place nor daemon has anything left afterwards."""
    with tempfile.TemporaryDirectory(prefix="t") as folder:
        place = Scratch(Path(folder))
        (place.folder / "odx.toml").write_text(LAB.format(uri=daemon.uri))
        yield place
        while domains(daemon):  # libvirt ends them when the connection breaks, a moment later
            time.sleep(0.1)
        assert place.left("odx.toml", "kept") == {}


def domains(daemon: Daemon) -> list[Any]:
    """The daemon's domains."""
    import libvirt  # noqa: PLC0415 - an extra

    connection = libvirt.open(daemon.uri)
    try:
        return [domain.name() for domain in connection.listAllDomains()]
    finally:
        connection.close()


def test_script_runs_in_a_domain(scratch: Scratch) -> None:
    """Its JSON comes back, tokens flow, the domain's XML is among the results."""
    file, kept = str(scratch.folder / "odx.toml"), scratch.folder / "kept"
    done = scratch.run("run", "--lab", file, "--json", "--logs", str(kept), "odx_doctor.py")
    assert done.returncode == 0, done.stdout + done.stderr
    (disk,) = (disk for disk in json.loads(done.stdout)["result"]["disks"] if disk["serial"] == "odx-d0")
    assert disk["token"]["ok"]
    assert "<domain" in (kept / "domain.xml").read_text()


def test_interrupted_lab_leaves_no_domain(scratch: Scratch, daemon: Daemon) -> None:
    """Ctrl-C while the domain boots, and the end of a lab that is up."""
    file = str(scratch.folder / "odx.toml")
    with scratch.start("up", "it", "--lab", file) as process:
        while not domains(daemon):
            assert process.poll() is None, process.communicate()
            time.sleep(0.1)
        process.terminate()
        process.communicate()
    assert process.returncode == 143
    while domains(daemon):
        time.sleep(0.1)
    done = scratch.run("up", "it", "--lab", file)
    assert done.returncode == 0, done.stderr
    assert scratch.run("exec", "it", "uname").stdout == "Linux\n"
    assert len(domains(daemon)) == 1
    assert scratch.run("down", "it").returncode == 0
