"""A guest for tests: from the user's options and a marker to a guest that is logged in to.

May import: lab. Next: `guests.py` lends it to tests.
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING

from qemu_odx.lab.accelerator import choose_accelerator
from qemu_odx.lab.config.model import MEBIBYTE, WINDOWS_MEMORY
from qemu_odx.lab.config.model import Guest as GuestWish
from qemu_odx.lab.disk_image import DiskImage
from qemu_odx.lab.live import LiveGuest
from qemu_odx.lab.machines.libvirt import LibvirtMachine
from qemu_odx.lab.machines.libvirt_errors import libvirt_module
from qemu_odx.lab.machines.qemu import QemuMachine
from qemu_odx.lab.qemu import GuestSpec
from qemu_odx.lab.run_folder import RunFolder
from qemu_odx.lab.saved_state import require_qemu, why_not
from qemu_odx.lab.session.machines import WINE_CPU, prepare
from qemu_odx.lab.warm import WarmStart, boot_guest, start_guest
from qemu_odx.pytest_plugin.missing import skipped_if_missing

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager
    from pathlib import Path

    from qemu_odx.lab.image import Image
    from qemu_odx.lab.machine import Machine
    from qemu_odx.lab.session.machines import Prepared
    from qemu_odx.pytest_plugin.options import OdxOptions

PORTS = 8
"""Devices that can be plugged in at once."""
LAB_MEMORY, OWN_MEMORY = 384, 1024


@dataclass(frozen=True, slots=True)
class GuestOrder:
    """What a test's guest is like: a recipe or a disk image, memory (None: what suits the image), processors."""

    image: str
    memory_mib: int | None = None
    cpus: int = 2


@dataclass(frozen=True, slots=True)
class Started:
    """A guest and the folder of its logs.

    Attributes:
        live: the guest.
        run: takes its logs.
        resumed: it was resumed and not booted.
        reason: why it was booted, empty if it was not.
    """

    live: LiveGuest
    run: RunFolder
    resumed: bool
    reason: str

    @property
    def alive(self) -> bool:
        """Whether its machine is on."""
        return self.live.machine.running

    def end(self) -> None:
        """End it, and forget its logs."""
        self.live.kill()
        self.run.close()


def start(
    order: GuestOrder,
    options: OdxOptions,
    kept: Callable[[Path], AbstractContextManager[object]] = nullcontext,
) -> Started:
    """A guest as ordered. What this machine lacks for it is a skip, or a failure if the user wants that.

    Args:
        order: the guest.
        options: the user's.
        kept: takes care of the logs, in the folder that it is given, of a guest that does not come up.

    Raises:
        UsageError: there is no such image, or no key for it.
        LabError: the guest does not come up.
    """
    with skipped_if_missing(require=options.require):
        require_qemu()
        if options.machine == "libvirt":
            libvirt_module()
        prepared = prepare(_wish(order, options), report=lambda _: None)
    spec = GuestSpec(
        prepared.image,
        choose_accelerator(),
        memory_mib=order.memory_mib or _enough_memory(prepared.image),
        cpus=order.cpus,
        tcg_cpu=WINE_CPU if order.image == "wine" else "max",
        hotplug_ports=PORTS,
        display=isinstance(prepared.image, DiskImage),
    )
    run = RunFolder()
    try:
        with kept(run.path):
            begun = _begin(spec, prepared, options, run.path)
    except BaseException:
        run.close()
        raise
    return Started(begun.guest, run, begun.resumed, begun.reason)


def _enough_memory(image: Image | DiskImage) -> int:
    """Mebibytes: a saved guest is resumed the sooner the less it has."""
    if isinstance(image, DiskImage):
        return WINDOWS_MEMORY // MEBIBYTE if image.system == "windows" else OWN_MEMORY
    return LAB_MEMORY


def _wish(order: GuestOrder, options: OdxOptions) -> GuestWish:
    """The guest as the lab describes one."""
    return GuestWish(
        "odx",
        order.image,
        (),
        system=options.system,
        firmware=options.firmware,
        user=options.user,
        port=options.port,
        private_key=options.key,
    )


def _begin(spec: GuestSpec, prepared: Prepared, options: OdxOptions, folder: Path) -> WarmStart:
    """Resumed where that is possible, booted elsewhere."""
    libvirt = options.machine == "libvirt"
    if not libvirt and not isinstance(spec.image, DiskImage):
        return (boot_guest if options.boot else start_guest)(spec, folder)
    machine: Machine = (
        LibvirtMachine(spec, folder, options.libvirt_uri) if libvirt else QemuMachine(spec, folder)
    )
    reason = "domains of libvirt are not saved" if libvirt else why_not(spec)
    return WarmStart(LiveGuest(machine, prepared.adapter), resumed=False, reason=reason)
