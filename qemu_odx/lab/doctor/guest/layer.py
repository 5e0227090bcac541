"""The layers a token copy goes through, and what each does with it.

Imports nothing of ours. `linux.py` and `windows.py` make them of what a guest script printed, `backend.py` of what
the disk server counted; `cli/doctor.py` shows them.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from enum import Enum
from typing import Any


class Verdict(Enum):
    """What a layer does."""

    PASSES = "passes"
    REFUSES = "refuses"
    UNKNOWN = "unknown"  # it could not be asked


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer.

    Attributes:
        name: "device", "driver", "policy", "filters", "file system", "file", "tokens".
        verdict: what it does with ODX.
        found: what tells.
        cure: what helps if it refuses.
    """

    name: str
    verdict: Verdict
    found: str
    cure: str = ""


@dataclass(frozen=True, slots=True)
class DiskView:
    """One disk in the guest, its layers from the device upwards; the last one is the proof."""

    node: str
    serial: str
    layers: tuple[Layer, ...]

    @property
    def refusing(self) -> Layer | None:
        """The lowest layer that refuses: the one to mend first."""
        return next((layer for layer in self.layers if layer.verdict is Verdict.REFUSES), None)

    @property
    def proven(self) -> bool:
        """Tokens flow: it was tried and nothing refuses."""
        proof = self.layers[-1] if self.layers else None
        return proof is not None and proof.verdict is Verdict.PASSES and self.refusing is None

    def as_json(self) -> dict[str, Any]:
        """One object of `--json`."""
        layers = [{**asdict(layer), "verdict": layer.verdict.value} for layer in self.layers]
        refusing = self.refusing.name if self.refusing else None
        return {
            "node": self.node,
            "serial": self.serial,
            "proven": self.proven,
            "refusing": refusing,
            "layers": layers,
        }


@dataclass(frozen=True, slots=True)
class GuestView:
    """What one guest sees.

    Attributes:
        system: "linux" or "windows", with its version.
        disks: those that are ours or could be.
        host: what the disk server says to the same, empty if it was not asked.
    """

    system: str
    disks: tuple[DiskView, ...]
    host: tuple[Layer, ...] = ()

    @property
    def ok(self) -> bool:
        """Each disk has a device on which nothing refuses; one disk may be there twice, by SCSI and by virtio-blk."""
        open_to = {disk.serial for disk in self.disks if not disk.refusing}
        return bool(self.disks) and all(disk.serial in open_to for disk in self.disks)

    def as_json(self) -> dict[str, Any]:
        """The object that `qemu-odx doctor --guest --json` prints."""
        host = [{**asdict(layer), "verdict": layer.verdict.value} for layer in self.host]
        return {
            "ok": self.ok,
            "system": self.system,
            "disks": [disk.as_json() for disk in self.disks],
            "host": host,
        }
