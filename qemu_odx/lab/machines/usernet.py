"""QEMU's own network, in which a port of the host leads to the guest's ssh server.

May import: errors. Used by both kinds of machines.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from qemu_odx.lab.errors import LabError

if TYPE_CHECKING:
    from qemu_odx.lab.machine import Machine

FORWARDED = re.compile(r"TCP\[HOST_FORWARD\]\s+\d+\s+127\.0\.0\.1\s+(\d+)\s+\S+\s+\d+\b")


def forwarded_port(machine: Machine) -> int:
    """The host port that QEMU chose. Raises LabError if it forwards none."""
    networks = str(machine.execute("human-monitor-command", {"command-line": "info usernet"}))
    port = FORWARDED.search(networks)
    if port is None:
        raise LabError("QEMU forwards no port to the guest's ssh server", "see qemu.log", details=networks)
    return int(port[1])
