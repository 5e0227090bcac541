"""The copy-offload property: what IOCTL_STORAGE_QUERY_PROPERTY tells of the limits, without a command to the disk.

Imports the model's parts and `wire` (utils.c).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from qemu_odx.windows.limits import BlockLimits
from qemu_odx.windows.request import IoStatus
from qemu_odx.wire.dsm.codes import QueryType
from qemu_odx.wire.dsm.ntstatus import NtStatus
from qemu_odx.wire.dsm.structures import CopyOffloadDescriptor, PropertyQuery

if TYPE_CHECKING:
    from qemu_odx.windows.discovery import Discovery
    from qemu_odx.windows.request import Request

_HEADER = 8
"""STORAGE_DESCRIPTOR_HEADER."""
_VERSION = 1


def query_copy_offload(request: Request, known: Discovery) -> IoStatus:
    """Answer the query for property 13."""
    query = PropertyQuery.parse(request.data)
    if query.query_type == QueryType.EXISTS:
        return IoStatus(NtStatus.SUCCESS)
    if query.query_type != QueryType.STANDARD:
        return IoStatus(NtStatus.NOT_SUPPORTED)
    if request.raised:
        return IoStatus(NtStatus.INVALID_LEVEL)
    if request.room < _HEADER:
        return IoStatus(NtStatus.BUFFER_TOO_SMALL)
    if request.room < CopyOffloadDescriptor.SIZE:
        head = CopyOffloadDescriptor(CopyOffloadDescriptor.SIZE, CopyOffloadDescriptor.SIZE).packed()
        return IoStatus(NtStatus.SUCCESS, _HEADER, head[:_HEADER])
    if known.limits is None:
        return IoStatus(NtStatus.DEVICE_FEATURE_NOT_SUPPORTED)
    answer = descriptor(known).packed().ljust(request.room, b"\0")
    return IoStatus(NtStatus.SUCCESS, CopyOffloadDescriptor.SIZE, answer)


def descriptor(known: Discovery) -> CopyOffloadDescriptor:
    """The property of a disk with ODX; sizes in blocks, as page 8Fh has them."""
    limits, lengths = known.limits, known.block_limits or BlockLimits()
    if limits is None:
        raise ValueError("a disk without ODX has no copy-offload property")
    return CopyOffloadDescriptor(
        version=_VERSION,
        size=CopyOffloadDescriptor.SIZE,
        maximum_token_lifetime=limits.max_inactivity,
        default_token_lifetime=limits.default_inactivity,
        maximum_transfer_size=limits.max_token_blocks,
        optimal_transfer_count=limits.optimal_blocks,
        maximum_data_descriptors=limits.max_ranges,
        maximum_transfer_length=lengths.max_transfer,
        optimal_transfer_length=lengths.optimal_transfer,
        granularity=lengths.granularity,
    )
