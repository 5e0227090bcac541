"""The plug-in with a guest that a libvirt daemon runs."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from libvirt_daemon import require_libvirt, system_daemon
from platformdirs import user_cache_path

if TYPE_CHECKING:
    import pytest

    from qemu_odx.lab.image import Image

pytest_plugins = ["pytester"]
CACHE = user_cache_path()
INNER = """
def test_one(odx_guest, odx_disk):
    assert type(odx_guest.live.machine).__name__ == "LibvirtMachine"
    odx_guest.sh(f"echo by libvirt > {odx_guest.node(odx_disk)}; sync")
    assert odx_disk.read(0, 512).startswith(b"by libvirt")
    assert not odx_guest.resumed

def test_the_same_guest_with_another_disk(odx_guest, odx_disk):
    assert odx_guest.sha256(odx_disk) == odx_disk.sha256()
    assert odx_disk.read(0, 512) == bytes(512)
"""


def test_a_domain(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, image: Image) -> None:
    """Disks are plugged into it and taken out again, as into a QEMU of ours."""
    require_libvirt()
    monkeypatch.setenv("XDG_CACHE_HOME", str(CACHE))
    pytester.makepyfile(INNER)
    with tempfile.TemporaryDirectory(prefix="odx-", dir="/tmp") as folder:
        Path(folder).chmod(0o755)
        with system_daemon(Path(folder) / "libvirt") as daemon:
            options = ("--odx-machine=libvirt", f"--odx-libvirt-uri={daemon.uri}", "-p", "no:cacheprovider")
            pytester.runpytest_subprocess(*options, timeout=250).assert_outcomes(passed=2)


def test_no_libvirt(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, image: Image) -> None:
    """A skip that says how to get it."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(CACHE))
    pytester.makeconftest("import sys; sys.modules['libvirt'] = None")
    pytester.makepyfile("def test_one(odx_guest): pass")
    result = pytester.runpytest_subprocess("--odx-machine=libvirt", "-rs", "-p", "no:cacheprovider")
    result.assert_outcomes(skipped=1)
    result.stdout.fnmatch_lines(["*pip install 'qemu-odx?libvirt?'*"])
