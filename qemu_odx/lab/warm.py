"""A guest in a second: its memory was saved once, right after its boot, and is read back now.

May import: errors, guest, saved_state, machines/qemu, qmp, adapters/linux, run_folder. Whatever is in the way, the
guest is booted instead, and the reason is told.

Disks of a disk server cannot be in a saved state; plug them in afterwards (`Machine.plug`).
"""

from __future__ import annotations

import os
import shlex
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from qemu_odx.lab.adapters.linux import lab_linux
from qemu_odx.lab.disk_image import DiskImage
from qemu_odx.lab.errors import LabError
from qemu_odx.lab.guest import Guest
from qemu_odx.lab.live import LiveGuest
from qemu_odx.lab.machines.qemu import QemuMachine
from qemu_odx.lab.qmp import hung_up
from qemu_odx.lab.run_folder import RunFolder
from qemu_odx.lab.saved_state import StateCache, state_key, why_not

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from qemu_odx.lab.qemu import GuestSpec

LOAD_SECONDS = 120.0
SAVE_SECONDS = 240.0
POLL_SECONDS = 0.01
ENDING_SECONDS = 60.0  # QEMU closes its monitor a moment before it is gone
BANDWIDTH = 10 << 30  # bytes per second: no limit in practice
COMMAND_SECONDS = 120.0
SETTLED = "LAB:modules-ready"  # vm_images/linux/lab-init writes it last
IN_MEMORY = (  # what the guest scripts need, so that it need not be read from the disk each time
    "sync; echo 3 > /proc/sys/vm/drop_caches; python3 -c 'import argparse, concurrent.futures, ctypes, fcntl, "
    "hashlib, json, mmap, os, struct'"
)
FRESHEN = (  # RNDRESEEDCRNG (random(4)): two guests of one state must not make the same random numbers
    "import fcntl,time; time.clock_settime(time.CLOCK_REALTIME, {now}); f = open('/dev/urandom', 'wb', 0); "
    "f.write(bytes.fromhex('{entropy}')); fcntl.ioctl(f, 0x5207)"
)


@dataclass(frozen=True, slots=True)
class WarmStart:
    """How a guest was started.

    Attributes:
        guest: ready to be used.
        resumed: it was resumed and not booted.
        reason: why it was booted, empty if it was not.
    """

    guest: LiveGuest
    resumed: bool
    reason: str = ""


def start_guest(
    spec: GuestSpec,
    folder: Path,
    *,
    cache: StateCache | None = None,
    report: Callable[[str], None] = lambda _: None,
) -> WarmStart:
    """Resume a guest, after having saved one like it if there is none yet; or boot it.

    Args:
        spec: the guest.
        folder: takes its logs.
        cache: where saved guests are.
        report: called with one line for what takes longer.

    Raises:
        LabError: not even a boot was possible.
    """
    reason = why_not(spec)
    if not reason:
        try:
            return WarmStart(_resumed(spec, folder, cache or StateCache(), report), resumed=True)
        except (LabError, OSError) as error:
            reason = str(error)
    report(f"booting the guest: {reason}")
    return boot_guest(spec, folder, reason=reason)


def boot_guest(spec: GuestSpec, folder: Path, *, reason: str = "it was asked for") -> WarmStart:
    """Boot a guest, and do not look for a saved one. Raises LabError if it does not come up."""
    return WarmStart(Guest(spec, folder), resumed=False, reason=reason)


def _resumed(spec: GuestSpec, folder: Path, cache: StateCache, report: Callable[[str], None]) -> LiveGuest:
    if isinstance(spec.image, DiskImage):
        raise LabError("no state is kept of a disk image", "boot it")
    key = state_key(spec)
    with cache.locked():
        state = cache.find(key)
        if state is None:
            report("saving a booted guest, for all later ones")
            save_guest(spec, cache, key)
            state = cache.path(key)
    machine = ResumedMachine(spec, folder, state)
    try:
        machine.start()
    except LabError:
        cache.forget(key)  # the next one saves anew
        raise
    guest = LiveGuest(machine, lab_linux(spec.image), booted=True)
    try:
        _freshen(guest)
    except BaseException:
        guest.kill()
        raise
    return guest


class ResumedMachine(QemuMachine):
    """A machine whose every start reads a saved state instead of booting."""

    def __init__(self, spec: GuestSpec, folder: Path, state: Path) -> None:
        super().__init__(replace(spec, extra=(*spec.extra, "-incoming", "defer")), folder)
        self._state = state

    def start(self) -> None:
        """See `Machine`."""
        super().start()
        try:
            self._load()
        except BaseException:
            self.kill()
            raise

    def _load(self) -> None:
        try:
            self.execute("migrate-incoming", {"uri": f"exec:cat {shlex.quote(str(self._state))}"})
            self._await_loaded(time.monotonic() + LOAD_SECONDS)
            self.execute("cont")
        except LabError as error:
            self.await_end(ENDING_SECONDS if hung_up(error) else 0)
            self.check()  # QEMU ends when a state does not fit, and says why
            raise

    def _await_loaded(self, deadline: float) -> None:
        while self.execute("query-status")["status"] == "inmigrate":
            if time.monotonic() > deadline:
                raise LabError("a saved guest was not read in time", "see qemu.log")
            time.sleep(POLL_SECONDS)


def save_guest(spec: GuestSpec, cache: StateCache, key: str) -> None:
    """Boot a guest, save it, end it.

    Raises:
        LabError: it does not boot, or QEMU cannot save it.
        OSError: the cache cannot be written.
    """
    with RunFolder() as run, cache.new(key) as path:
        guest = Guest(spec, run.path)
        try:
            _settle(guest)
            guest.shell.close()
            _save(guest.machine, path)
        finally:
            guest.kill()


def _settle(guest: Guest) -> None:
    """Wait until the boot is over, and keep in memory what is wanted later."""
    deadline = time.monotonic() + COMMAND_SECONDS
    while SETTLED not in guest.machine.console():
        if time.monotonic() > deadline:
            raise LabError(f"the guest did not write {SETTLED} in time", "see its serial log")
        time.sleep(POLL_SECONDS)
    done = guest.shell.run(IN_MEMORY, seconds=COMMAND_SECONDS)
    if done.status != 0:
        raise LabError("the guest cannot be made ready for saving", "see the guest", details=done.stderr)


def _save(machine: QemuMachine, path: Path) -> None:
    machine.pause()
    machine.execute("migrate-set-parameters", {"max-bandwidth": BANDWIDTH})
    machine.execute("migrate", {"uri": f"exec:cat > {shlex.quote(str(path))}"})
    deadline = time.monotonic() + SAVE_SECONDS
    while (found := machine.execute("query-migrate")).get("status") != "completed":
        if found.get("status") in {"failed", "cancelled"} or time.monotonic() > deadline:
            why = found.get("error-desc", "no reason given")
            raise LabError(f"QEMU cannot save the guest: {why}", f"is there room in {path.parent}?")
        time.sleep(POLL_SECONDS)


def _freshen(guest: LiveGuest) -> None:
    """The clock of today, and random numbers of its own."""
    program = FRESHEN.format(now=repr(time.time()), entropy=os.urandom(32).hex())
    done = guest.shell.run(f"python3 -ISc {shlex.quote(program)}", seconds=COMMAND_SECONDS)
    if done.status != 0:
        raise LabError("a resumed guest cannot be given the time", "see the guest", details=done.stderr)
