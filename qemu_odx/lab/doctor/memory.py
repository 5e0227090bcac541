"""Memory that guest and disk server share, huge pages, and how many files a process may hold open.

May import: doctor/{finding,host}.
"""

from __future__ import annotations

import os
import re
import resource
from typing import TYPE_CHECKING

from qemu_odx.lab.doctor.finding import Finding, Level

if TYPE_CHECKING:
    from collections.abc import Iterator

    from qemu_odx.lab.doctor.host import Host

GUEST_BYTES = 512 << 20
FEW_FILES = 256
ENOUGH_FILES = 1024
"""Each queue of a guest costs the disk server two descriptors, each disk and memory region one."""


def check_memory(host: Host) -> Iterator[Finding]:
    """RAM, memfd, /dev/shm, huge pages, RLIMIT_NOFILE."""
    sizes = {
        key: int(value)
        for key, value in re.findall(r"^(\w+):\s+(\d+)", host.read("/proc/meminfo"), re.MULTILINE)
    }
    yield _available(sizes.get("MemAvailable", 0) << 10)
    yield _memfd()
    yield _shm(host)
    yield _huge_pages(sizes)
    yield open_files(resource.getrlimit(resource.RLIMIT_NOFILE)[0])


def _available(available: int) -> Finding:
    found = f"{available >> 20} MiB available"
    if available >= 2 * GUEST_BYTES:
        return Finding("memory", "ram", Level.OK, found)
    level = Level.WARNING if available >= GUEST_BYTES else Level.ERROR
    return Finding("memory", "ram", level, found, "a guest takes 512 MiB: close something, or give it less")


def _memfd() -> Finding:
    try:
        os.close(os.memfd_create("qemu-odx-doctor", os.MFD_CLOEXEC))
    except OSError as error:
        cure = "allow memfd_create(2), which a container's seccomp profile may forbid"
        return Finding("memory", "memfd", Level.ERROR, f"cannot be made ({error.strerror})", cure)
    return Finding("memory", "memfd", Level.OK, "can be made")


def _shm(host: Host) -> Finding:
    """Only RAM backed by files needs it; the lab itself takes memfd."""
    folder = host.path("/dev/shm")  # noqa: S108 - looked at, not written
    cure = "mount a larger tmpfs there (docker run --shm-size) if you give QEMU memory-backend-file,mem-path=/dev/shm"
    try:
        size = os.statvfs(folder)
    except OSError:
        return Finding("memory", "shared files", Level.NOTE, "no /dev/shm", cure)
    free = size.f_bavail * size.f_frsize
    level = Level.OK if free >= GUEST_BYTES else Level.NOTE
    found = f"{free >> 20} MiB free in /dev/shm"
    return Finding("memory", "shared files", level, found, cure if level is Level.NOTE else "")


def _huge_pages(sizes: dict[str, int]) -> Finding:
    total, free = sizes.get("HugePages_Total", 0), sizes.get("HugePages_Free", 0)
    found = f"{free} of {total} free, {sizes.get('Hugepagesize', 0)} KiB each"
    if total:
        return Finding("memory", "huge pages", Level.OK, found)
    cure = "nothing needs them; for memory-backend-memfd,hugetlb=on: sudo sysctl vm.nr_hugepages=512"
    return Finding("memory", "huge pages", Level.NOTE, "none reserved", cure)


def open_files(limit: int) -> Finding:
    """How many descriptors a process may have."""
    found = "no limit" if limit == resource.RLIM_INFINITY else f"{limit} for each process"
    if limit == resource.RLIM_INFINITY or limit >= ENOUGH_FILES:
        return Finding("memory", "open files", Level.OK, found)
    level = Level.WARNING if limit >= FEW_FILES else Level.ERROR
    return Finding("memory", "open files", level, found, f"raise it: ulimit -n {ENOUGH_FILES}")
