"""What a server costs while nobody wants anything of it, and what it holds."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

from guests import eventually

from qemu_odx.testing.ram import GuestRam
from qemu_odx.testing.serve import ServeProcess

if TYPE_CHECKING:
    from collections.abc import Callable

    from guests import Blk

EXPORTS = 8
MOST_RESIDENT = 80 << 10
"""KiB."""


def cpu_seconds(pid: int) -> float:
    """Time on a processor so far, of all threads: the process's own clock is exact, where counts of ticks are not."""
    return time.clock_gettime(~pid << 3 | 2)  # as clock_getcpuclockid(3) makes it: CPUCLOCK_SCHED of Linux


def resident(pid: int) -> int:
    """KiB of memory of its own, or of files that it has mapped; guest RAM is the guest's."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    sizes = {
        name: int(value.split()[0])
        for name, _, value in (line.partition(":") for line in lines)
        if "Rss" in name
    }
    return sizes["RssAnon"] + sizes["RssFile"]


def test_an_idle_server_uses_no_processor(server: ServeProcess, guest: Blk) -> None:
    """After a burst, with the guest still there: looking at the queue ends, on a slow machine a little later."""
    for _ in range(500):
        guest.read(0, 4096)

    def idle() -> bool:
        before = cpu_seconds(server.pid)
        time.sleep(1)
        return cpu_seconds(server.pid) - before <= 0.01

    eventually(idle, "it goes on using the processor")
    assert guest.read(0, 512) == bytes(512)


def test_eight_exports_fit_into_80_mib(tmp_path: Path, guests: Callable[..., Blk]) -> None:
    """Each with its own disk and a guest that has read and written."""
    arguments = []
    for number in range(EXPORTS):
        arguments += ["--disk", f"id=d{number},path=d{number}.img,size=64M"]
        arguments += ["--export", f"type=vhost-user-blk,socket=s{number},disk=d{number},num-queues=4"]
    with ServeProcess(arguments, cwd=tmp_path) as server:
        for path in server.sockets:
            guest = guests(str(tmp_path / path), queues=4, ram=GuestRam(8 << 20)).go()
            for sector in range(0, 16384, 2048):
                guest.write(sector, b"x" * (1 << 20))
                guest.read(sector, 1 << 20)
        assert resident(server.pid) < MOST_RESIDENT
