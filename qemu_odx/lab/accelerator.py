"""Which accelerator QEMU gets: KVM only where it will really work.

Imports nothing of ours.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

KVM_DEVICE = Path("/dev/kvm")
CPU_INFO = Path("/proc/cpuinfo")
VIRTUALIZATION_FLAG = re.compile(r"^flags\s*:.*\b(vmx|svm)\b", re.MULTILINE)


def choose_accelerator(device: Path = KVM_DEVICE, cpu_info: Path = CPU_INFO) -> str:
    """Choose "kvm" if the device opens and the processor says that it can, else "tcg".

    The device alone proves nothing: inside some virtual machines it opens although no guest would run.
    """
    return "kvm" if _opens(device) and VIRTUALIZATION_FLAG.search(_text(cpu_info)) else "tcg"


def _opens(device: Path) -> bool:
    try:
        os.close(os.open(device, os.O_RDWR | os.O_CLOEXEC))
    except OSError:
        return False
    return True


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
