"""The power button: pressed again now and then, for a guest that is still booting does not hear it.

May import: errors. Used by both kinds of machines.
"""

from __future__ import annotations

import time
from contextlib import suppress
from typing import TYPE_CHECKING

from qemu_odx.lab.errors import LabError

if TYPE_CHECKING:
    from collections.abc import Callable

    from qemu_odx.lab.machine import Machine

AGAIN_SECONDS = 5.0


def press_until_off(machine: Machine, press: Callable[[], object], seconds: float) -> bool:
    """Press, wait, press again; False if the machine is still on after so many seconds.

    Raises:
        LabError: the first press was refused.
    """
    deadline = time.monotonic() + seconds
    press()
    while (left := deadline - time.monotonic()) > 0:
        if machine.await_end(min(AGAIN_SECONDS, left)):
            return True
        with suppress(LabError):  # it may just have ended
            press()
    return machine.await_end(0)
