"""Feature bits that do not belong to one kind of device, and their names.

Pure. Bits of a block device are in `blk.py`, of a SCSI host in `scsi.py`. Clauses: VIRTIO 1.2.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

F_NOTIFY_ON_EMPTY: Final = 1 << 24
"""Legacy: interrupt when the available ring is empty (6.3)."""
F_LOG_ALL: Final = 1 << 26
"""Log every page written (QEMU docs/interop/vhost-user.rst, VHOST_F_LOG_ALL)."""
F_INDIRECT_DESC: Final = 1 << 28
"""A descriptor may stand for a table (6, 2.7.5.3)."""
F_EVENT_IDX: Final = 1 << 29
"""used_event and avail_event instead of flags (6, 2.7.7)."""
F_PROTOCOL_FEATURES: Final = 1 << 30
"""vhost-user protocol features may be asked for (vhost-user.rst, VHOST_USER_F_PROTOCOL_FEATURES)."""
F_VERSION_1: Final = 1 << 32
"""Not a legacy device; any framing of messages (6)."""

TRANSPORT_NAMES: Final[Mapping[int, str]] = {
    24: "NOTIFY_ON_EMPTY",
    26: "LOG_ALL",
    27: "ANY_LAYOUT",
    28: "INDIRECT_DESC",
    29: "EVENT_IDX",
    30: "PROTOCOL_FEATURES",
    32: "VERSION_1",
    33: "ACCESS_PLATFORM",
    34: "RING_PACKED",
    35: "IN_ORDER",
    36: "ORDER_PLATFORM",
    37: "SR_IOV",
    38: "NOTIFICATION_DATA",
    40: "RING_RESET",
}
"""Bit number to name (6, 6.3)."""


def feature_names(features: int, device_names: Mapping[int, str]) -> list[str]:
    """The names of the bits that are set, ascending; a bit that nobody named is "bit N"."""
    names = {**device_names, **TRANSPORT_NAMES}
    return [names.get(bit, f"bit {bit}") for bit in range(features.bit_length()) if features >> bit & 1]
