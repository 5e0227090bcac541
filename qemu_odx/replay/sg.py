"""A replay on SCSI disks of Linux (`/dev/sgN`): any device that copies by token, an array too.

Imports `testing/conformance/sg` and `wire/`. virtio-blk requests are sent as the commands that do the same. What
needs our own target (a second nexus, time, faults, tokens ended by the host) is left out and told.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from qemu_odx.replay.port import Ending, ReplayError
from qemu_odx.testing.conformance.bench import CheckSkippedError
from qemu_odx.testing.conformance.sg import SgDevice, SgError
from qemu_odx.trace import payload
from qemu_odx.wire.scsi.describe import status_name
from qemu_odx.wire.scsi.sense import Key
from qemu_odx.wire.virtio.blk import SECTOR
from qemu_odx.wire.virtio.scsi import TaskManagement

if TYPE_CHECKING:
    from collections.abc import Mapping

    from qemu_odx.replay.script import Script, Step
    from qemu_odx.testing.initiator import Answer

_CHUNK: Final = 256 << 10
"""Bytes of one WRITE when the disks are brought into their first state."""
_ATTENTIONS: Final = 8
_READ, _WRITE, _SYNCHRONIZE = 0x88, 0x8A, 0x91
"""READ(16), WRITE(16), SYNCHRONIZE CACHE(16) (SBC-3)."""


class SgReplay:
    """Implements `port.ReplayDevice`.

    Args:
        script: says which disks there were.
        nodes: by disk, a node such as /dev/sg1; its content is overwritten.

    Raises:
        ReplayError: a node cannot be used, or its disk does not fit.
    """

    same_device = False

    def __init__(self, script: Script, nodes: Mapping[str, str]) -> None:
        self._nodes = list(nodes)
        try:
            self._device = SgDevice(list(nodes.values()))
        except SgError as error:
            raise ReplayError(str(error)) from error
        self._block_sizes = {name: int(disk.about["block_size"]) for name, disk in script.disks.items()}
        self._disks = {
            (item["id"], lun): disk
            for item in script.head["exports"]
            for lun, disk in item.get("luns", {}).items()
        }
        self._nexus: dict[str, str] = {}
        for name in nodes:
            self._prepare(script, name)

    def passed(self, clock: float) -> None:
        """Time passes by itself, and faster than it did: what expired in the recording may live here."""

    def run(self, step: Step, data_out: bytes) -> Ending | None:
        """As a command to the node of its disk."""
        record = step.record
        disk = record.get("disk") or self._disks.get((record["export"], str(record.get("lun"))))
        if disk not in self._nodes or "blocks" in record.get("decision", {}):
            return None
        lun = self._nodes.index(disk)
        try:
            match record["kind"]:
                case "scsi" if self._one_nexus(record["export"], record["nexus"]):
                    return _ending(self._send(lun, bytes.fromhex(record["cdb"]).ljust(16, b"\0"), data_out))
                case "blk":
                    return self._blk(lun, step, data_out)
                case "control" if record["code"] == TaskManagement.LOGICAL_UNIT_RESET:
                    self._device.reset(lun)
                    return Ending("OK")
        except SgError as error:
            raise ReplayError(str(error)) from error
        except CheckSkippedError:
            return None
        return None

    def end_token(self, token: bytes, cause: str) -> bool:
        """Not by any command."""
        del token, cause
        return False

    def close(self) -> None:
        """Close the nodes."""
        self._device.close()

    def _one_nexus(self, export: str, nexus: str) -> bool:
        """All nodes are behind one nexus: the first one that each export had."""
        return self._nexus.setdefault(export, nexus) == nexus

    def _prepare(self, script: Script, name: str) -> None:
        """Write what the disk held when the recording began."""
        about, lun = script.disks[name].about, self._nodes.index(name)
        size = about["block_size"]
        for offset, packed in script.disks[name].extents:
            data = payload.unpack(packed)
            for at in range(0, len(data), _CHUNK):
                part = data[at : at + _CHUNK]
                answer = self._send(lun, _sixteen(_WRITE, (offset + at) // size, len(part) // size), part)
                if not answer.good:
                    raise ReplayError(
                        f"disk {name} cannot be written ({status_name(answer.status)}): is the node at least as "
                        f"large as {about['size']} bytes, with blocks of {size}?"
                    )

    def _send(self, lun: int, cdb: bytes, data_out: bytes) -> Answer:
        """Send, and again after the unit attentions of a device that was not asked for long."""
        for _ in range(_ATTENTIONS):
            answer = self._device.carry(0, lun, cdb, data_out)
            if answer.fault is None or answer.fault[0] != Key.UNIT_ATTENTION:
                break
        return answer

    def _blk(self, lun: int, step: Step, data_out: bytes) -> Ending | None:
        record = step.record
        size = self._block_sizes[record["disk"]]
        if record["name"] == "FLUSH":
            answer = self._send(lun, _sixteen(_SYNCHRONIZE, 0, 0), b"")
        elif record["name"] in {"IN", "OUT"} and record.get("spans"):
            first, sectors = record["spans"][0]
            place, count = first * SECTOR // size, sectors * SECTOR // size
            answer = self._send(
                lun, _sixteen(_WRITE if record["name"] == "OUT" else _READ, place, count), data_out
            )
        else:
            return None
        return Ending("OK" if answer.good else "IOERR", b"", answer.data)


def _ending(answer: Answer) -> Ending:
    return Ending(status_name(answer.status), answer.sense, answer.data)


def _sixteen(opcode: int, lba: int, blocks: int) -> bytes:
    return bytes((opcode, 0)) + lba.to_bytes(8, "big") + blocks.to_bytes(4, "big") + bytes(2)
