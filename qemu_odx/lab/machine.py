"""What every machine can do, whoever runs it: QEMU started by the lab itself, or a libvirt daemon.

Imports nothing of ours but errors. Implemented by `machines/qemu.py` and `machines/libvirt.py`; `live.py` puts
a guest adapter on top.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

UNPLUG_SECONDS = 120.0
SHUT_DOWN_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Plug:
    """A disk server's device for a running machine.

    Attributes:
        kind: "blk" for vhost-user-blk, "scsi" for vhost-user-scsi.
        socket: the socket on which the disk server listens for it.
        queues: request queues of the device.
    """

    kind: Literal["blk", "scsi"]
    socket: Path
    queues: int = 1


class Machine(Protocol):
    """A virtual machine that can be started again and again.

    Every method raises `LabError` if it cannot do what it says; the machine itself stays as it was.
    """

    @property
    def running(self) -> bool:
        """Whether it is on, paused or not."""

    @property
    def ssh_port(self) -> int:
        """The port on 127.0.0.1 that leads to the guest's ssh server."""

    def start(self) -> None:
        """Switch it on; returns as soon as the processors run. Never waits for a socket nobody serves."""

    def shut_down(self, seconds: float = SHUT_DOWN_SECONDS) -> None:
        """Press the power button (ACPI) and wait until the guest has switched the machine off."""

    def await_end(self, seconds: float) -> bool:
        """Wait until the machine is off; False if it is still on after so many seconds."""

    def check(self) -> None:
        """Raise `LabError` with the last words if it ended otherwise than by a guest that switched it off."""

    def let_reboot(self, *, allowed: bool) -> None:
        """Whether a reboot by the guest boots it again, or ends the machine as a panic does."""

    def reset(self) -> None:
        """Press the reset button. Reboots are allowed until `let_reboot` says otherwise."""

    def pause(self) -> None:
        """Stop the processors; devices and memory stay as they are."""

    def resume(self) -> None:
        """Let the processors go on."""

    def plug(self, name: str, plug: Plug) -> None:
        """Add a device of a disk server to the running machine; `name` is its name for `unplug`."""

    def unplug(self, name: str, seconds: float = UNPLUG_SECONDS) -> None:
        """Ask the guest to give a device back and wait until it has."""

    def save_system(self) -> None:
        """Keep the system disk as it is now, for `revert_system`. The machine must be off.

        A machine whose system is read-only has nothing to keep: each start is as fresh as the first.
        """

    def revert_system(self) -> None:
        """Put the system disk back to what `save_system` kept, or to the image. Ends the machine if it is on."""

    @property
    def console_is_whole(self) -> bool:
        """False if some of the guest's words may be missing from `console`."""

    def console(self) -> str:
        """All that the guest has written to its serial port since the first start."""

    def screenshot(self, target: Path) -> None:
        """Write the screen as a PNG file. The machine needs a display."""

    def press_keys(self, *keys: str) -> None:
        """Press keys of the keyboard one after the other; names as QEMU's `QKeyCode` has them, `ret` for one."""

    def execute(self, command: str, arguments: Mapping[str, object] | None = None) -> Any:
        """Run a QMP command of the machine's QEMU and return what it returns."""

    def write_state(self) -> None:
        """Keep with the machine's logs what tells a guest stuck in its firmware from one stuck in a driver."""

    def kill(self) -> None:
        """End it now, whatever the guest does. Idempotent; never raises."""
