"""The command that cuts the power of disks.

Imports `server/power.py` and `disk/layers`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from qemu_odx.server.monitor.command import Later
from qemu_odx.server.monitor.errors import MonitorError
from qemu_odx.server.power import power_layers

if TYPE_CHECKING:
    from collections.abc import Callable

    from qemu_odx.disk.layers.power_cut import Cut, PowerCutLayer
    from qemu_odx.server.backend import Backend


@dataclass(frozen=True, slots=True)
class PowerCut:
    """A power cut, or what one would have left.

    Attributes:
        disk: its name.
        seed: of the random choice of what is lost; the same seed makes the same choice.
        volatile: blocks that no flush had covered.
        lost: those of them that have their old content.
    """

    disk: str
    seed: int
    volatile: int
    lost: int


def cut(
    backend: Backend, disk: str | None = None, image: str | None = None, seed: int | None = None
) -> Later[PowerCut]:
    """The host crashes, for disks with the layer `power-cut`; or, with `image`, what a crash now would leave.

    Without arguments all such disks lose some of what was not flushed, all tokens are cancelled, and the server ends
    at once with exit code 3: there is no answer, the connection breaks. With `disk` and `image` that disk, as it
    would be, is written into a new file, and everything goes on.

    Args:
        disk: name of the disk; needed with `image`.
        image: path of the new file.
        seed: of the random choice, with `image`; one is taken if it is absent.

    Example:
        -> {"execute": "odx-power-cut", "arguments": {"disk": "d0", "image": "/tmp/cut.img", "seed": 7}}
        <- {"return": {"disk": "d0", "seed": 7, "volatile": 312, "lost": 160}}
    """
    if image is None:
        if disk is not None or seed is not None:
            raise MonitorError(
                "'disk' and 'seed' are for a look without a cut: give 'image', or neither of them"
            )
        if not any(power_layers([served.disk]) for served in backend.disks.values()):
            raise MonitorError("no disk has the layer: add layers=power-cut to a --disk")
        return Later(lambda _: backend.power_cut())
    layer = _layer(backend, disk)

    def begin(answer: Callable[[PowerCut | MonitorError], None]) -> None:
        def over(result: Cut | BaseException) -> None:
            if isinstance(result, BaseException):
                why = result.strerror if isinstance(result, OSError) else result
                answer(MonitorError(f"{image} cannot be written ({why}): choose another file"))
            else:
                answer(PowerCut(result.disk, result.seed, result.volatile, result.lost))

        backend.workers.run(lambda: layer.photograph(Path(image), seed), over)

    return Later(begin)


def _layer(backend: Backend, disk: str | None) -> PowerCutLayer:
    if disk is None or disk not in backend.disks:
        raise MonitorError(f"'disk' must name one of the disks: {', '.join(backend.disks)}")
    layers = power_layers([backend.disks[disk].disk])
    if not layers:
        raise MonitorError(f"disk '{disk}' has no power to cut: add layers=power-cut to its --disk")
    return layers[0]
