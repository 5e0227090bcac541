"""QEMU of another Debian release, unpacked beside the installed one and run without being installed.

May import: errors, paths, apt, recipe. Put the folder it returns first on PATH, and everything here runs that QEMU.
Its own loader, libraries, modules and firmware come with it: nothing of the host's is mixed in.
"""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from qemu_odx.lab import apt
from qemu_odx.lab.errors import LabError, tail
from qemu_odx.lab.paths import images_folder
from qemu_odx.lab.qemu import PROGRAM
from qemu_odx.lab.recipe import this_host

if TYPE_CHECKING:
    from collections.abc import Callable

RELEASES = {"bookworm": ("trixie", "10.0")}
"""The host's release -> a newer one, and the QEMU that comes with it."""
UNPACKED = ("bin", "lib", "lib64", "share")
PACKAGES = ("qemu-system-x86", "qemu-utils")
WRAPPER = """\
#!/bin/sh
tree={tree}
libraries=$tree/usr/lib/x86_64-linux-gnu
QEMU_MODULE_DIR=$libraries/qemu exec "$tree/usr/lib64/ld-linux-x86-64.so.2" --library-path "$libraries" \\
    --argv0 {name} "$tree/usr/bin/{name}" {firmware} "$@"
"""
FIRMWARE = '-L "$tree/usr/share/qemu" -L "$tree/usr/share/seabios" -L "$tree/usr/lib/ipxe/qemu"'


def newer_release() -> tuple[str, str] | None:
    """A newer Debian release than this host's and the version of its QEMU; None where none is known."""
    host = this_host()
    return RELEASES.get(host.codename) if host.distribution == "debian" else None


def ensure_newer_qemu(report: Callable[[str], None] = lambda _: None) -> Path | None:
    """The folder with the programs of a newer QEMU, unpacked now if the cache does not hold it.

    Returns:
        The folder, to be put first on PATH; None where no newer release than the host's is known.

    Raises:
        LabError: the packages cannot be had.
    """
    newer = newer_release()
    if newer is None:
        return None
    folder = images_folder() / f"qemu-{newer[1]}"
    if not folder.is_dir():
        report(f"fetching QEMU {newer[1]}")
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="unpacking-", dir=folder.parent) as scratch:
            _unpack(newer[0], Path(scratch))
            made = Path(scratch) / "programs"
            _write_wrappers(made, folder / "tree")
            (Path(scratch) / "tree").rename(made / "tree")
            if not folder.is_dir():
                made.rename(folder)
    return folder


def _unpack(codename: str, scratch: Path) -> None:
    """The packages with what they depend on, as a tree owned by whoever runs this."""
    host = this_host()
    sources = "".join(
        line.replace(f" {host.codename} ", f" {codename} ") + "\n"
        for line in apt.source_lines(host).splitlines()
        if f" {host.codename} " in line  # not -updates, not -security: one archive is enough
    )
    command = [
        "mmdebstrap",
        "--variant=extract",
        "--skip=check/empty,cleanup",
        "--format=tar",
        *(f"--aptopt={setting}" for setting in apt.apt_settings()),
        '--aptopt=Acquire::Languages "none";',
        '--aptopt=APT::Install-Recommends "false";',
        f"--include={','.join(PACKAGES)}",
        *(codename, "-", "-"),
    ]
    log, tree = scratch / "log", scratch / "tree"
    tree.mkdir()
    extract = ["tar", "-x", "-C", str(tree), "--no-same-owner", *(f"./usr/{name}" for name in UNPACKED)]
    with (
        log.open("w") as errors,
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors) as made,
        subprocess.Popen(extract, stdin=made.stdout, stderr=errors) as unpacked,
    ):
        assert made.stdin is not None  # noqa: S101 - asked for above
        assert made.stdout is not None  # noqa: S101 - asked for above
        made.stdout.close()  # it is the other program's now
        made.stdin.write(sources.encode())
        made.stdin.close()
    if made.returncode or unpacked.returncode:
        raise LabError(
            f"cannot fetch QEMU of Debian {codename}",
            "check the network and /etc/apt/sources.list",
            details=tail(log),
        )


def _write_wrappers(folder: Path, tree: Path) -> None:
    folder.mkdir()
    for name, firmware in ((PROGRAM, FIRMWARE), ("qemu-storage-daemon", "")):
        wrapper = folder / name
        wrapper.write_text(WRAPPER.format(tree=f"'{tree}'", name=name, firmware=firmware))
        wrapper.chmod(0o755)
