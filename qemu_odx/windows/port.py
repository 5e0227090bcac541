"""What carries the model's commands to a disk.

Imports nothing of ours. Implemented by `carriers.py` (our target, an `sg:` device) and by `check/script.py` (answers
written down beforehand).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Protocol


class Delivery(Enum):
    """What the miniport driver says of a request, besides the SCSI status (vioscsi's mapping to SRB_STATUS)."""

    DONE = "done"
    BUSY = "busy"
    """VIRTIO_SCSI_S_BUSY: SRB_STATUS_BUSY."""
    RESET = "reset"
    """VIRTIO_SCSI_S_RESET: SRB_STATUS_BUS_RESET."""
    ABORTED = "aborted"
    """VIRTIO_SCSI_S_ABORTED: SRB_STATUS_ABORTED."""
    TIMEOUT = "timeout"
    """The request outlived the disk's time-out."""


@dataclass(frozen=True, slots=True)
class Completion:
    """How a command ended.

    Attributes:
        status: SCSI status.
        sense: sense data, of any length.
        data: data-in.
        residual: bytes of the transfer that did not happen, as the transport reports them.
        delivery: how the transport ended it.
    """

    status: int
    sense: bytes = b""
    data: bytes = b""
    residual: int = 0
    delivery: Delivery = Delivery.DONE


class Carrier(Protocol):
    """Carries one command and brings back how it ended; allocation lengths are in the CDB."""

    def __call__(self, cdb: bytes, data_out: bytes, /) -> Completion:
        """Send and wait."""
