"""Fault rules as a guest steers them: over any initiator, by WRITE BUFFER and READ BUFFER (`--guest-control`).

May import `initiator` and `wire/scsi`. The host's way, over the monitor, is `monitor_faults.py`'s.

    faults = GuestFaults(guest.initiator)
    name = faults.add("op=WRITE USING TOKEN,count=1,sense=token-expired")
    ...
    assert faults.find(name)["fired"] == 1
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from qemu_odx.wire.scsi.buffers import READ_BUFFER, VENDOR_SPECIFIC, WRITE_BUFFER

if TYPE_CHECKING:
    from qemu_odx.testing.initiator import Answer, Initiator

_CHUNK = 4096
_ATTENTION = 6


class FaultError(Exception):
    """The server refused; the text says why."""


@dataclass(slots=True)
class GuestFaults:
    """The rules of the server behind a logical unit.

    Attributes:
        initiator: carries the commands.
        lun: a logical unit that exists.
    """

    initiator: Initiator
    lun: int = 0

    def add(self, rule: str) -> str:
        """Add a rule; its name. Raises FaultError."""
        before = {item["name"] for item in self.list()}
        self.command(f"add {rule}")
        return next(str(item["name"]) for item in self.list() if item["name"] not in before)

    def arm(self, name: str) -> None:
        """Put a rule in force. Raises FaultError."""
        self.command(f"arm {name}")

    def release(self, name: str) -> None:
        """Put a rule out of force, and let everything go on that it holds. Raises FaultError."""
        self.command(f"release {name}")

    def remove(self, name: str) -> None:
        """Release a rule and forget it. Raises FaultError."""
        self.command(f"remove {name}")

    def clear(self) -> None:
        """Remove every rule."""
        for item in self.list():
            self.remove(item["name"])

    def find(self, name: str) -> dict[str, Any]:
        """One rule: its state, and how often it was seen and fired. Raises FaultError."""
        for item in self.list():
            if item["name"] == name:
                return item
        raise FaultError(f"there is no fault rule '{name}'")

    def list(self) -> list[dict[str, Any]]:
        """Every rule."""
        return list(self._report()["faults"])

    def command(self, lines: str) -> None:
        """Do what some lines say. Raises FaultError."""
        data = lines.encode()
        answer = self._send(_cdb(WRITE_BUFFER, 0, len(data)), data)
        if not answer.good:
            why = self._report()["error"] if answer.fault == (5, 0x26, 0) else f"sense {answer.fault}"
            raise FaultError(why)

    def _send(self, cdb: bytes, data: bytes = b"") -> Answer:
        """Once more after a unit attention: the unit tells its news first."""
        answer = self.initiator.command(self.lun, cdb, data)
        return (
            self.initiator.command(self.lun, cdb, data) if (answer.fault or (0,))[0] == _ATTENTION else answer
        )

    def _report(self) -> dict[str, Any]:
        data = b""
        while len(data) % _CHUNK == 0:
            answer = self._send(_cdb(READ_BUFFER, len(data), _CHUNK))
            if not answer.good:
                raise FaultError(f"the server lets guests steer nothing: sense {answer.fault}")
            if not answer.data:
                break
            data += answer.data
        report: dict[str, Any] = json.loads(data)
        return report


def _cdb(opcode: int, offset: int, length: int) -> bytes:
    return bytes((opcode, VENDOR_SPECIFIC, 0)) + offset.to_bytes(3, "big") + length.to_bytes(3, "big") + b"\0"
