"""The guest's own door to the faults: lines of text in a WRITE BUFFER, JSON in a READ BUFFER.

Imports `faults.py`. Called by `target/commands/buffer.py`; the protocol is `docs/faults/guest-control.md`.
What a line says is done before the command ends, so a guest knows the moment.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from qemu_odx.faults.errors import FaultRuleError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from qemu_odx.server.faulting.faults import Faults

VERSION = 1


@dataclass(slots=True)
class GuestControl:
    """Implements `target/port.GuestControl`."""

    faults: Faults
    _error: str = ""

    def command(self, data: bytes) -> bool:
        """Do each line in turn, until one cannot be done; False if that was the case."""
        self._error = ""
        try:
            for line in data.decode().replace("\0", "").splitlines():
                self._line(line.strip())
        except (FaultRuleError, UnicodeDecodeError) as error:
            self._error = str(error)
        return not self._error

    def report(self) -> bytes:
        """What there is, as JSON text."""
        rules = [asdict(info) for info in self.faults.list()]
        return json.dumps({"version": VERSION, "error": self._error, "faults": rules}).encode()

    def _line(self, line: str) -> None:
        if not line:
            return
        verb, _, rest = line.partition(" ")
        verbs: Mapping[str, Callable[[str], object]] = {
            "add": self.faults.add,
            "arm": self.faults.arm,
            "release": self.faults.release,
            "remove": self.faults.remove,
        }
        if verb not in verbs:
            raise FaultRuleError(f"'{verb}' is not one of {', '.join(verbs)}")
        verbs[verb](rest.strip())
