"""Programs the lab calls, each with the package that brings it; and the machine itself.

May import: errors, recipe, doctor/{finding,host}.
"""

from __future__ import annotations

import platform
from dataclasses import dataclass
from typing import TYPE_CHECKING

from qemu_odx.lab.doctor.finding import Finding, Level
from qemu_odx.lab.errors import LabError
from qemu_odx.lab.recipe import this_host

if TYPE_CHECKING:
    from collections.abc import Iterator

    from qemu_odx.lab.doctor.host import Host


@dataclass(frozen=True, slots=True)
class Tool:
    """A program, the Debian package that has it, and what it is for.

    `feature` names what alone needs it, several with a space between them; without one the first demonstration
    would fail.
    """

    program: str
    package: str
    purpose: str
    feature: str = ""


TOOLS = (
    Tool("setpriv", "util-linux", "ends programs with the lab"),
    Tool("flock", "util-linux", "locks"),
    Tool("mmdebstrap", "mmdebstrap", "builds Linux guests"),
    Tool("mkfs.erofs", "erofs-utils", "builds Linux guests"),
    Tool("lz4", "lz4", "unpacks the guest's kernel"),
    Tool("zstd", "zstd", "unpacks the guest's kernel"),
    Tool("qemu-img", "qemu-utils", "overlays of disk images", "windows"),
    Tool("ssh", "openssh-client", "qemu-odx shell (its own client serves otherwise)", "ssh"),
    Tool(
        "x86_64-w64-mingw32-gcc",
        "gcc-mingw-w64-x86-64-win32",
        "compiles the Windows programs",
        "wine windows",
    ),
    Tool("make", "make", "compiles the Windows programs", "wine windows"),
    Tool("swtpm", "swtpm", "the TPM that Windows 11 asks for", "windows"),
)
FIRMWARE = (
    "/usr/share/OVMF/OVMF_CODE_4M.fd",
    "/usr/share/OVMF/OVMF_CODE.fd",
    "/usr/share/edk2/ovmf/OVMF_CODE.fd",
)


def check_tools(host: Host) -> Iterator[Finding]:
    """The machine, then one finding for each tool."""
    yield _architecture(platform.machine())
    yield _distribution()
    for tool in TOOLS:
        yield _tool(host, tool)
    yield _firmware(host)


def _architecture(machine: str) -> Finding:
    if machine == "x86_64":
        return Finding("tools", "processor", Level.OK, machine)
    return Finding(
        "tools", "processor", Level.ERROR, machine, "use an x86-64 host: the rings' barriers rely on it"
    )


def _distribution() -> Finding:
    try:
        host = this_host()
    except (LabError, OSError) as error:
        cure = "bring an image of your own: --image FILE --ssh USER@PORT"
        return Finding("tools", "distribution", Level.WARNING, f"no image can be built here ({error})", cure)
    return Finding("tools", "distribution", Level.OK, f"{host.distribution} {host.codename}")


def _tool(host: Host, tool: Tool) -> Finding:
    if host.which(tool.program):
        return Finding("tools", tool.program, Level.OK, tool.purpose, feature=tool.feature)
    level = Level.NOTE if tool.feature else Level.ERROR
    found = f"missing: {tool.purpose}"
    return Finding("tools", tool.program, level, found, f"install package {tool.package}", tool.feature)


def _firmware(host: Host) -> Finding:
    there = next((name for name in FIRMWARE if host.path(name).exists()), "")
    if there:
        return Finding("tools", "UEFI firmware", Level.OK, there, feature="windows")
    found = "missing: Windows guests start by it"
    return Finding("tools", "UEFI firmware", Level.NOTE, found, "install package ovmf", "windows")
