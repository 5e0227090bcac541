"""The disk layers by name, and how they are put on a disk.

May import the layers. Next: `server/config.py` reads `layers=NAME+NAME` and the options of each, `server/app.py`
calls `layered`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from qemu_odx.disk.layers import power_cut, verify
from qemu_odx.disk.layers.faults import FaultLayer

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from qemu_odx.disk.layers.layer import Layer
    from qemu_odx.disk.port import Disk


@dataclass(frozen=True, slots=True)
class LayerKind:
    """A layer that can be asked for.

    Attributes:
        make: puts it on a disk; its options as written. Raises DiskError with the cure.
        options: names of its options; on the command line they are `LAYER-OPTION`.
    """

    make: Callable[[Disk, Mapping[str, str]], Layer]
    options: tuple[str, ...] = ()


LAYERS: dict[str, LayerKind] = {
    "verify": LayerKind(verify.make, ("record", "scan")),
    "power-cut": LayerKind(power_cut.make, ("seed", "after")),
    "faults": LayerKind(lambda disk, _options: FaultLayer(disk)),
}


def option_keys() -> tuple[str, ...]:
    """Every `LAYER-OPTION` that a `--disk` may have."""
    return tuple(f"{name}-{option}" for name, kind in LAYERS.items() for option in kind.options)


def layered(disk: Disk, names: Sequence[str], options: Mapping[str, str]) -> Disk:
    """Put layers on a disk, which is closed if that fails.

    Args:
        disk: what is below.
        names: keys of `LAYERS`; guests meet the first of them first.
        options: `LAYER-OPTION` as written.

    Raises:
        DiskError: one sentence with the cure.
    """
    try:
        for name in reversed(names):
            kind, prefix = LAYERS[name], f"{name}-"
            mine = {
                key.removeprefix(prefix): value
                for key, value in options.items()
                if key.removeprefix(prefix) in kind.options and key.startswith(prefix)
            }
            disk = kind.make(disk, mine)
    except BaseException:
        disk.close()
        raise
    return disk
