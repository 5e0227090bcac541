"""What a run ran on: QEMU, kernel, processor, versions.

Imports nothing of ours below the package's root. Next: the `environment` of a `Report`.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import qemu_odx

QEMU = "qemu-system-x86_64"
PACKAGES = ("qemu.qmp", "paramiko", "libvirt-python", "pytest")
ASK_SECONDS = 60.0


def host_environment() -> dict[str, str]:
    """Name -> value, for people; what cannot be found out is left out."""
    found = {
        "qemu-odx": qemu_odx.__version__,
        "QEMU": _qemu_version(),
        "host kernel": f"{platform.system()} {platform.release()}",
        "host": _distribution(),
        "processor": _processor(),
        "processors": str(len(os.sched_getaffinity(0))),
        "memory": f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / (1 << 30):.1f} GiB",
        "Python": platform.python_version(),
        **{name: _version(name) for name in PACKAGES},
    }
    return {name: value for name, value in found.items() if value}


def _qemu_version() -> str:
    if shutil.which(QEMU) is None:
        return ""
    try:
        asked = [QEMU, "--version"]
        done = subprocess.run(asked, capture_output=True, text=True, timeout=ASK_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.partition("\n")[0].removeprefix("QEMU emulator version ")


def _distribution() -> str:
    try:
        return platform.freedesktop_os_release().get("PRETTY_NAME", "")
    except OSError:
        return ""


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return ""
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""
