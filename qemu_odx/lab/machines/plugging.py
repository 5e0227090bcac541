"""Devices of a disk server in a running machine: the QMP commands, and which PCIe port is free.

May import: errors, machine. Used by both kinds of machines.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qemu_odx.lab.errors import LabError

if TYPE_CHECKING:
    from qemu_odx.lab.machine import Plug

RECONNECT_SECONDS = 1


class Ports:
    """PCIe root ports that take one device each."""

    def __init__(self, count: int, prefix: str = "port", first: int = 1) -> None:
        self._buses = [f"{prefix}{number}" for number in range(first, first + count)]
        self._taken: dict[str, str] = {}

    def take(self, name: str) -> str:
        """The bus for a device called `name`. Raises LabError if there is none, or the name is in use."""
        if name in self._taken:
            raise LabError(f"there is a device called {name} already", "choose another name")
        free = [bus for bus in self._buses if bus not in self._taken.values()]
        if not free:
            raise LabError(
                f"the machine has no free port for {name} ({len(self._buses)} in all)",
                "start it with more hotplug_ports, or unplug a device",
            )
        self._taken[name] = free[0]
        return free[0]

    def check_taken(self, name: str) -> None:
        """Raise LabError if no device of that name has been plugged."""
        if name not in self._taken:
            raise LabError(f"no device called {name} is plugged", "use the name that plug was given")

    def free(self, name: str) -> None:
        """The device is gone."""
        self._taken.pop(name, None)

    def free_all(self) -> None:
        """The machine starts again, with what it had at the start."""
        self._taken.clear()


def plug_commands(
    name: str, plug: Plug, bus: str, *, scsi_reconnects: bool = False
) -> list[tuple[str, dict[str, Any]]]:
    """QMP: the socket, then the device on it.

    Args:
        name: identifier of the device.
        plug: the device.
        bus: where it is plugged in.
        scsi_reconnects: this QEMU can connect vhost-user-scsi again; see `abilities.py`.
    """
    socket: dict[str, Any] = {
        "addr": {"type": "unix", "data": {"path": str(plug.socket)}},
        "server": False,
    }
    if plug.kind == "blk" or scsi_reconnects:
        socket["reconnect"] = RECONNECT_SECONDS
    queues = {"num-queues" if plug.kind == "blk" else "num_queues": plug.queues}
    return [
        ("chardev-add", {"id": f"{name}-socket", "backend": {"type": "socket", "data": socket}}),
        (
            "device_add",
            {
                "driver": f"vhost-user-{plug.kind}-pci",
                "id": name,
                "bus": bus,
                "chardev": f"{name}-socket",
                **queues,
            },
        ),
    ]


def unplugged(name: str, seconds: float) -> LabError:
    """What to say of a device that the guest did not give back."""
    return LabError(
        f"the guest did not give {name} back within {seconds:.0f} s",
        "unmount what is on it; a guest that is still booting gives nothing back",
    )
